"""Cases of long answers, which are named and fetched, and of one leg of a task passed on."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
import trio
from trio.testing import MockClock

from node.asking import jury_duty
from node.asking.jury_duty import JuryDuty
from node.asking.own_judge import OwnJudge
from node.evidence.charges import charged, disputed_work, jury_finding
from node.evidence.offences import work_of
from node.ledger.juries import cases_in
from node.ledger.slashing import BOND_MIN
from node.local.stake_commands import StakeCommands
from tests.evidence.crimes import MANIFEST as MANIFEST_OF_HASH
from tests.evidence.crimes import Leg
from tests.evidence.disputed import MANIFEST, Answered
from tests.ledger.made import ONE, TWO
from tests.ledger.test_chain_file import file_of
from tests.ledger.test_juries import STAKE, Court
from tests.ledger.test_motions import recount_of
from tests.node.asking import asked, request
from tests.node.engines import Liar, one_row
from tests.node.network import I, S, V, open_network
from wire import limits
from wire.errors import InputError, Malformed, Refused
from wire.evidence import Evidence, OffenceKind
from wire.jury import CaseRow, CaseState
from wire.kinds import Level
from wire.ledger import Accusation
from wire.signed import sign
from wire.signing import SigningKey
from wire.tree import name_of

LARGE = bytes(Random(1).randbytes(200_000))
OTHER = SigningKey(bytes((90,)) * 32)


def passed_on(first: SigningKey, second: SigningKey) -> tuple[Answered, list[Any]]:
    """A task of two legs, and the receipts of both: the second works on the first's answer."""
    whole = Answered(worker=first)
    stages = (whole.task.record.stages[0],) * 2
    whole.task = sign(replace(whole.task.record, stages=stages), whole.asker)
    before = whole.signed()
    whole.worker = second
    then = whole.signed(
        stage=1, previous=before.id, input=name_of(whole.answer), output=name_of(b"a city")
    )
    return whole, [before, then]


def of_leg(whole: Answered, receipts: list[Any], *payload: bytes) -> Evidence:
    return disputed_work(whole.task.raw, [it.raw for it in receipts], MANIFEST.to_bytes(), payload)


def convicted(court: Court, evidence: Evidence) -> bytes:
    """A case in which all jurors find it wrong."""
    case = court.accuse(evidence)
    court.end()
    court.end()
    assert court.row(case).state is CaseState.JURY
    raws = court.decide(case, wrong=True)
    assert court.row(case).state is CaseState.WRONG
    court.check()
    recount_of(file_of(court.parts))
    checkpoint, drawn = court.drawn[case]
    jury = next(it for it in drawn if it.case == case)
    court.checked(jury_finding(checkpoint, evidence.to_bytes(), raws, jury, drawn))
    return case


def test_the_leg_that_is_accused_is_judged_and_no_other() -> None:
    whole, receipts = passed_on(OTHER, ONE)
    evidence = of_leg(whole, receipts, whole.answer, b"a city")
    assert charged(evidence).culprit == ONE.peer
    court = Court()
    case = convicted(court, evidence)
    assert court.row(case).act == work_of(ONE.peer, receipts[1].id).act
    assert court.stake(ONE) == STAKE // 2
    # Of the same task the other leg is another act, of another peer.
    first = of_leg(whole, receipts[:1], whole.question, whole.answer)
    assert charged(first).culprit == OTHER.peer
    # It has no stake: whoever accuses it has the bond back, and no jury is drawn.
    other = court.accuse(first)
    court.end()
    assert other not in cases_in(court.replicas[0].books.motions.rows)


def test_receipts_that_are_no_chain_are_laid_before_nobody() -> None:
    whole, (before, then) = passed_on(OTHER, ONE)
    for receipts, why in (
        ([then], "names another stage"),
        ([then, before], "names another stage"),
        ([before, then, then], "3 receipts for 2 legs"),
        ([before, before], "names another stage"),
    ):
        with pytest.raises(Malformed, match=why):
            charged(of_leg(whole, receipts))
    forked = whole.signed(stage=1, previous=before.id, input=name_of(b"another answer"))
    with pytest.raises(Malformed, match="names another input"):
        charged(of_leg(whole, [before, forked]))
    stranger = Answered(worker=OTHER, nonce=9).receipt.id
    linked = whole.signed(stage=1, previous=stranger, input=name_of(whole.answer))
    with pytest.raises(Malformed, match="names another previous"):
        charged(of_leg(whole, [before, linked]))


def test_a_long_answer_is_named_and_convicts_as_a_short_one_does() -> None:
    answered = Answered(worker=ONE, answer=LARGE)
    evidence = answered.case
    assert (charged(evidence).source, charged(evidence).output) == (None, None)
    assert len(evidence.to_bytes()) < 2048
    court = Court()
    convicted(court, evidence)
    assert court.stake(ONE) == STAKE // 2


