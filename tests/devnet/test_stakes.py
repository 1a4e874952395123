"""A network with stakes: who lies or agrees unlooked pays for what is shown, and nobody honest."""

from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import MockClock

from node.devnet.config import DevnetConfig, config_of
from node.devnet.economy_plan import GRANT, EconomyConfig, plan_economy
from node.devnet.economy_stakes import HONEST, POORER, PROVEN
from node.devnet.faults import parse
from node.devnet.net import Devnet
from node.devnet.plan import plan_peers
from node.devnet.stake_plan import STAKE
from node.ledger.books import Account
from node.ledger.stake_shelf import slashed
from tests.devnet.running import economy, opened, ran
from wire.content import PeerId
from wire.errors import InputError
from wire.kinds import Role

FAULTS = "liar=0.3,lazy_verifier=0.2,whale=0.3,ring=4"


async def test_every_crime_that_is_shown_costs_stake_and_a_ring_ends_poorer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    net, report = await ran(tmp_path, economy(FAULTS, peers=12, epochs=2, epoch_s=5, rate=2))
    found = report.document
    assert report.passed, report.lines()
    assert found["crimes"] >= found["crimes_shown"] >= 3
    assert found["crimes_slashed"] >= 1
    # What is shown of who has lost all of it costs nothing more.
    spent = found["crimes_of_who_had_nothing_left"]
    assert found["crimes_shown"] == found["crimes_slashed"] + spent
    assert found["crimes_unpunished"] == found["honest_slashed"] == 0
    assert found["false_accusations"] > 0 == found["false_accusations_taken"]
    assert float(found["ring_paid"]) > 0
    assert float(found["ring_after"]) < float(found["ring_before"])
    told = "\n".join(report.lines())
    for name in ("whale", "ring"):
        assert f"came of {name}: " in told
    what_is_wrong_is_found(net)


def what_is_wrong_is_found(net: Devnet) -> None:
    """The control: an honest stake that is less, a crime that cost nothing, a ring that gained."""
    assert net.economy is not None
    assert net.economy.ledger is not None
    stakes, books, crimes = net.economy.stakes, net.economy.ledger.books, net.around.crimes
    keys = {number: key for key, number in stakes.plan.numbers.items()}
    honest = next(keys[it] for it in stakes.plan.stakes if not crimes.natures(keys[it]))
    books.stakes.put(honest, slashed(books.stakes.row(honest), 500_000, 1)[0])
    act = next(it for it in crimes.accused if books.stakes.row(crimes.shown[it]).total)
    books.stakes.put_act(act, None)
    bad = frozenset(it for it in keys.values() if crimes.natures(it))
    rich = stakes.plan.ring[0].peer
    books.accounts[rich[0]][rich] = Account(GRANT * len(stakes.plan.ring), 0)
    assert drawn_up(net, bad) == [HONEST, PROVEN, POORER]
    books.accounts[rich[0]][rich] = Account(0, 0)
    # What members refuse though it is proved, what they take though it is not, and what an honest
    # peer is convicted by.
    crimes.refused[act] = "no"
    crimes.false_accusations_taken = 1
    crimes.planted.pop(next(iter(crimes.shown)))
    assert drawn_up(net, bad) == [HONEST, HONEST, PROVEN, PROVEN, HONEST]


def drawn_up(net: Devnet, bad: frozenset[PeerId]) -> list[str]:
    assert net.economy is not None
    assert net.economy.ledger is not None
    before = len(net.violations.found)
    net.economy.stakes.draw_up(net.economy.ledger.books, bad)
    return [it.invariant for it in net.violations.found[before:]]


def test_a_whale_has_the_share_that_is_asked_for_and_only_verifiers_are_whales() -> None:
    peers = plan_peers(60, 7)
    plan = plan_economy(EconomyConfig(), 7, peers, parse("whale=0.3"))
    assert plan == plan_economy(EconomyConfig(), 7, peers, parse("whale=0.3"))
    verifying = {
        number: sum(it.amount for it in parts if it.role is Role.VERIFY)
        for number, parts in plan.stakes.items()
    }
    assert plan.whale is not None
    assert peers[plan.whale].roles & {Role.VERIFY, Role.INFER} == {Role.VERIFY}
    assert verifying[plan.whale] / sum(verifying.values()) == pytest.approx(0.3, abs=1e-6)
    assert {it for at, it in verifying.items() if at != plan.whale} == {STAKE}
    granted = {it.account: it.amount for it in plan.genesis.grants}
    for key, number in plan.numbers.items():
        assert granted[key] > sum(it.amount for it in plan.stakes.get(number, ()))


def test_nobody_stakes_where_nothing_is_done_that_costs_stake() -> None:
    plan = plan_economy(EconomyConfig(), 7, plan_peers(12, 7), parse("thief=0.1,ring=7"))
    assert (plan.stakes, plan.whale, len(plan.ring)) == ({}, None, 7)
    assert {it.peer for it in plan.ring} <= {it.account for it in plan.genesis.grants}


@pytest.mark.parametrize("typed", ["ring=2", "ring=0.5", "ring=3.5", "ring=513", "whale=1.5"])
def test_a_ring_is_a_number_of_keys_and_a_whale_a_share(typed: str) -> None:
    with pytest.raises(InputError, match=typed):
        parse(typed)


def test_keys_of_a_ring_count_among_those_that_a_genesis_names() -> None:
    with pytest.raises(InputError, match="700 peers with credits and 400 keys"):
        economy("ring=400", peers=700)
    wanted = economy("ring=200", peers=700)
    assert config_of(wanted.to_document()) == wanted
    assert isinstance(wanted, DevnetConfig)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [7, 8, 9])
async def test_so_it_is_for_longer_with_copying_verifiers_too(
    autojump_clock: MockClock, tmp_path: Path, seed: int
) -> None:
    wanted = economy(f"{FAULTS},copying_verifier=0.1", peers=24, epochs=4, epoch_s=6, rate=2)
    async with opened(tmp_path, replace(wanted, seed=seed)) as net:
        await net.run()
    assert net.violations.count == 0, net.violations.found
