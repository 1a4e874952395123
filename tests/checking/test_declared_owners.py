"""Declared owners: of one owner one checks, and none checks its own owner's work."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from node.asking.attempts import Attempts
from node.asking.keeping import told_owners
from node.asking.run import TaskState
from node.checking.audit import audit
from node.checking.check_request import CheckRequest
from node.checking.known_verifiers import KnownVerifiers
from node.checking.quorum import Checking, _Check
from node.checking.report import AuditReport, Point, Status
from node.checking.tally import Tally
from node.checking.ties import one_of_each
from node.dispatch.handoff import LegResult
from node.peer import Node
from tests.node.asking import asked, complete, request, texts_of
from tests.node.engines import Counted
from tests.node.network import I, S, V, open_network
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import BatonError
from wire.lottery import Share
from wire.ownership import Ownership
from wire.receipt import Answer, Verdict
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey

OWNER, OTHER_OWNER = key_of("an owner"), key_of("another owner")
A, B, C = (key_of(name).peer for name in "ABC")


def test_of_each_owner_the_first_drawn_is_asked() -> None:
    owners = {A: OWNER.peer, C: OWNER.peer}
    assert one_of_each([A, B, C], lambda it: owners.get(it, it)) == [A, B]
    assert one_of_each([C, B, A], lambda it: owners.get(it, it)) == [C, B]
    # Who signed for others is one of them.
    assert one_of_each([A, B, C], lambda it: B if it == C else it) == [A, B]


def checked_by(answer: Signed[Answer]) -> list[PeerId]:
    return [open_signed(it, Verdict).signer for it in answer.record.verdicts]


def of_owners(report: AuditReport) -> list[Point]:
    return [it for it in report.points if "owners that are declared" in it.what]


async def test_one_of_an_owner_checks_and_none_its_owners_work(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        maker = await network.start(I, S, owner=OTHER_OWNER)
        owned = {(await network.start(V, S, owner=OWNER)).peers.me for _ in range(3)}
        barred = {(await network.start(V, S, owner=OTHER_OWNER)).peers.me for _ in range(2)}
        honest = (await network.start(V, S)).peers.me
        await network.settled()
        for number in range(6):
            answered, _ = await asked(asker, request(data=texts_of(f"text {number}")))
            checked = checked_by(answered.answer)
            assert honest in checked
            assert len(owned.intersection(checked)) == 1
            assert not barred.intersection(checked)
            record = answered.answer.record
            assert barred.isdisjoint(record.candidates)
            # Candidates that share an owner are told too: they count as one of two.
            assert {it.peer for it in record.owned} == {maker.peers.me, *owned}
            report = audit(answered.answer.raw, lambda _: None)
            assert report.holds
            (point,) = of_owners(report)
            assert point.status is Status.HOLDS
            (limit,) = [it for it in report.points if "belong to one owner" in it.what]
            assert "1 of the 2 verifiers" in limit.detail
            (odds,) = [it for it in report.points if "how many of the 2 candidates" in it.what]
            assert "4 keys, of which those of a declared owner are one" in odds.detail


async def test_peers_that_are_all_of_one_owner_do_not_check_each_other(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, owner=OWNER)
        await network.start(I, S)
        for _ in range(3):
            await network.start(V, S, owner=OWNER)
        await network.settled()
        with pytest.raises(BatonError, match="0 of the verdicts agree"):
            await asked(asker, request(deadline_s=10))


async def test_nobody_names_an_owner_that_did_not_sign(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Else a liar would have the verifiers of that owner kept away from its work."""
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        liar = await network.start(I, S)
        verifiers = {(await network.start(V, S, owner=OWNER)).peers.me}
        verifiers |= {(await network.start(V, S)).peers.me}
        signed = Ownership.signed_by(OWNER, next(iter(verifiers)))
        liar.peers.advertiser.ownership = replace(signed, peer=liar.peers.me)
        liar.peers.advertiser.changed()
        await network.settled()
        assert asker.tasks.checking.owners().owner_of(liar.peers.me) == liar.peers.me
        answered, _ = await asked(asker, request())
        assert set(checked_by(answered.answer)) == verifiers


async def answer_of(network_folder: Path, *owners: SigningKey | None) -> tuple[Node, Answer]:
    async with open_network(network_folder) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted())
        for owner in owners:
            await network.start(V, S, owner=owner)
        await network.settled()
        answered, _ = await asked(asker, request())
        return asker, answered.answer.record


