"""A model whose layers lie at several peers, as its users see it: whole peers, from end to end."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.checking.audit import audit
from node.dispatch.layer_chain import LayerChains
from node.engines.formats.smollm2 import SMOLLM2, SMOLLM2_ID
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Job
from node.local.model_commands import own_models
from node.peer import Dependencies, Node
from node.task.events import Event, Restarted, Streamed
from p2p.score import Standing
from tests.engines.summing_engine import SummingEngine, expected, frames, summing_manifest
from tests.node.asking import failures, request, signers
from tests.node.network import D, I, Network, V, open_network
from tests.node.test_streams import Watching
from wire.content import ContentId
from wire.errors import BatonError
from wire.generation import Generation
from wire.kinds import Level, Role
from wire.layers import LayerRange, layers_id
from wire.task import Stage

MODEL = summing_manifest().id
COUNT, TOKENS = 9, 14
ASKED = Generation(prompt="x", messages="", tools="", schema="", stop=())
GENERATE = Stage(role=Role.INFER, operation="generate", model=MODEL, parameters={"tokens": TOKENS})
WANTED = request(GENERATE, data=ASKED.to_bytes(), level=Level.SIGNED, deadline_s=120)


def with_chains(chains: LayerChains) -> Callable[[Dependencies], Dependencies]:
    return lambda dependencies: replace(dependencies, chains=chains)


async def part(network: Network, first: int, last: int, *roles: Role) -> Node:
    """A peer with these layers; it is probed as any other."""
    chains = LayerChains()
    engine = SummingEngine(LayerRange(first, last, COUNT), chains, token_s=1.0)
    node = await network.start(
        *(roles or (I,)), engine=engine, models=(), alter=with_chains(chains)
    )
    assert network.nursery is not None
    network.nursery.start_soon(node.probing.run)
    return node


async def until(what: Callable[[], bool], within_s: float = 60) -> None:
    with trio.fail_after(within_s):
        while not what():
            await trio.sleep(0.1)


def offers(asker: Node, model: ContentId) -> bool:
    return asker.models.offered(model)


async def test_a_model_in_three_parts_answers_and_goes_on_when_parts_die(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(D)
        driver = await part(network, 0, 2)
        middle = await part(network, 3, 5)
        await trio.sleep(20)
        # Not all layers are there: the model is not offered, and it is said why.
        assert not offers(asker, MODEL)
        assert offers(asker, layers_id(MODEL))
        assert driver.probing.probes.problem(MODEL) == "nobody known here offers layers 6-8 of 9"
        lasts = [await part(network, 6, 8) for _ in range(3)]
        await until(lambda: offers(asker, MODEL))
        chains = driver.dependencies.chains
        watching = Watching()

        async def kill_them() -> None:
            for tokens in (1, 5, 9):
                await watching.until(tokens)
                used = dict(chains.peers_of(MODEL))
                at_work = [it for it in lasts if it.peers.me in used]
                if tokens == 9:
                    # The second range now, which has nobody else yet.
                    network.nursery.start_soon(part, network, 3, 5)
                    at_work = [middle]
                else:
                    lasts.remove(at_work[0])
                network.kill(at_work[0])

        task = await asker.tasks.submit(WANTED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_them)
            with trio.fail_after(200):
                answered = await asker.tasks.watch(task, watching.on_event)
        right = b"".join(frames(expected(TOKENS, COUNT)))
        pieces = [it for it in watching.events if isinstance(it, Streamed)]
        # Each token once, in order, and the right ones.
        assert [(it.position, it.units) for it in pieces] == [(at, 1) for at in range(TOKENS)]
        assert answered.output == right == b"".join(it.data for it in pieces)
        assert signers(answered) == [driver.peers.me]
        assert not failures(watching.events)
        assert not [it for it in watching.events if isinstance(it, Restarted)]
        assert chains.broken == 3
        # The last one of a range goes: the model is not offered any more.
        network.kill(lasts.pop())
        await until(lambda: not offers(asker, MODEL))


async def test_what_nobody_can_go_on_with_goes_to_another_driver_or_fails_in_words(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(D)
        await part(network, 0, 2)
        rest = await part(network, 3, 8)
        await until(lambda: offers(asker, MODEL))
        watching = Watching()
        task = await asker.tasks.submit(WANTED)
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                await watching.until(4)
                network.kill(rest)

            nursery.start_soon(kill)
            with trio.fail_after(300), pytest.raises(BatonError):
                await asker.tasks.watch(task, watching.on_event)
        told = [it.why for it in failures(watching.events)]
        assert any("layers 0-2 of 9 are here, and not the rest" in it for it in told), told


async def test_a_stage_that_lies_is_named_and_the_answer_is_right_and_shows_who_ran_what(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(D)
        driver = await part(network, 0, 2)
        middle = await part(network, 3, 5)
        liar = await part(network, 6, 8)
        await until(lambda: offers(asker, MODEL))
        chains = driver.dependencies.chains
        # It begins to lie once it is in the chain, and others come who could take its place.
        engine = liar.dependencies.engine
        assert isinstance(engine, SummingEngine)
        engine.lie = 3.0
        honest = [await part(network, 6, 8) for _ in range(2)]
        others = {it.peers.me for it in honest}
        await until(lambda: {it for some in chains._offers(MODEL).values() for it in some} > others)
        watching = Watching()
        task = await asker.tasks.submit(WANTED)
        with trio.fail_after(400):
            answered = await asker.tasks.watch(task, watching.on_event)
        assert answered.output == b"".join(frames(expected(TOKENS, COUNT)))
        assert watching.screen.data == answered.output
        # Whether it was in the chain was drawn; if it was, it is named, and nobody else is.
        assert set(chains.named) <= {liar.peers.me}
        assert asker.peers.standing(driver.peers.me) is Standing.GOOD
        for node in (middle, *honest):
            assert driver.peers.standing(node.peers.me) is Standing.GOOD
        (model_row,) = own_models(driver)
        said = [{"peer": str(it), "layers": why} for it, why in chains.named.items()]
        assert (model_row["layers"], model_row["gave_wrong_rows"]) == ("layers 0-2 of 9", said)
        assert [it["layers"] for it in model_row["rest"]] == ["layers 3-5 of 9", "layers 6-8 of 9"]
        if chains.named:
            assert driver.peers.standing(liar.peers.me) is Standing.BANNED
        report = audit(answered.answer.raw, lambda _: None)
        assert report.holds
        told = "\n".join(f"{it.what}: {it.detail}" for it in report.points)
        assert f"layers 3-5 of leg 1 are signed for: {TOKENS} rows, by {middle.peers.me}" in told
        assert "layers 6-8 of leg 1 are signed for" in told
        assert str(liar.peers.me) not in told
        assert f"0-2 at {driver.peers.me.short}, 3-5 at {middle.peers.me.short}" in told


async def test_verifiers_that_have_parts_too_check_the_whole_answer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(D)
        driver = await part(network, 0, 2)
        checkers = [await part(network, 0, 4, V) for _ in range(2)]
        await part(network, 3, 8)
        await part(network, 5, 8)
        await until(lambda: offers(asker, MODEL))
        known = asker.peers.view
        wall_s = asker.dependencies.environment.wall_s
        await until(lambda: len(known.candidates(Role.VERIFY, MODEL, wall_s())) == 2)
        events: list[Event] = []
        wanted = replace(WANTED, level=Level.REPLAYED, verifiers=2, needed=2)
        task = await asker.tasks.submit(wanted)
        with trio.fail_after(300):
            answered = await asker.tasks.watch(task, events.append)
        assert answered.output == b"".join(frames(expected(TOKENS, COUNT)))
        assert signers(answered) == [driver.peers.me]
        assert len(answered.answer.record.verdicts) == 2
        assert [it.verify_role.checked for it in checkers] == [1, 1]


async def smollm2(
    network: Network, stack: AsyncExitStack, cache: Path, layers: tuple[int, int] | None
) -> Node:
    """A peer that has SmolLM2, or these layers of it."""
    chains = LayerChains()
    config = EngineConfig(layers=layers)
    engine = await stack.enter_async_context(
        open_tinygrad_engine(cache, config=config, others=chains)
    )
    await engine.load(SMOLLM2.manifest(), SMOLLM2.files())
    node = await network.start(I, engine=engine, models=(), alter=with_chains(chains))
    assert network.nursery is not None
    network.nursery.start_soon(node.probing.run)
    return node


SMOLLM2_TOKENS = 64
SMOLLM2_ASKED = Generation(
    prompt="A relay race is", messages="", tools="", schema="", stop=()
).to_bytes()
SMOLLM2_STAGE = Stage(
    role=Role.INFER,
    operation="generate",
    model=SMOLLM2_ID,
    parameters={"tokens": SMOLLM2_TOKENS, "temperature": 0.0, "ignore_eos": 1},
)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "ranges",
    [
        ((0, 17), (18, 29)),
        ((0, 9), (10, 19), (20, 29)),
        ((0, 5), (6, 11), (12, 17), (18, 23), (24, 29)),
    ],
    ids=["2 peers", "3 peers", "5 peers"],
)
async def test_smollm2_over_several_peers_says_what_one_peer_says(
    tmp_path: Path, ranges: tuple[tuple[int, int], ...]
) -> None:
    cache = tmp_path / "cache"
    async with AsyncExitStack() as stack:
        async with open_tinygrad_engine(cache, config=EngineConfig()) as whole:
            await whole.load(SMOLLM2.manifest(), SMOLLM2.files())
            job = Job(
                model=SMOLLM2_ID,
                operation="generate",
                input=SMOLLM2_ASKED,
                parameters=SMOLLM2_STAGE.parameters,
                deadline_s=600,
            )
            alone = await whole.infer(job)
        assert alone.units == SMOLLM2_TOKENS
        network = await stack.enter_async_context(open_network(tmp_path))
        asker = await network.start(D)
        driver, *_ = [await smollm2(network, stack, cache, it) for it in ranges]
        # Somebody who can stand in for the last range.
        spare = await smollm2(network, stack, cache, ranges[-1])
        await until(lambda: offers(asker, SMOLLM2_ID), 300)
        watching = Watching()
        wanted = request(SMOLLM2_STAGE, data=SMOLLM2_ASKED, level=Level.SIGNED, deadline_s=1200)
        task = await asker.tasks.submit(wanted)

        async def kill_the_last() -> None:
            await watching.until(10)
            peer, _ = driver.dependencies.chains.peers_of(SMOLLM2_ID)[-1]
            network.kill(next(it for it in network.nodes if it.peers.me == peer))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_the_last)
            answered = await asker.tasks.watch(task, watching.on_event)
        assert answered.output == alone.data
        assert driver.dependencies.chains.broken == 1
        assert len(network.nodes) == len(ranges) + 1
        assert spare.stage_server.passes or spare not in network.nodes
