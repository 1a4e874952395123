"""What Prometheus reads of relays, at both ends: what `status` says, and a line for each query."""

from contextlib import suppress
from math import isnan
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from node.commands.dashboard import ALERTS, PANELS
from node.peer import Node
from tests.gateway.relay_pages import ASKER, KEPT, OTHER, RELAY, page_of, pages_of_relays
from tests.gateway.test_metrics import names_in
from tests.node.network import open_network
from tests.paying.relays import A_MIB, A_MIB_COSTS, PRICE, ends, get, homes, quiet, relays
from wire.amount import CREDIT
from wire.errors import BatonError

Figures = dict[tuple[str, str], float]


def figures(page: str) -> Figures:
    """Every figure of a page, by its name after `baton_` and its kind."""
    return {
        (sample.name.removeprefix("baton_"), sample.labels.get("kind", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def reach_of(told: Figures) -> set[str]:
    return {kind for (name, kind), value in told.items() if name == "reach" and value}


async def test_a_relay_who_is_kept_and_who_pays_have_a_figure_for_each_query(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    pages = await pages_of_relays(tmp_path)
    told = {name: figures(page) for name, page in pages.items()}
    asked = [*(it for panel in PANELS for _, it in panel.queries), *(it for _, it, _, _ in ALERTS)]
    of_relays = [it for it in asked if "baton_relay" in it or "baton_reach" in it]
    assert len(of_relays) > 12
    for query in of_relays:
        for name in names_in(query):
            for peer, found in told.items():
                assert any(name == f"baton_{it}" for it, _ in found), (peer, name)

    relay, other, kept, asker = (told[it] for it in (RELAY, OTHER, KEPT, ASKER))
    assert reach_of(relay) == reach_of(other) == {"open"}
    assert reach_of(kept) == reach_of(asker) == {"kept"}
    assert kept["relay_keepers", ""] == 2
    assert 0 <= kept["reach_confirmed_age_seconds", ""] <= kept["reach_since_seconds", ""]
    # Either may be the one that carried.
    if not relay["relay_carried_bytes_total", "paid"]:
        relay, other = other, relay
    assert (relay["relay_kept", ""], relay["relay_kept_max", ""]) == (2, 64)
    assert relay["relay_lines", ""] == asker["relay_asked_lines", ""] == 1
    assert relay["relay_carried_bytes_total", "paid"] > 4 * A_MIB
    assert other["relay_carried_bytes_total", "paid"] == 0
    earned = relay["relay_earned_credits_total", ""]
    assert earned == pytest.approx(6 * A_MIB_COSTS / CREDIT, rel=0.3)
    assert asker["relay_paid_credits_total", ""] == pytest.approx(earned, rel=0.05)
    assert asker["relay_asked_bytes_total", "paid"] == pytest.approx(
        relay["relay_carried_bytes_total", "paid"], rel=0.05
    )
    # As a rule promises are redeemed before all is moved that they are for.
    assert 0 <= relay["relay_owed_credits", ""] <= earned
    assert asker["relay_unpaid", ""] == asker["relay_lines_left_total", "meter"] == 0
    # What is nobody's reason is there too, so that a rate of it is no gap.
    assert kept["relay_lines_ended_total", "unpaid"] == 0
    assert kept["relay_paid_credits_total", ""] == 0


async def told_after(relay: Node, asker: Node, kept: Node) -> tuple[Figures, Figures]:
    """Of both ends, once more was asked for than is free."""
    with suppress(BatonError):
        await get(asker, kept, 6 * A_MIB)
    await quiet()
    return figures(page_of(relay)), figures(page_of(asker))


async def test_lines_that_nobody_pays_for_are_told_at_both_ends(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network)
        before = figures(page_of(asker))
        assert isnan(before["reach_confirmed_age_seconds", ""]), "one relay alone asks nobody"
        at_relay, at_asker = await told_after(relay, asker, kept)
    assert at_relay["relay_lines_ended_total", "unpaid"] >= 1
    assert at_relay["relay_carried_bytes_total", "paid"] == 0
    assert at_relay["relay_carried_bytes_total", "free"] > A_MIB
    assert at_asker["relay_unpaid", ""] == 1
    assert at_asker["relay_asked_bytes_total", "free"] > A_MIB


async def test_lines_end_by_the_bound_of_the_day_and_by_the_death_of_an_end(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network, relay_pay_max=1_000_000)
        await get(asker, kept, A_MIB)
        await asker.peers.endpoint.leave_line(kept.peers.me)
        await quiet()
        told = figures(page_of(relay))
        closed = told["relay_lines_ended_total", "closed"]
        assert closed >= 1
        await get(asker, kept, A_MIB, 1)
        relay.peers.relaying.counts._today_bytes = 10**15
        told, _ = await told_after(relay, asker, kept)
        assert told["relay_lines_ended_total", "bound"] >= 1
        assert told["relay_refused_total", ""] >= 1
        relay.peers.relaying.counts._today_bytes = 0
        await get(asker, kept, A_MIB, 2)
        network.kill(kept)
        await quiet()
        told = figures(page_of(relay))
        assert told["relay_lines_ended_total", "dead"] >= 1
        assert ends(asker, relay)[1].charged > 0
