"""The control socket, as the peer serves it: what happens when whoever asked goes away."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.local.control import Emit, call, open_control, receive, send, unheard


async def until_cancelled(ended: trio.Event) -> dict[str, Any]:
    try:
        await trio.sleep_forever()
    finally:
        ended.set()


@pytest.mark.parametrize("how", ["closes", "says more", "writes no more, then closes"])
async def test_a_command_without_events_ends_with_its_client(tmp_path: Path, how: str) -> None:
    begun, ended = trio.Event(), trio.Event()

    async def silent(_arguments: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
        begun.set()
        return await until_cancelled(ended)

    async with open_control(tmp_path / "socket", {"silent": silent}):
        stream = await trio.open_unix_socket(str(tmp_path / "socket"))
        await send(stream, {"command": "silent", "arguments": {}})
        await begun.wait()
        if how == "says more":
            await stream.send_all(b"?")
        if how == "writes no more, then closes":
            await stream.send_eof()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not ended.is_set()
        if how != "says more":
            await stream.aclose()
        with trio.fail_after(60):
            await ended.wait()
        await stream.aclose()


async def test_events_come_before_the_result_and_the_end_after_it(tmp_path: Path) -> None:
    async def busy(_arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        for number in range(20):
            emit({"number": number})
        return {"done": True}

    heard: list[Mapping[str, Any]] = []
    async with open_control(tmp_path / "socket", {"busy": busy}):
        path = tmp_path / "socket"
        assert await call(path, "busy", {}, heard.append, deadline_s=60) == {"done": True}
        assert heard == [{"number": number} for number in range(20)]
        stream = await trio.open_unix_socket(str(path))
        await send(stream, {"command": "busy", "arguments": {}})
        for _ in range(21):
            await receive(stream)
        with trio.fail_after(60):
            assert await stream.receive_some(1) == b""
        await stream.aclose()
        assert await call(path, "busy", {}, unheard, deadline_s=60) == {"done": True}
