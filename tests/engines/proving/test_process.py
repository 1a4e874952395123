"""Processes of ezkl end by themselves or are ended, and that is an error of their job alone."""

from pathlib import Path

import pytest

from node.engines.proving import process
from node.engines.proving.process import CHECK_FILE_BYTES_MAX, asked_of_worker
from wire.errors import EngineFailed

BROKEN = "tests.engines.proving.broken_worker"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"do": "abort"}, "the worker ended"),
        ({"do": "memory"}, "ran out of memory"),
        ({"do": "disk", "file": "large", "size_bytes": CHECK_FILE_BYTES_MAX + 1}, "worker ended"),
    ],
)
async def test_whatever_ends_a_process_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: dict[str, str | int], words: str
) -> None:
    monkeypatch.setattr(process, "WORKER", BROKEN)
    with pytest.raises(EngineFailed, match=words):
        await asked_of_worker(dict(message), tmp_path, timeout_s=100.0, checks=True)


async def test_a_process_that_hangs_is_ended_and_the_next_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "WORKER", BROKEN)
    with pytest.raises(EngineFailed, match="did not answer within"):
        await asked_of_worker({"do": "hang"}, tmp_path, timeout_s=0.1, checks=True)
    found = await asked_of_worker({"do": "well"}, tmp_path, timeout_s=100.0, checks=True)
    assert found["told"] == "well"