async def test_a_receipt_shows_verifiers_of_one_owner_and_a_forged_owner(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    asker, answer = await answer_of(tmp_path, OWNER, OTHER_OWNER)
    key = asker.dependencies.key

    def report_of(*owned: Ownership) -> AuditReport:
        kept = tuple(sorted(owned, key=lambda it: it.peer))
        return audit(sign(replace(answer, owned=kept), key).raw, lambda _: None)

    first, second = (it.peer for it in answer.owned)
    same = report_of(*(Ownership.signed_by(OWNER, it) for it in (first, second)))
    assert not same.holds
    assert "belong to" in of_owners(same)[0].detail
    # Whose owner is the asker's own key checked its own owner's answer.
    mine = report_of(Ownership.signed_by(key, first))
    assert not mine.holds
    assert "has the owner of" in of_owners(mine)[0].detail
    forged = report_of(replace(answer.owned[0], owner=OTHER_OWNER.peer, signature=bytes(64)))
    assert not forged.holds
    assert any("signed that it is" in it.what for it in forged.points)
    # Who declares nothing is not said to be apart.
    assert report_of().holds
    assert not of_owners(report_of())


async def test_owners_that_are_shown_once_they_were_asked_make_no_draw_unfair(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else verifiers of one owner could have any asker's answers called unfairly checked."""
    begin, look, were_asked = _Check._begin, KnownVerifiers._shown, set[PeerId]()

    def begun(check: _Check, verifier: PeerId, share: Share, now_at_s: float) -> None:
        were_asked.add(verifier)
        begin(check, verifier, share, now_at_s)

    def shown(known: KnownVerifiers, peer: PeerId) -> Ownership | None:
        return Ownership.signed_by(OWNER, peer) if peer in were_asked else look(known, peer)

    monkeypatch.setattr(_Check, "_begin", begun)
    monkeypatch.setattr(KnownVerifiers, "_shown", shown)
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        for _ in range(2):
            await network.start(V, S)
        await network.settled()
        answered, _ = await asked(asker, request())
        assert len(checked_by(answered.answer)) == 2
        assert were_asked == set(checked_by(answered.answer))
        report = audit(answered.answer.raw, lambda _: None)
        assert report.holds, report.first_bad
        # From then on they are one owner's, and one of them is asked.
        with pytest.raises(BatonError, match="1 of the verdicts agree"):
            await asked(asker, request(data=texts_of("another"), deadline_s=10))


def test_what_was_shown_to_the_check_of_one_leg_alone_is_not_told_of_all() -> None:
    by_owner = {it: Ownership.signed_by(OWNER, it) for it in (A, B)}
    first = Tally(agreed=True, verdicts=(), candidates=(), owned={**by_owner, C: None})
    second = Tally(agreed=True, verdicts=(), candidates=(), owned={A: None, B: by_owner[B]})
    assert told_owners([first, second]) == (by_owner[B],)
    assert told_owners([first]) == tuple(sorted(by_owner.values(), key=lambda it: it.peer))


async def test_who_did_a_later_leg_checks_no_earlier_one(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a page would say that somebody checked its own work, and the asker could not help it."""
    elsewhere, asked_for = key_of("who did the second leg"), list[CheckRequest]()
    check, checks = Attempts._check, Checking.check

    async def delivered_by_two(
        attempts: Attempts, run: TaskState, delivered: LegResult, *rest: Any
    ) -> object:
        first, second = delivered.receipts
        two = replace(delivered, receipts=(first, sign(second.record, elsewhere)))
        return await check(attempts, run, two, *rest)

    async def noted(checking: Checking, claimed: CheckRequest, *rest: Any, **terms: Any) -> Tally:
        asked_for.append(claimed)
        return await checks(checking, claimed, *rest, **terms)

    monkeypatch.setattr(Attempts, "_check", delivered_by_two)
    monkeypatch.setattr(Checking, "check", noted)
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        maker = await network.start(I, S)
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        await asked(asker, request(complete(2), complete(3), data=b"text"))
    assert [it.receipt.signer for it in asked_for] == [maker.peers.me, elsewhere.peer]
    everybody = {asker.peers.me, maker.peers.me, elsewhere.peer}
    assert [it.doers for it in asked_for] == [everybody, everybody]
