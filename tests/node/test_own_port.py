"""The port of a peer's first start is the port of its later ones, whatever was taken once."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from node.config import NodeConfig
from node.own_port import FILE, at_own_port, keep_port, kept_port, port_in
from p2p.peers import PeersConfig
from tests.ports import free_port


def config(state: Path, *listen: str, named: bool = False) -> NodeConfig:
    places = listen or ("/ip4/0.0.0.0/tcp/4747",)
    return NodeConfig(state=state, peers=PeersConfig(listen=places), port_named=named)


def shown(port: int) -> tuple[str, ...]:
    """The addresses of a peer that listens there."""
    return (f"/ip4/192.0.2.7/tcp/{port}/p2p/me", f"/ip4/127.0.0.1/tcp/{port}/p2p/me")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program has."""
    with closing(socket.socket()) as other:
        other.bind(("", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def free() -> int:
    return free_port()


def test_the_port_of_the_first_start_is_taken_again(tmp_path: Path, free: int) -> None:
    assert keep_port(config(tmp_path), shown(free)) == ""
    assert at_own_port(config(tmp_path)).peers.listen == (f"/ip4/0.0.0.0/tcp/{free}",)


def test_a_kept_port_that_is_taken_now_stays_the_wanted_one(tmp_path: Path, taken: int) -> None:
    keep_port(config(tmp_path), shown(taken))
    moved = at_own_port(config(tmp_path))
    assert moved.peers.listen == ("/ip4/0.0.0.0/tcp/0",)
    line = keep_port(moved, shown(65_535))
    assert f"port {taken} is taken" in line
    assert "65535" in line
    assert len(line) <= 80
    assert kept_port(tmp_path) == taken


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_where_every_way_out_is_of_ipv6_the_peer_listens_by_it_at_one_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int, free: int
) -> None:
    monkeypatch.setattr("node.own_port.outgoing_hosts", lambda: ("2001:db8::7",))
    by_both = (f"/ip4/0.0.0.0/tcp/{free}", f"/ip6/::/tcp/{free}")
    assert at_own_port(config(tmp_path, f"/ip4/0.0.0.0/tcp/{free}")).peers.listen == by_both
    # Another free one, where that one is taken.
    four, six = at_own_port(config(tmp_path, f"/ip4/0.0.0.0/tcp/{taken}")).peers.listen
    assert port_in([four]) == port_in([six]) not in (0, taken)
    named = config(tmp_path, f"/ip4/0.0.0.0/tcp/{free}", named=True)
    assert at_own_port(named) == named
    monkeypatch.setattr("node.own_port.outgoing_hosts", lambda: ("192.0.2.7", "2001:db8::7"))
    assert len(at_own_port(config(tmp_path)).peers.listen) == 1


def test_a_port_that_was_typed_is_neither_moved_nor_left_behind(tmp_path: Path, taken: int) -> None:
    keep_port(config(tmp_path), shown(4800))
    typed = config(tmp_path, f"/ip4/0.0.0.0/tcp/{taken}", named=True)
    assert at_own_port(typed) == typed
    assert keep_port(typed, shown(taken)) == ""
    assert kept_port(tmp_path) == taken


@pytest.mark.parametrize(
    "listen", ["/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/4801", "/ip4/127.0.0.1/tcp/0"]
)
def test_any_port_and_one_of_this_machine_alone_displace_no_kept_one(
    tmp_path: Path, listen: str
) -> None:
    keep_port(config(tmp_path), shown(4800))
    assert keep_port(config(tmp_path, listen, named=True), shown(4801)) == ""
    assert kept_port(tmp_path) == 4800


def test_the_usual_port_is_the_first_unless_it_is_taken(
    tmp_path: Path, taken: int, free: int
) -> None:
    for port, listened in ((taken, 0), (free, free), (0, 0)):
        found = at_own_port(config(tmp_path, f"/ip4/0.0.0.0/tcp/{port}"))
        assert found.peers.listen == (f"/ip4/0.0.0.0/tcp/{listened}",)


@pytest.mark.parametrize("text", [b"", b"0", b"65536", b"-1", b"4747 4748", b"\xff", b"9" * 5000])
def test_what_is_no_port_is_as_if_none_were_kept(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE).write_bytes(text)
    assert kept_port(tmp_path) is None
    keep_port(config(tmp_path), shown(4800))
    assert kept_port(tmp_path) == 4800


def test_a_pipe_or_a_link_in_its_place_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    assert kept_port(tmp_path) is None
    keep_port(config(tmp_path), shown(4800))
    assert kept_port(tmp_path) == 4800
