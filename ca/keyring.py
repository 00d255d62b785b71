"""Whose key it was: people.toml of one moment, read for its keys only.

The CA refuses a file with anything wrong in it (`ca.roles`); here it is a record of what was in force, read by whoever checks.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ca.errors import Malformed
from ca.keys import PublicKey, fingerprint


@dataclass(frozen=True)
class Keyring:
    """The people of one policy by the blobs of their keys, without those that are revoked."""

    owners: Mapping[bytes, str]

    @classmethod
    def parse(cls, people: bytes) -> Self:
        """Reads the bytes of a people.toml. Raises `Malformed`."""
        try:
            table = tomllib.loads(people.decode())
            lines = [(line, person) for person, about in table.get("people", {}).items() for line in about["keys"]]
            keys = [(PublicKey.parse_line(line).blob, person) for line, person in lines]
            revoked = frozenset(table.get("revoked_keys", ()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Malformed(f"people.toml cannot be read: {error!r:.200}") from error
        owners: dict[bytes, str] = {}
        for blob, person in keys:
            if owners.setdefault(blob, person) != person:
                raise Malformed(f"people.toml gives the key {fingerprint(blob)} to {owners[blob]} and to {person}")
        return cls({blob: person for blob, person in owners.items() if fingerprint(blob) not in revoked})
