"""The hash engine: pieces in order, virtual time, and answers that differ by model."""

from dataclasses import replace

import numpy as np
import pytest
import trio

from node.engines.hash_engine import HashEngine, hash_manifest, hash_piece
from node.engines.hash_vector import hash_vector, hash_vectors
from node.engines.interface import Job, Part
from tests.engines.tiny import texts
from wire.errors import ModelRefused
from wire.generation import Ending, Generation, read_frames
from wire.message import Progress

# Simulations recorded on one machine are replayed on another.
GOLDEN = "ba9e56bfdb0a02bf55834a3e"


def job(manifest, operation="complete", data=b"prompt", **parameters) -> Job:
    return Job(
        model=manifest.id,
        operation=operation,
        input=data,
        parameters=parameters,
        deadline_s=1000,
    )


async def test_tokens_are_emitted_in_order_and_the_output_is_all_of_them() -> None:
    engine, manifest, pieces = HashEngine(), hash_manifest(), []

    async def emit(part: Part) -> None:
        await trio.lowlevel.checkpoint()
        assert (part.position, part.units) == (len(pieces), 1)
        pieces.append(part.data)

    await engine.load(manifest, {})
    output = await engine.infer(job(manifest, tokens=5), emit)
    assert pieces == [hash_piece(manifest.id, b"prompt", at) for at in range(5)]
    assert output.data == b"".join(pieces)
    assert output.units == 5


def pieces_of(manifest, count) -> list[bytes]:
    return [hash_piece(manifest.id, b"prompt", at) for at in range(count)]


@pytest.mark.parametrize(
    ("units", "alter", "first"),
    [
        (3, lambda data: data, 3),
        (10, lambda data: data, 10),
        (3, lambda data: data[:-1] + b"x", 2),
        (3, lambda data: b"x" + data[1:], 0),
        # As many units as it says, and something besides.
        (3, lambda data: data + b"junk", 0),
        # Fewer bytes than its units have.
        (3, lambda data: data[:64], 1),
        (3, lambda data: data[:0], 0),
        (2**31, lambda data: data, 10),
    ],
)
async def test_a_stream_is_gone_on_with_from_where_it_was_right(
    autojump_clock, units, alter, first
) -> None:
    engine, manifest, parts = HashEngine(unit_s=1.0), hash_manifest(), []

    async def emit(part: Part) -> None:
        await trio.lowlevel.checkpoint()
        parts.append(part)

    await engine.load(manifest, {})
    right = pieces_of(manifest, 10)
    begun = Progress(units=units, data=alter(b"".join(right[:units])))
    output = await engine.infer(replace(job(manifest, tokens=10), resume=begun), emit)
    assert parts == [Part(at, 1, right[at]) for at in range(first, 10)]
    assert (output.data, output.units) == (b"".join(right), 10)
    # Checking what another made is quick; making it is not.
    assert trio.current_time() == pytest.approx(10 - first)
    assert engine.statistics().units_queued == 0


async def test_work_takes_virtual_time_and_one_job_waits_for_the_other(autojump_clock) -> None:
    engine, manifest = HashEngine(unit_s=2.0), hash_manifest()
    await engine.load(manifest, {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.infer, job(manifest, tokens=10))
        nursery.start_soon(engine.infer, job(manifest, tokens=5))
        await trio.testing.wait_all_tasks_blocked()
        assert engine.queue_s == 30
    assert trio.current_time() == pytest.approx(30)


async def test_a_job_cancelled_in_the_middle_gives_its_place_back(autojump_clock) -> None:
    engine, manifest = HashEngine(unit_s=2.0, jobs_max=1), hash_manifest()
    await engine.load(manifest, {})
    with trio.move_on_after(5):
        await engine.infer(job(manifest, tokens=10))
    assert engine.statistics().units_queued == 0
    assert engine.statistics().units_done == 2
    assert engine.free_slots == 1


async def test_a_model_unloaded_meanwhile_is_refused(autojump_clock) -> None:
    engine, manifest = HashEngine(unit_s=1.0), hash_manifest()
    await engine.load(manifest, {})

    async def late() -> None:
        with pytest.raises(ModelRefused, match="unloaded"):
            await engine.infer(job(manifest, tokens=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.infer, job(manifest, tokens=3))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
        await engine.unload(manifest.id)


async def test_parameters_out_of_bounds_are_refused() -> None:
    engine, manifest = HashEngine(), hash_manifest()
    await engine.load(manifest, {})
    for tokens in (0, -1, True, 10**9, "many"):
        with pytest.raises(ModelRefused):
            await engine.infer(job(manifest, tokens=tokens))
    with pytest.raises(ModelRefused):
        await engine.load(hash_manifest(dimensions=10**6), {})


def test_every_model_and_text_has_its_own_vector_and_always_the_same() -> None:
    one, other = hash_manifest().id, hash_manifest("other").id
    assert hash_vector(one, "a", 64) == hash_vector(one, "a", 64)
    found = {hash_vector(model, text, 64) for model in (one, other) for text in ("a", "b", "")}
    assert len(found) == 6
    assert hash_vector(one, "a", 3)[:12].hex() == GOLDEN
    assert np.linalg.norm(np.frombuffer(hash_vector(one, "a", 64), "<f4")) == pytest.approx(1)
    texts = [f"text {it}" for it in range(100)]
    for dimensions in (1, 3, 64, 130):
        each = [hash_vector(one, it, dimensions) for it in texts]
        assert hash_vectors(one, texts, dimensions) == b"".join(each)


async def test_embedding_does_not_emit() -> None:
    engine, manifest = HashEngine(), hash_manifest()
    await engine.load(manifest, {})

    async def emit(part: Part) -> None:
        raise AssertionError("an embedding has no pieces")

    await engine.infer(job(manifest, "embed", texts("a")), emit)


async def test_what_a_language_model_would_say_comes_token_by_token_and_is_read_again() -> None:
    engine = HashEngine()
    await engine.load(hash_manifest(), {})
    asked = Generation(prompt="one two three", messages="", tools="", schema="", stop=())
    wanted = job(hash_manifest(), "generate", asked.to_bytes(), tokens=5)
    parts: list[Part] = []

    async def emit(part: Part) -> None:
        parts.append(part)

    output = await engine.infer(wanted, emit)
    assert b"".join(it.data for it in parts) == output.data
    *tokens, ending = read_frames(output.data)
    assert ending == Ending(reason="length", prompt_tokens=3, tokens=5, text_bytes=45)
    assert len(tokens) == len(parts) == output.units == 5
    shown = Progress(units=2, data=parts[0].data + parts[1].data)
    again = await engine.infer(replace(wanted, resume=shown), emit)
    assert again == output
    assert [it.position for it in parts[5:]] == [2, 3, 4]
