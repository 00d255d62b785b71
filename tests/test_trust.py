"""`ca.trust`: what is pinned at setup has one spelling and one fingerprint, and does not contradict itself."""

import dataclasses
import hashlib
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.checkpoint import VerifierKey
from ca.errors import Malformed
from ca.trust import Trust
from ca.wire import Reader
from tests import keys


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    directory: Path = tmp_path_factory.mktemp("trust")
    ca, log = keys.make(directory, name="ca"), keys.make(directory, name="log")
    raw = Reader(log.public_key.fields, "key").string()
    return Trust(origin="ca.example.com", ca_keys=(ca.public_key.line,), log_key=str(VerifierKey("ca.example.com", raw)))


def test_it_reads_what_it_writes(trust: Trust) -> None:
    assert Trust.parse(trust.encode()) == trust


def test_the_fingerprint_is_the_hash_of_all_of_it(trust: Trust) -> None:
    digest = hashlib.sha256(trust.encode()).digest()
    assert trust.fingerprint == "SHA256:" + b64encode(digest).decode().rstrip("=")


def test_any_difference_is_another_fingerprint(trust: Trust, tmp_path: Path) -> None:
    another = keys.make(tmp_path, name="another").public_key.line
    raw = trust.verifier.public_key
    others = [
        dataclasses.replace(trust, ca_keys=(another,)),
        dataclasses.replace(trust, ca_keys=(*trust.ca_keys, another)),
        dataclasses.replace(trust, ca_keys=(another, *trust.ca_keys)),
        dataclasses.replace(trust, origin="other.example.com", log_key=str(VerifierKey("other.example.com", raw))),
    ]
    assert len({trust.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_log_key_of_another_name_is_not_this_logs(trust: Trust) -> None:
    with pytest.raises(Malformed, match=r"the log key is named 'ca\.example\.com', not other"):
        dataclasses.replace(trust, origin="other")


@pytest.mark.parametrize("origin", ["", "CA", "ca example", "ca\n", "ca+1", "../ca"])
def test_an_origin_is_a_name(trust: Trust, origin: str) -> None:
    with pytest.raises(Malformed, match="origin"):
        dataclasses.replace(trust, origin=origin)


def test_a_ca_has_keys_and_each_in_its_one_spelling(trust: Trust) -> None:
    (line,) = trust.ca_keys
    for lines in ((), (line + " comment",), (line + "\n",), ("",), ("junk",), (line, line[:-2])):
        with pytest.raises(Malformed):
            dataclasses.replace(trust, ca_keys=lines)


@given(data=st.data())
def test_any_change_of_a_byte_is_another_trust_or_malformed(trust: Trust, data: st.DataObject) -> None:
    source = bytearray(trust.encode())
    at = data.draw(st.integers(0, len(source) - 1))
    source[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != source[at]))
    try:
        parsed = Trust.parse(bytes(source))
    except Malformed:
        return
    assert parsed != trust
    assert parsed.fingerprint != trust.fingerprint


@given(source=st.binary(max_size=300))
def test_anything_else_is_malformed(source: bytes) -> None:
    with pytest.raises(Malformed):
        Trust.parse(source)
