"""What a verifier checks of the lifecycle: a log that a CA with every key could write, wrong in one thing that people signed."""

import dataclasses
from base64 import b64encode

import pytest

from ca import verify
from ca.checkpoint import Checkpoint
from ca.entry import AnyEntry, ApproveEntry, IssueEntry, RenewEntry, RevokeEntry
from ca.errors import LogDamaged
from ca.merkle import Frontier, leaf_hash
from tests.world import World


def rewritten(world: World, *forged: AnyEntry) -> None:
    """Judges a log that ends in these entries instead of its own last ones, as a CA that holds every key could write it."""
    sources = [*world.store.entries(0, forged[0].index), *(each.encode() for each in forged)]
    frontier = Frontier()
    for source in sources:
        frontier.append(leaf_hash(source))
    checkpoint = Checkpoint(world.ca.trust.origin, len(sources), frontier.root())
    verify.verify(world.ca.trust, checkpoint, map(leaf_hash, sources), enumerate(sources))


def test_words_about_one_grant_ask_for_no_certificate_of_another(world: World) -> None:
    assert world.ask("ana", role="dev", reason="").status_code == 201
    assert world.ask("ana").status_code == 201
    assert world.renew("ana", 2).status_code == 201
    *_, web, renewal, again = world.entries()
    assert isinstance(web, IssueEntry)
    assert isinstance(renewal, RenewEntry)
    assert isinstance(again, IssueEntry)
    rewritten(world, renewal, again)
    tbs = b64encode(dataclasses.replace(web.certificate, serial=again.index).to_be_signed).decode()
    moved = dataclasses.replace(renewal, role="web-admin", request=web.request)
    issued = dataclasses.replace(again, role="web-admin", request=web.request, tbs=tbs)
    with pytest.raises(LogDamaged, match="entry 6: its statement does not ask for a certificate of this grant"):
        rewritten(world, moved, issued)


def test_a_grant_lasts_no_longer_than_each_approver_signed_for(world: World) -> None:
    number = world.ask("ana", role="db-admin", reason="").json["request"]  # type: ignore[index]
    assert world.answer("cy", "approve", number, duration=60).status_code == 200
    approved = world.entries()[-1]
    assert isinstance(approved, ApproveEntry)
    assert approved.privilege is not None
    rewritten(world, approved)
    longer = dataclasses.replace(approved, privilege=dataclasses.replace(approved.privilege, duration=61))
    with pytest.raises(LogDamaged, match="it grants for longer than was asked for and approved"):
        rewritten(world, longer)


def test_a_revocation_ends_what_its_words_name_and_nothing_else(world: World) -> None:
    assert world.ask("ana").status_code == 201
    assert world.act("eve", "revoke", "/v1/revocations", person="ana", reason="left").status_code == 200
    revoked = world.entries()[-1]
    assert isinstance(revoked, RevokeEntry)
    rewritten(world, revoked)
    for narrower in ({"serial": 999}, {"request": 2}, {"person": "bo"}):
        with pytest.raises(LogDamaged, match="its statement names another"):
            rewritten(world, dataclasses.replace(revoked, **narrower))
