"""One worker process, seen from its parent: started, asked, killed and reaped. Trio; no tinygrad.

One question at a time. Whatever goes wrong between the two processes ends as EngineFailed, and the
worker is then dead: a worker that did not answer in time cannot be told from one that never will.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node.engines.frames import HEAD_BYTES, body_bytes, from_body, to_frame
from p2p import timeouts
from p2p.timeouts import Processes
from wire.codec import Value
from wire.errors import EngineError, EngineFailed, EngineMissing, ModelRefused, WireError

# What a worker said last is quoted in errors; more than this is not kept.
TAIL_BYTES = 8192
REASON_CHARS = 240
LAST_WORDS_S = 1.0
Question = Callable[[dict[str, Any]], Awaitable[dict[str, Value]]]
# What Python, the system and its linker say when there is none left.
_NO_MEMORY = ("MemoryError", "Cannot allocate memory", "failed to map segment")
_ANSWERED_ERRORS: dict[str, type[EngineError]] = {
    "ModelRefused": ModelRefused,
    "EngineMissing": EngineMissing,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a worker is started; nothing of the parent's environment is passed on."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


class WorkerProcess:
    """A running worker. Made by `open_worker` only."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._tail = b""
        self._quiet = trio.Event()
        self._killed = False

    @property
    def running(self) -> bool:
        # A killed process is not used again, even while the system still counts it as running.
        return not self._killed and self._process.poll() is None

    @property
    def id(self) -> int:
        """The process's number, for statistics and for tests that kill it."""
        return self._process.pid

    def kill(self) -> None:
        """End the worker and whatever it started (compilers), now."""
        self._killed = True
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                # It ended by itself in this moment; it is reaped like any other.
                return

    def stand_back(self, niceness: int) -> None:
        """Have the worker and whatever it starts wait for others who want the processor."""
        try:
            os.setpriority(os.PRIO_PGRP, self._process.pid, niceness)
        except ProcessLookupError:
            # It ended by itself in this moment.
            return

    async def wait(self) -> None:
        """Return once the worker has ended and its last words are in."""
        await self._process.wait()
        # Something it started may still hold the pipe.
        with timeouts.move_on_after(LAST_WORDS_S):
            await self._quiet.wait()

    async def ask(
        self,
        message: dict[str, Value],
        *,
        timeout_s: float,
        on_progress: Callable[[int], None] | None = None,
        on_question: Question | None = None,
    ) -> dict[str, Any]:
        """The worker's answer; EngineFailed if there is none, or what it refused with.

        With `on_progress` the worker may say before it answers how far it is, in millionths; then
        `timeout_s` counts from the last time it did. With `on_question` it may ask something first,
        and that takes as long as it takes. When this raises EngineFailed or is cancelled, the
        worker is dead.
        """
        millionths = 0
        try:
            # A worker that is not let run is not one that hangs.
            with timeouts.fail_after(timeout_s, starved=Processes(lambda: (self.id,))):
                reply = await self._exchange(to_frame(message))
            reply = await self._past_questions(reply, on_question, timeout_s)
            while on_progress is not None and (step := reply.get("progress")) is not None:
                on_progress(millionths := int(step))
                with trio.fail_after(timeout_s):
                    reply = await self._reply()
                reply = await self._past_questions(reply, on_question, timeout_s)
        except trio.TooSlowError as error:
            self.kill()
            if message["do"] == "load":
                at = f"{millionths // 10_000} %"
                raise EngineFailed(
                    f"its load made no progress for {timeout_s:g} s, at {at}"
                ) from error
            raise EngineFailed(f"the worker did not answer within {timeout_s:g} s") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError, WireError) as error:
            raise await self.failure() from error
        except trio.Cancelled:
            # Half a question or half an answer is in the pipe: nobody could go on from here.
            self.kill()
            raise
        if "error" in reply:
            kind = _ANSWERED_ERRORS.get(reply["error"], EngineFailed)
            raise kind(str(reply["message"]), todo=str(reply["todo"]))
        return reply

    async def _past_questions(
        self, reply: dict[str, Any], on_question: Question | None, timeout_s: float
    ) -> dict[str, Any]:
        """What the worker says once it has no more questions."""
        while on_question is not None and (question := reply.get("asks")) is not None:
            told = to_frame(await on_question(question))
            with timeouts.fail_after(timeout_s, starved=Processes(lambda: (self.id,))):
                reply = await self._exchange(told)
        return reply

    async def _exchange(self, frame: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None, "open_worker makes pipes"
        await self._process.stdin.send_all(frame)
        return await self._reply()

    async def _reply(self) -> dict[str, Any]:
        head = await self._read(HEAD_BYTES)
        return from_body(await self._read(body_bytes(head)))

    async def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None, "open_worker makes pipes"
        data = bytearray()
        while len(data) < size:
            part = await self._process.stdout.receive_some(size - len(data))
            if not part:
                raise trio.BrokenResourceError("the worker closed its answers")
            data += part
        return bytes(data)

    @property
    def killed(self) -> bool:
        """Whether it ended because this peer ended it."""
        return self._killed

    async def failure(self) -> EngineFailed:
        """What to say of a worker that died; it is killed if it only stopped talking."""
        with timeouts.move_on_after(LAST_WORDS_S):
            await self._process.wait()
        self.kill()
        await self.wait()
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        words = lines[-1][:REASON_CHARS] if lines else "it said nothing"
        code = self._process.returncode or 0
        how = f"signal {-code}" if code < 0 else f"code {code}"
        if any(it in words for it in _NO_MEMORY):
            return EngineFailed(
                f"the worker ran out of memory: {words}", todo="raise the engine's memory limit"
            )
        return EngineFailed(f"the worker ended ({how}): {words}")

    async def listen(self) -> None:
        """Keep the end of what the worker says on its standard error."""
        assert self._process.stderr is not None, "open_worker makes pipes"
        async for part in self._process.stderr:
            self._tail = (self._tail + part)[-TAIL_BYTES:]
        self._quiet.set()


@asynccontextmanager
async def open_worker(launch: Launch) -> AsyncIterator[WorkerProcess]:
    """A worker for as long as the block runs; afterwards it is dead and reaped.

    EngineMissing if no process can be started at all.
    """
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", *launch.arguments],
            stdin=-1,
            stdout=-1,
            stderr=-1,
            env=dict(launch.environment),
            cwd=launch.folder,
            # A group of its own, so that its compilers die with it.
            start_new_session=True,
        )
    except OSError as error:
        raise EngineMissing(f"no worker process can be started: {error}") from error
    worker = WorkerProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.listen)
            try:
                yield worker
            finally:
                nursery.cancel_scope.cancel()
    finally:
        worker.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None, "all three are pipes"
                await stream.aclose()