def test_what_fits_into_a_case_is_in_it_and_one_byte_more_is_named() -> None:
    around = len(of_leg(Answered(worker=ONE), [Answered(worker=ONE).receipt]).to_bytes())
    fits = next(
        it
        for it in (
            Answered(worker=ONE, answer=bytes(limits.CASE_BYTES_MAX - around - room))
            for room in range(40, 400)
        )
        if charged(it.case).output is not None
    )
    assert limits.CASE_BYTES_MAX - 128 < len(fits.case.to_bytes()) <= limits.CASE_BYTES_MAX
    more = Answered(worker=ONE, answer=fits.answer + b"x")
    assert charged(more.case).output is None
    # The largest goes through the ledger, its files, and a recount.
    court = Court()
    convicted(court, fits.case)


def test_everybody_computes_an_exact_answer_unless_it_is_too_large_for_that() -> None:
    leg = Leg(worker=ONE, wrong=(1,))
    shown = leg.against_worker()
    case = replace(shown, offence=OffenceKind.DISPUTED_WORK)
    with pytest.raises(Malformed, match="everybody computes this"):
        charged(case)
    named = replace(case, content=case.content[:1])
    assert charged(named).culprit == ONE.peer
    # One act, however it is shown.
    court = Court()
    convicted(court, named)
    accusation = Accusation(evidence=shown.to_bytes(), bond=BOND_MIN)
    with pytest.raises(Refused, match="taken for this act before"):
        court.replicas[0].vote(court.order(TWO, accuse=(accusation,)))


async def test_a_juror_fetches_what_a_case_names_and_abstains_where_nobody_shows_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        liar = await network.start(I, engine=Liar(one_row))
        asker, juror = await network.start(S), await network.start(V, S)
        await network.settled()
        answered, _ = await asked(asker, request(level=Level.SIGNED, verifiers=0, needed=0))
        record = answered.answer.record
        evidence = disputed_work(record.task, record.receipts, MANIFEST_OF_HASH.to_bytes())
        row = CaseRow(
            accuser=asker.peers.me,
            culprit=liar.peers.me,
            asker=asker.peers.me,
            act=bytes(32),
            digest=bytes(32),
            bond=1,
            begun=0,
            until=9,
            state=CaseState.JURY,
            evidence=evidence.to_bytes(),
        )
        duty = JuryDuty(Mock(), OwnJudge(juror.verify_role))
        assert await duty.look(bytes(32), row) is True
        # Whoever accuses goes away, and the liar shows nothing.
        for node in (asker, liar):
            network.kill(node)
        assert await duty.look(bytes(32), row) is None


async def test_cases_that_nobody_shows_keep_no_other_case_waiting(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their names come first, and each is waited for as long as a juror does: twice its patience.
    names = [bytes((it,)) * 32 for it in range(8)]
    shown, looked = names[-1], list[bytes]()

    async def look(_: JuryDuty, name: bytes, row: CaseRow) -> bool | None:
        looked.append(name)
        if name != shown:
            await trio.sleep(2 * jury_duty.BRING_S)
            return None
        return True

    monkeypatch.setattr(JuryDuty, "look", look)
    monkeypatch.setattr(jury_duty, "open_cases", lambda _: dict.fromkeys(names, Mock(attempt=1)))
    monkeypatch.setattr(jury_duty, "is_asked", lambda *_: True)
    monkeypatch.setattr(jury_duty, "to_tell", lambda *_: [])
    monkeypatch.setattr(jury_duty, "seal_or_find", lambda *_, **__: {})
    ledger = Mock(genesis=Mock(epoch_s=3600))
    ledger.wallet.key, ledger.wallet.order = ONE, AsyncMock()
    ledger.draft.return_value.books.motions.rows = {}
    duty = JuryDuty(ledger, Mock())
    with trio.move_on_after(1800):
        await duty.run()
    assert shown in looked
    assert duty.given


async def test_who_accuses_keeps_what_jurors_fetch_or_cannot_ask_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        store = asker.dependencies.store
        charge = charged(Answered(worker=ONE, answer=LARGE).case)
        commands = StakeCommands(asker)
        with pytest.raises(InputError, match="is not kept here") as refused:
            await commands.keep_payload(charge)
        assert "node put" in refused.value.todo
        for data in (Answered().question, LARGE):
            await store.put(data)
        await commands.keep_payload(charge)
        assert {it.id for it in store.pins() if it.why == "case"} == {
            charge.receipt.record.input,
            charge.receipt.record.output,
        }
