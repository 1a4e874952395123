"""Battery, heat, a network that costs, and its bytes: when a peer pauses, and what waits."""

import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.commands.guest_options import guest_of
from node.guest.monthly import MONTHS_KEPT, MonthlyTraffic
from node.guest.rules import GuestConfig, OwnerPolicy, Seen, celsius_of
from node.guest.sensors import Sensors
from node.local.guest_manners import KEPT_EVERY_S, keep_manners
from p2p.over_libp2p import TcpTransport
from p2p.traffic import BURST_S, Traffic
from p2p.transport import ByteStream
from store import open_memory_store
from tests.node.network import I, open_network
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import InputError


def seen(**changes: object) -> Seen:
    return Seen(minute=600, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "pausing", "going_on", "untold"),
    [
        ({"pause_on_battery": True}, {"on_battery": True}, {"on_battery": False}, []),
        ({"celsius_max": 85.0}, {"celsius": 85.0}, {"celsius": 79.9}, ["--max-temp"]),
        ({"pause_when_metered": True}, {"metered": True}, {"metered": False}, ["--metered"]),
    ],
)
def test_a_rule_pauses_goes_on_and_says_where_it_cannot_tell(
    config: dict[str, object],
    pausing: dict[str, object],
    going_on: dict[str, object],
    untold: list[str],
) -> None:
    rules = GuestConfig(**config)  # type: ignore[arg-type]
    policy = OwnerPolicy(rules)
    assert rules.pauses
    assert rules.needs_sensors
    assert policy.decide(seen(**pausing), 0.0)
    assert policy.untold(seen(**pausing)) == []
    assert policy.decide(seen(**going_on), 1.0) == ""
    # What the machine does not tell is no reason to pause, and is said; one without a battery
    # runs on mains.
    assert policy.decide(seen(), 2.0) == ""
    assert [it.partition(" ")[0].rstrip(":") for it in policy.untold(seen())] == untold
    # Without the rule all of it is nobody's concern.
    assert OwnerPolicy(GuestConfig()).decide(seen(**pausing), 3.0) == ""


def test_who_was_too_hot_cools_down_before_it_goes_on() -> None:
    policy = OwnerPolicy(GuestConfig(celsius_max=85.0))
    degrees = (84.9, 85.0, 84.0, 80.0, 79.9, 84.0)
    told = [bool(policy.decide(seen(celsius=it), 0.0)) for it in degrees]
    assert told == [False, True, True, True, False, False]


def test_a_month_that_is_used_up_pauses() -> None:
    policy = OwnerPolicy(GuestConfig(month_bytes_max=50_000_000_000))
    assert policy.decide(seen(month_bytes=49_999_999_999), 0.0) == ""
    assert "month" in policy.decide(seen(month_bytes=50_000_000_000), 0.0)


def test_options_are_read_and_those_that_make_no_sense_are_refused() -> None:
    found = guest_of(
        device=None,
        gpu=None,
        vram=None,
        on_battery="pause",
        max_temp="85C",
        metered="pause",
        up="2MB/s",
        down="10MB/s",
        per_month="50GB",
    )
    assert (found.pause_on_battery, found.pause_when_metered) == (True, True)
    assert (found.celsius_max, found.month_bytes_max) == (85.0, 50_000_000_000)
    assert (found.up_bytes_per_s, found.down_bytes_per_s) == (2_000_000, 10_000_000)
    assert celsius_of(" 85.5 °C") == 85.5
    for text in ("", "hot", "-5C", "85F", "1e2", "9999"):
        with pytest.raises(InputError, match="--max-temp"):
            celsius_of(text)
    for wrong in (
        {"celsius_max": 20.0},
        {"celsius_max": 500.0},
        {"up_bytes_per_s": 1000},
        {"down_bytes_per_s": 0},
        {"month_bytes_max": 5},
    ):
        with pytest.raises(InputError):
            GuestConfig(**wrong)  # type: ignore[arg-type]


def test_months_are_counted_over_restarts_and_jumps_of_the_clock() -> None:
    first = MonthlyTraffic()
    assert first.moved(100, "2026-11") == 100
    assert first.moved(150, "2026-11") == 150
    # A clock in 1970 for a moment does not make the sum of November begin anew.
    assert first.moved(160, "1970-01") == 10
    assert first.moved(170, "2026-11") == 160
    again = MonthlyTraffic.of(dict(first.sums))
    assert again.moved(5, "2026-11") == 165
    for month in range(1, 13):
        again.moved(5, f"2027-{month:02}")
    assert len(again.sums) == MONTHS_KEPT
    assert again.moved(9, "1970-01") == 4


