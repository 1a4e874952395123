"""Who fetches much from a peer that pays for their line does so by a line that it pays itself."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import MockClock

from node.paying import own_lines, uncalled_bytes
from node.paying.own_lines import OwnLines
from node.peer import Node
from p2p.ip_address import CIRCUIT, is_relayed
from tests.node.network import I, Network, S, open_network
from tests.p2p.transports import until
from tests.paying import relays as relayed
from tests.paying.relays import (
    A_MIB,
    ASKER,
    KEPT,
    PRICE,
    add,
    at_home,
    ends,
    get,
    knows,
    quiet,
    relays,
)
from tests.paying.test_uncalled_bytes import PAYS
from wire.errors import BatonError
from wire.ledger import Genesis, Grant
from wire.signed import sign

granted_one = relayed.genesis_of


def granted_both(network: Network, members: int, granted: int) -> Genesis:
    """The usual one, where the peer that is kept has credits too."""
    found = granted_one(network, members, granted)
    more = Grant(account=network.key(KEPT).peer, amount=found.grants[0].amount)
    grants = sorted((*found.grants, more), key=lambda it: it.account)
    return replace(found, grants=tuple(grants))


async def two_homes(network: Network, **kept_options: int) -> tuple[Node, Node, Node]:
    """A relay, an asker, and a peer behind it, with a line for which the asker pays."""
    (relay,) = await relays(network, PRICE)
    kept = await add(network, KEPT, at_home(1), I, models=("hash",), **kept_options)
    # Either would call the other for company.
    kept.peers.dialing.skips = lambda _addresses: True
    asker = await add(network, ASKER, at_home(2), S, **PAYS)
    await until(lambda: knows(asker, kept) and knows(kept, asker), 300)
    await get(asker, kept, 2 * A_MIB)
    await quiet()
    assert not kept.peers.endpoint.lines()[asker.peers.me].dialed
    return relay, asker, kept


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten MiB are as much as ever so many."""
    monkeypatch.setattr(relayed, "genesis_of", granted_both)
    monkeypatch.setattr(uncalled_bytes, "EACH_BYTES", A_MIB)
    monkeypatch.setattr(own_lines, "OWN_AFTER_BYTES", A_MIB)


@pytest.mark.usefixtures("small")
async def test_who_fetches_much_pays_for_it_and_no_line_is_left(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        relay, asker, kept = await two_homes(network, **PAYS)
        before = ends(asker, relay)[0].relayed_bytes
        line = asker.peers.endpoint.lines()[kept.peers.me]
        await get(kept, asker, 10 * A_MIB, 1)
        await quiet()
        assert not any("than this peer called for" in it for it in asker.peers.problems.values())
        after = asker.peers.endpoint.lines()[kept.peers.me]
        assert after.dialed
        assert after.moved_bytes > line.moved_bytes, "it is the same line"
        assert ends(asker, relay)[0].relayed_bytes - before < 5 * A_MIB
        assert ends(kept, relay)[0].relayed_bytes > 4 * A_MIB
        assert kept.peers.endpoint.lines()[asker.peers.me].dialed
        # Each calls by its own.
        before = ends(kept, relay)[0].relayed_bytes
        await get(asker, kept, 2 * A_MIB, 2)
        await quiet()
        assert ends(kept, relay)[0].relayed_bytes - before < A_MIB // 2


@pytest.mark.usefixtures("small")
async def test_who_pays_nothing_fetches_no_more_than_it_may_at_anothers_cost(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        relay, asker, kept = await two_homes(network)
        before = ends(asker, relay)[0].relayed_bytes
        with suppress(BatonError):
            await get(kept, asker, 10 * A_MIB, 1)
        await quiet()
        assert "than this peer called for" in asker.peers.problems[f"line to {kept.peers.me}"]
        assert ends(asker, relay)[0].relayed_bytes - before < 9 * A_MIB
        assert kept.paying.statistics()["spent"] == 0


@pytest.mark.usefixtures("small")
async def test_a_payer_has_over_its_line_all_that_it_calls_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        relay, asker, kept = await two_homes(network, **PAYS)
        await get(asker, kept, 8 * A_MIB, 1)
        await quiet()
        assert f"line to {kept.peers.me}" not in asker.peers.problems
        paid, _ = ends(asker, relay)
        assert paid.relayed_bytes > 7 * A_MIB
        assert kept.paying.statistics()["spent"] == 0


@pytest.mark.usefixtures("small")
async def test_a_strangers_advert_aims_no_second_line(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        relay, asker, kept = await two_homes(network, **PAYS)
        lines, me = OwnLines(kept.peers), asker.peers.me
        heard = kept.peers.view.advert_of(me)
        assert heard is not None
        (true,) = (it for it in heard.record.reached_at if is_relayed(it))
        assert lines._address(me) == true
        other, stranger = kept.peers.me, network.key(9).peer
        aimed = replace(
            heard.record,
            seq=heard.record.seq + 1,
            addresses=(
                f"/ip4/192.168.1.1/tcp/9000/p2p/{stranger}{CIRCUIT}/p2p/{me}",
                f"/dns4/example.org/tcp/9000/p2p/{stranger}{CIRCUIT}/p2p/{me}",
                f"/ip4/1.2.3.4/tcp/9000/p2p/{stranger}{CIRCUIT}/p2p/{other}",
                true,
            ),
        )
        kept.peers.advertiser.take_in(sign(aimed, network.key(ASKER)), relay.peers.me)
        assert lines._address(me) == true
