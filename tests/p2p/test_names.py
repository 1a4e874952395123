"""Names in addresses that a person gave: looked up at each call, with a deadline, over a seam."""

import threading
from collections.abc import Sequence

import pytest
import trio

from p2p.name_lookup import LOOKUPS_MAX
from p2p.over_libp2p.names import ADDRESSES_PER_NAME_MAX, look_up, resolved
from p2p.over_libp2p.transports import TcpTransport
from p2p.transport import ByteStream
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import Unreachable

REST = "tcp/4710/p2p/12D3KooWHesAVqSWPi4ohCdc3VcvppH54inVL3GSMg6QscGsf6aN"


async def found(kind: str, *answers: str) -> tuple[str, ...]:
    async def look_up(host: str) -> Sequence[str]:
        assert host == "peer.example"
        return answers

    return await resolved(f"/{kind}/peer.example/{REST}", look_up, 5.0)


async def test_a_resolver_that_hangs_holds_up_no_other_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with dead name servers: each lookup is given up, and its thread goes on for long."""
    asked, ended = list[object](), threading.Event()

    def hangs(host: str, *_: object, **_more: object) -> list[object]:
        asked.append(host)
        ended.wait()
        return []

    monkeypatch.setattr("socket.getaddrinfo", hangs)
    enough = 1 + int(trio.to_thread.current_default_thread_limiter().total_tokens)
    try:
        with trio.fail_after(5.0):
            async with trio.open_nursery() as nursery:
                for _ in range(enough):
                    nursery.start_soon(given_up)
            # What files need is free, and so are the loop and the next lookup's deadline.
            assert await trio.to_thread.run_sync(lambda: "read") == "read"
            await given_up()
        assert len(asked) == LOOKUPS_MAX
    finally:
        ended.set()


async def given_up() -> None:
    with pytest.raises(Unreachable, match="nobody said within"):
        await resolved(f"/dns4/peer.example/{REST}", look_up, 0.2)


async def test_each_kind_of_name_leads_to_the_addresses_of_its_kind() -> None:
    both = ("192.0.2.7", "2001:db8::7", "192.0.2.7", "fe80::1%eth0")
    assert await found("dns4", *both) == (f"/ip4/192.0.2.7/{REST}",)
    assert await found("dns6", *both) == (f"/ip6/2001:db8::7/{REST}",)
    assert await found("dns", *both) == (f"/ip4/192.0.2.7/{REST}", f"/ip6/2001:db8::7/{REST}")
    many = [f"192.0.2.{it}" for it in range(100)]
    assert len(await found("dns4", *many)) == ADDRESSES_PER_NAME_MAX
    with pytest.raises(Unreachable, match="no address for /dns6/"):
        await found("dns6", "192.0.2.7")


async def test_an_address_without_a_name_is_not_looked_up() -> None:
    async def look_up(host: str) -> Sequence[str]:
        raise AssertionError(host)

    assert await resolved(f"/ip4/192.0.2.7/{REST}", look_up, 5.0) == (f"/ip4/192.0.2.7/{REST}",)


@pytest.mark.parametrize("error", [OSError("Name or service not known"), UnicodeError("too long")])
async def test_a_name_that_is_not_found_is_named_with_the_reason(error: Exception) -> None:
    async def look_up(_host: str) -> Sequence[str]:
        raise error

    with pytest.raises(Unreachable, match=rf"peer\.example was not found: {error}"):
        await resolved(f"/dns4/peer.example/{REST}", look_up, 5.0)


async def test_a_name_server_that_is_silent_costs_the_deadline_and_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def look_up(_host: str) -> Sequence[str]:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(Unreachable, match=r"within 5 s where peer\.example is"):
        await resolved(f"/dns4/peer.example/{REST}", look_up, 5.0)
    assert trio.current_time() < 6.0


async def test_a_peer_is_called_by_name_and_the_name_is_looked_up_each_time() -> None:
    asked: list[str] = []

    async def look_up(host: str) -> Sequence[str]:
        asked.append(host)
        if len(asked) == 1:
            raise OSError("Temporary failure in name resolution")
        return ["127.0.0.1"]

    async def accept(_peer: PeerId, _stream: ByteStream) -> None:
        return

    here = ("/ip4/127.0.0.1/tcp/0",)
    caller = TcpTransport(wall_ns=lambda: 1, look_up=look_up)
    called = TcpTransport(wall_ns=lambda: 1)
    async with (
        called.open(key_of("called"), here, accept=accept) as there,
        caller.open(key_of("caller"), here, accept=accept) as endpoint,
    ):
        name = there.addresses[0].replace("/ip4/127.0.0.1/", "/dns4/peer.example/")
        with pytest.raises(Unreachable, match="Temporary failure"):
            await endpoint.connect(name, deadline_s=5.0)
        assert await endpoint.connect(name, deadline_s=5.0) == there.me
        assert endpoint.is_connected(there.me)
    assert asked == ["peer.example"] * 2