@pytest.mark.parametrize("kept", [None, 5, [], {"2026-11": -1}, {5: 5}, {"x": "y"}, {"x": 1 << 70}])
def test_sums_that_are_damaged_count_as_none(kept: object) -> None:
    assert MonthlyTraffic.of(kept).sums == {}


def test_bytes_keep_to_the_rate_and_are_counted_without_one() -> None:
    traffic = Traffic()
    assert traffic.sends(1 << 30, 0.0) == 0.0
    assert traffic.received(5, 0.0) == 0.0
    assert (traffic.sent_bytes, traffic.received_bytes) == (1 << 30, 5)
    traffic.limit(1000.0, None)
    waits = [traffic.sends(100, 10.0) for _ in range(10)]
    # What was not used just before may go at once, and the rest one after the other.
    assert waits[0] == 0.0
    assert waits[-1] == pytest.approx(1.0 - BURST_S)
    assert traffic.received(1 << 20, 10.0) == 0.0


async def test_a_machine_on_its_battery_pauses_and_the_month_is_kept(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    supply = tmp_path / "root/sys/class/power_supply"
    for name, text in {"BAT0/type": "Battery", "AC/type": "Mains", "AC/online": "0"}.items():
        (supply / name).parent.mkdir(parents=True, exist_ok=True)
        (supply / name).write_text(text)
    config = GuestConfig(pause_on_battery=True, pause_when_metered=True, month_bytes_max=1 << 30)
    traffic, sensors = Traffic(), Sensors(tmp_path / "root", lambda _: None)
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        node = await network.add(I, store=store)
        object.__setattr__(node.config, "guest", config)

        def wall_s() -> float:
            return 1_800_000_000.0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_manners, node, wall_s, traffic, sensors)
            await trio.sleep(10)
            assert node.leg_server.paused == "its machine runs on its battery"
            (untold,) = node.status_sources["guest"]()["cannot_tell"]
            assert untold.startswith("--metered pause")
            (supply / "AC/online").write_text("1")
            traffic.sent_bytes += 5000
            await trio.sleep(KEPT_EVERY_S + 10)
            assert node.leg_server.paused == ""
            nursery.cancel_scope.cancel()
        # The next process of this peer goes on where this one was.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_manners, node, wall_s, Traffic(sent_bytes=7), sensors)
            await trio.sleep(1)
            assert node.status_sources["traffic"]()["month_bytes"] == 5007
            nursery.cancel_scope.cancel()


async def test_all_connections_of_a_peer_share_its_rate() -> None:
    """Over TCP, both ways: neither end is faster than its owner allows, and nothing is lost."""
    rate, sent = 1_000_000.0, 700_000
    up, down = Traffic(), Traffic()
    took, heard = list[float](), bytearray()
    done = trio.Event()

    async def accept(_peer: PeerId, stream: ByteStream) -> None:
        while part := await stream.read(1 << 16):
            heard.extend(part)
        done.set()

    async def nothing(_peer: PeerId, _stream: ByteStream) -> None:
        return None

    here = ("/ip4/127.0.0.1/tcp/0",)
    sender = TcpTransport(wall_ns=time.time_ns, traffic=up)
    taker = TcpTransport(wall_ns=time.time_ns, traffic=down)
    async with (
        taker.open(key_of("taker"), here, accept=accept) as theirs,
        sender.open(key_of("sender"), here, accept=nothing) as ours,
    ):
        await ours.connect(theirs.addresses[0], deadline_s=60)
        up.limit(rate, None)
        began_at_s = trio.current_time()
        stream = await ours.open_stream(theirs.me, deadline_s=60)
        await stream.write(bytes(sent))
        await stream.close()
        with trio.fail_after(60):
            await done.wait()
        took.append(trio.current_time() - began_at_s)
    assert len(heard) == sent
    assert up.sent_bytes >= sent
    assert down.received_bytes >= sent
    assert took[0] >= (sent / rate) - BURST_S - 0.1
