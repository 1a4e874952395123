"""From a lie to the stake: what a peer keeps after a dispute convicts before a ledger as it is."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from node.commands.evidence import show_evidence
from node.evidence.charges import charged
from node.evidence.offences import judged
from tests.checking.test_exact_disputes import RIGHT, answered_by, parties, wrong
from tests.ledger.made import THREE, Made
from tests.ledger.simulation import GRANT
from tests.ledger.test_chain_file import end_epoch
from tests.ledger.test_stakes import STAKE, part
from tests.node.network import I, V
from wire import limits
from wire.evidence import MAGIC, Evidence, OffenceKind
from wire.kinds import Role
from wire.ledger import Accusation, Payment
from wire.signing import SigningKey


async def disputed(folder: Path) -> tuple[SigningKey, bytes]:
    """Who lied about an exact model, and what the asker keeps of that."""
    async with parties(folder) as (asker, opened):
        liar = await opened.add(I, wrong)
        await opened.add(I)
        for _ in range(3):
            await opened.add(V)
        await opened.network.settled()
        assert (await answered_by(asker, folder))[1] == RIGHT
        (file,) = (asker.config.state / "receipts").glob("*.evidence")
    return liar.dependencies.key, file.read_bytes().removeprefix(MAGIC)


async def test_what_a_dispute_leaves_takes_the_liars_stake_and_gives_back_the_bond(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    key, raw = await disputed(tmp_path)
    assert Evidence.from_bytes(raw).offence is OffenceKind.LOST_DISPUTE
    assert [it.culprit for it in judged(raw).convictions] == [key.peer]
    made = Made()
    made.done(made.order(pay=(Payment(to=key.peer, amount=2 * STAKE),)))
    made.done(made.order(key, stake=(part(STAKE, Role.INFER),)))
    end_epoch(made)
    bond = made.balance(THREE)
    made.done(made.order(THREE, accuse=(Accusation(evidence=raw, bond=1_000_000),)))
    assert made.balance(THREE) == bond - 1_000_000
    end_epoch(made)
    books = made.replicas[0].books
    assert books.stakes.row(key.peer).total == STAKE // 2
    assert (made.balance(THREE), made.balance(key)) == (bond, STAKE)
    assert books.supply == made.genesis.supply
    assert bond == GRANT


async def test_what_is_too_large_for_the_ledger_asks_a_jury_that_fetches_it(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(limits, "ACCUSATION_BYTES_MAX", 10_000)
    key, raw = await disputed(tmp_path)
    charge = charged(Evidence.from_bytes(raw))
    assert (charge.culprit, charge.source, charge.output) == (key.peer, None, None)
    assert len(raw) < 10_000
    folder = tmp_path / "receipts"
    folder.mkdir()
    (folder / "a.evidence").write_bytes(MAGIC + raw)
    show_evidence(tmp_path, as_json=False)
    told = capsys.readouterr().out
    assert f"…{str(key.peer)[-6:]}" in told
    assert "a jury has to look at its answer of digits: slash FILE" in told
