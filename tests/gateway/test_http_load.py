"""The bench's clients: what they count, and that a bug of the server ends the bench."""

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.gateway.server import open_gateway
from node.gateway_config import GatewayConfig
from tests.bench._direct_gateway import direct_node
from tests.bench._http_load import load
from tests.bench.gateway import _ask

LOAD_S = 1000.0


async def test_answers_are_counted_and_their_processor_time_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    def ask(number: int) -> tuple[str, bytes]:
        # The time is over when so many have asked, however fast this machine is.
        if number == 20:
            mock_clock.jump(LOAD_S)
        return _ask(number)

    mock_clock.rate = 1.0

    monkeypatch.setattr("tests.bench._http_load.WARM_UP_S", 0.0)
    async with open_gateway(await direct_node(tmp_path), GatewayConfig(port=0)) as url:
        found = await load(url, ask, 4, LOAD_S, {"all": os.getpid()})
    # The warm-up asked once; each of four clients may ask before the count begins, and at its end.
    assert 20 - 1 - 2 * 4 <= found["answered"] < 20
    assert found["refused"] == {}
    assert found["cpu_us_per_answer"].keys() == {"all"}


async def test_a_500_ends_the_bench_with_what_the_server_said() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 500 Oh\r\ncontent-length: 5\r\n\r\na bug")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(RuntimeError, match="a 500: a bug"):
            await load(f"http://127.0.0.1:{port}", _ask, 1, 0.1, {})
        nursery.cancel_scope.cancel()
