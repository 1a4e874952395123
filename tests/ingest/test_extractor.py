"""The parser's process: what kills it is that one fetch's error, and the next body is parsed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from node.commands import agreed, verify
from node.engines.host.worker_process import Launch
from node.ingest import extractor as extractor_file
from node.ingest.extractor import PARSERS_OF_OTHERS_MAX, REPEATING_PATIENCE, Extractor
from tests.ingest.test_parsing import extraction
from wire.errors import Malformed


async def test_a_body_is_parsed_in_a_process_of_its_own() -> None:
    output = await Extractor().extract(extraction("json", select="a"), b'{"a": [1, 2]}')
    assert output == b'["value"]\n[1]\n[2]\n'


async def test_what_is_wrong_with_a_body_comes_back_in_words() -> None:
    with pytest.raises(Malformed, match="not JSON"):
        await Extractor().extract(extraction("json"), b"{")


async def test_an_expression_without_end_costs_that_fetch_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each part multiplies the list by its own length.
    explodes = "@" + "|[].[@,@,@,@,@,@,@,@][]" * 12
    body = b"[" + b",".join([b"[1,2,3,4,5,6,7,8]"] * 2000) + b"]"
    with monkeypatch.context() as patch:
        patch.setattr(extractor_file, "PARSE_S_MAX", 1)
        with pytest.raises(Malformed, match="its parser gave up"):
            await Extractor().extract(extraction("json", select=explodes), body)
    assert await Extractor().extract(extraction("text"), b"words") == b"words"


async def test_whoever_repeats_an_extraction_waits_longer_than_who_did_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a body that takes a data peer nine seconds would convict it on a slower machine."""
    seconds: list[float] = []

    class Worker:
        async def ask(self, message: object, timeout_s: float) -> dict[str, bytes]:
            await trio.lowlevel.checkpoint()
            seconds.append(timeout_s)
            return {"output": b""}

    @asynccontextmanager
    async def opened(launch: Launch) -> AsyncIterator[Worker]:
        seconds.append(float(launch.arguments[1]))
        yield Worker()

    monkeypatch.setattr(extractor_file, "open_worker", opened)
    await Extractor().extract(extraction("text"), b"")
    await Extractor(patience=REPEATING_PATIENCE).extract(extraction("text"), b"")
    limit = extractor_file.PARSE_S_MAX
    assert seconds == [limit, limit, 6 * limit, 6 * limit]
    assert verify.REPEATING_PATIENCE == agreed.REPEATING_PATIENCE == 6


async def test_what_others_have_parsed_leaves_a_place_to_the_owner() -> None:
    extractor, running, most = Extractor(), 0, 0

    async def hold(ended: trio.Event) -> None:
        nonlocal running, most
        async with extractor.turn(of_others=True), extractor._places:
            running += 1
            most = max(most, running)
            await ended.wait()
            running -= 1

    async with trio.open_nursery() as nursery:
        ended = trio.Event()
        for _ in range(20):
            nursery.start_soon(hold, ended)
        await trio.testing.wait_all_tasks_blocked()
        async with extractor.turn(of_others=False):
            assert await extractor.extract(extraction("text"), b"words") == b"words"
        assert most == PARSERS_OF_OTHERS_MAX
        ended.set()
