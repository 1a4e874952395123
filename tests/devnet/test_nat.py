"""A network most of which nobody can call: relays die and misbehave, and no task is lost."""

from collections import Counter
from pathlib import Path

import pytest
from trio.testing import MockClock

from node.devnet.invariants import Violations
from node.devnet.page import page_of
from node.devnet.reaching import reached_again_s
from node.devnet.relay_faults import BadRules
from node.devnet.relay_load import RelayLoad, RelaysKeepTheirBounds, WatchedRules
from node.devnet.report import report_of
from node.devnet.sampling import Sample
from p2p.relay_limits import RelayCounts, RelayLimits
from p2p.transport import RelayAnswer
from tests.devnet.running import config, opened, ran
from tests.p2p.transports import key_of

ANN, BOB, KEPT = (key_of(it).peer for it in ("ann", "bob", "kept"))


class Rules:
    """The bounds as they are, or none, where `enforced` says so; the clock stands."""

    def __init__(self, counts: RelayCounts, *, enforced: bool) -> None:
        self.counts, self.enforced = counts, enforced

    def admit(self, asker: object, kept: object) -> RelayAnswer:
        found = self.counts.admit(ANN, KEPT, 0.0)
        return found if self.enforced else RelayAnswer.THROUGH

    def ended(self, asker: object, kept: object, why: object) -> None:
        self.counts.ended(ANN, KEPT)

    def wait_s(self, asker: object, kept: object, size_bytes: int) -> float | None:
        wait_s = self.counts.wait_s(ANN, KEPT, size_bytes, 0.0)
        return wait_s if self.enforced else 0.0

    def takes(self, relay: object) -> bool:
        return True

    def left(self, relay: object) -> None:
        return

    def may_punch(self, peer: object) -> bool:
        return True


@pytest.mark.parametrize("enforced", [True, False])
async def test_a_relay_that_does_not_keep_to_its_bounds_is_found(
    autojump_clock: MockClock, enforced: bool
) -> None:
    limits = RelayLimits(lines_per_kept=3, lines_per_asker=3, bytes_per_s_each=1e5)
    counts, load, violations = RelayCounts(limits), RelayLoad(), Violations(lambda: 0.0)
    counts.lease(KEPT, 100.0, 0.0)
    watched = WatchedRules(Rules(counts, enforced=enforced), load, counts)
    said = Counter(watched.admit(ANN, KEPT) for _ in range(5))
    for _ in range(50):
        assert watched.wait_s(ANN, KEPT, 64 << 10) is not None
    for _ in range(said[RelayAnswer.THROUGH]):
        watched.ended(ANN, KEPT, None)
    assert (load.lines, load.refused) == ((3, 2) if enforced else (5, 0))
    assert load.carried_bytes == load.metered_bytes == 50 * (64 << 10)
    checker = RelaysKeepTheirBounds(violations)
    for _ in range(2):
        checker.see(7, load, limits)
    assert violations.count == (0 if enforced else 3)
    assert all("a relay keeps to its bounds at peer 7" in str(it) for it in violations.found)


async def test_of_eight_peers_half_are_at_home_and_a_relay_dies(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    wanted = config("relay_kill=0.3@1", peers=8, seconds=3, rate=2, nat="0.5")
    async with opened(tmp_path, wanted) as net:
        await net.run()
        report = report_of(net)
        assert report.passed, report.lines()
        found = report.document
        # The control: one that keeps to no bound and says otherwise is found.
        relay = next(it for it in net.living() if it.is_open)
        assert relay.node is not None
        assert relay._running is not None
        relay._running.rules.inner = BadRules(
            relay.node.peers.relaying, "relay_meters", net.population._random
        )
        relay.relay_load.carried_bytes += 1
        net.sampler.sample(net.population, net.load, net.passed_s)
        assert any("a relay keeps to its bounds" in str(it) for it in net.violations.found)
    assert found["tasks_accepted"] == found["tasks_answered"] > 4
    assert found["reached_kept"] == 4
    assert found["reached_open"] == 3
    assert found["relays"] == 4
    assert found["relay_carried_bytes"] > 10_000
    assert found["reached_again_s"] is not None
    assert [it["up"] for it in found["relay_load"]].count(False) == 1
    text = "\n".join(report.lines())
    assert "behind symmetric: " in text
    assert "of 64 kept, lines " in text
    assert "--nat 0.5" in found["replay"]
    assert page_of(found).count("<svg") == 7


def sample(at_s: float, alone: int) -> Sample:
    return Sample(
        at_s=at_s,
        living=9,
        in_flight=0,
        accepted=0,
        answered=0,
        retries=0,
        p50_s=None,
        p99_s=None,
        views_complete_ratio=1.0,
        gossip_bytes_per_peer_s=0.0,
        caught={},
        reached={"alone": alone} if alone else {"kept": 9},
    )


def test_how_long_peers_were_alone_after_a_strike() -> None:
    samples = [sample(1, 0), sample(2, 3), sample(3, 1), sample(4, 0)]
    assert reached_again_s(samples, [1.5]) == 1.5
    assert reached_again_s(samples, [3.5]) == 0.0
    assert reached_again_s(samples[:3], [1.5]) is None


@pytest.mark.soak
@pytest.mark.parametrize("name", ["lies", "delays", "drops", "meters"])
async def test_of_relays_a_third_misbehave_and_no_task_is_lost(
    autojump_clock: MockClock, tmp_path: Path, name: str
) -> None:
    wanted = config(f"relay_{name}=0.34", peers=18, seconds=10, rate=2, nat="0.7", deadline_s=60)
    _, report = await ran(tmp_path, wanted)
    assert report.passed, report.lines()
    load = report.document["relay_load"]
    wrong = sorted(it["peer"] for it in load if it["metered_bytes"] != it["carried_bytes"])
    bad = next(it["peers"] for it in report.document["faults"])
    assert wrong == (sorted(bad) if name == "meters" else [])
