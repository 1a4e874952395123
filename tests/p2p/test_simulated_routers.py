"""The simulated internet lets through what real routers let through, and nothing else."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from p2p.over_libp2p import Router, Site
from p2p.peers import Peers
from p2p.punching import PUNCH_AFTER_BYTES
from tests.p2p.internet import (
    Internet,
    alone,
    asks,
    hears,
    home,
    kept,
    open_internet,
    servers,
)
from tests.p2p.transports import until
from wire.errors import TransportError


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with open_internet() as opened:
        yield opened


async def two_homes(internet: Internet, one: Router, other: Router) -> tuple[Peers, Peers]:
    """An asker at the one home with a line to a peer of the other."""
    await servers(internet, 2)
    target = await kept(internet, "target", one, 2)
    asker = await internet.add("asker", Site("192.168.1.2", other))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    assert asker.endpoint.is_relayed(target.me)
    return asker, target


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        ({}, {}, True),
        ({}, {"symmetric": True}, False),
        pytest.param({}, {"refuses": True}, True, marks=pytest.mark.soak),
        pytest.param({"symmetric": True}, {"symmetric": True}, False, marks=pytest.mark.soak),
        pytest.param({"refuses": True}, {"refuses": True}, False, marks=pytest.mark.soak),
    ],
)
async def test_both_call_at_once_and_meet_where_the_routers_keep_ports(
    autojump_clock: MockClock,
    internet: Internet,
    one: dict[str, bool],
    other: dict[str, bool],
    meets: bool,
) -> None:
    asker, target = await two_homes(internet, home(1, **one), home(2, **other))
    if not meets:
        with pytest.raises(TransportError):
            await asker.endpoint.punch(target.me, deadline_s=12.0)
        assert asker.endpoint.is_relayed(target.me)
        return
    await asker.endpoint.punch(target.me, deadline_s=12.0)
    assert not asker.endpoint.is_relayed(target.me)
    await until(lambda: not target.endpoint.is_relayed(asker.me), 60)
    assert asker.endpoint.punched() == {target.me}
    assert await asks(asker, target.me) == b"here"


@pytest.mark.soak
async def test_a_line_over_which_much_moves_is_replaced(
    autojump_clock: MockClock, internet: Internet
) -> None:
    asker, target = await two_homes(internet, home(1), home(2, carrier=home(3)))
    _, line = asker.endpoint._circuits.lines[target.me, True]  # type: ignore[attr-defined]
    line.moved_bytes += PUNCH_AFTER_BYTES
    await until(lambda: not asker.endpoint.lines(), 60)
    assert asker.endpoint.punched() == {target.me}
    assert await asks(asker, target.me) == b"here"
    await alone(asker, target)
    assert not asker.endpoint.punched()
