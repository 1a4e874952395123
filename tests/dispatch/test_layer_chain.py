"""Chains of layers at peers of all kinds: rows come back right, or it is said that they do not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from node.dispatch.layer_chain import LOOKED_ONE_IN
from node.dispatch.layer_check import LayerClaim, LayerFinding, look_again
from node.dispatch.layer_link import PASS_S
from node.engines.other_layers import EndedRows, LayersLied, LayersLost
from node.peer import Node
from node.serving import stage_sessions
from node.serving.stage_server import StageServer
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.engines.summing_engine import (
    HIDDEN,
    PAGE,
    PAGES,
    TABLE,
    Reading,
    SummingEngine,
    expected,
    summing_manifest,
)
from tests.node.network import D, I, Network, open_network
from wire import limits
from wire.kinds import RefusalCode
from wire.layers import LayerRange
from wire.message import Message, Refuse, encode
from wire.signed import open_signed, sign
from wire.signing import SigningKey
from wire.stage import (
    StageClose,
    StageLeg,
    StageOpen,
    StageOpened,
    StagePass,
    StagePassed,
    StageRows,
    StageSign,
    StageSigned,
    row_digest,
    rows_digest,
)

MODEL = summing_manifest().id
COUNT = 9
HERE = LayerRange(0, 2, COUNT)
Script = Callable[[TypedCall, StagePass], Awaitable[None]]


@dataclass
class Scene:
    network: Network
    node: Node
    driver: Reading

    async def stage(self, first: int, last: int) -> Node:
        """A peer with this range, which the driver has heard of."""
        engine = SummingEngine(LayerRange(first, last, COUNT))
        node = await self.network.start(I, engine=engine, models=())
        node.probing.probes.succeeded(MODEL, trio.current_time())
        node.peers.advertiser.changed()
        chains = self.node.dependencies.chains
        with trio.fail_after(60):
            while node.peers.me not in [
                it for some in chains._offers(MODEL).values() for it in some
            ]:
                await trio.sleep(0.1)
        return node


@pytest.fixture
async def scene(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[Scene]:
    async with opened(tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Scene]:
    async with open_network(folder) as network:
        node = await network.add(D)
        yield Scene(network, node, Reading(node.dependencies.chains, MODEL, HERE))


async def test_rows_go_through_every_range_in_order(
    autojump_clock: MockClock, scene: Scene
) -> None:
    await scene.stage(3, 5)
    await scene.stage(6, 8)
    found = [await scene.driver.token() for _ in range(12)]
    assert found == expected(12, COUNT)
    # Others may want pages: each gave half of its own, which is said once.
    assert scene.driver.losses == ["the other layers are begun anew"]
    assert scene.driver.pages == PAGES // 2


async def test_where_layers_are_missing_it_is_said_which_and_they_are_waited_for(
    autojump_clock: MockClock,
    scene: Scene,
) -> None:
    await scene.stage(3, 5)
    chains = scene.node.dependencies.chains
    assert chains.missing(MODEL, HERE) == "nobody known here offers layers 6-8 of 9"
    with pytest.raises(LayersLost, match=r"layers 0-2 of 9 are here, and not the rest: .* 6-8"):
        await scene.driver.token()
    async with trio.open_nursery() as nursery:

        async def come() -> None:
            await trio.sleep(5)
            await scene.stage(6, 8)

        nursery.start_soon(come)
        assert await scene.driver.token() == expected(1, COUNT)[0]
    assert chains.missing(MODEL, HERE) == ""


@pytest.mark.parametrize("at", [1, 2, 7])
async def test_a_peer_that_dies_is_replaced_and_nothing_is_lost_or_doubled(
    autojump_clock: MockClock, scene: Scene, at: int
) -> None:
    first = await scene.stage(3, 8)
    others = [await scene.stage(3, 8) for _ in range(2)]
    nodes = {it.peers.me: it for it in (first, *others)}
    driver, chains = scene.driver, scene.node.dependencies.chains
    found = []
    for number in range(12):
        if number in (at, at + 3):
            ((peer, _),) = chains.peers_of(MODEL)
            scene.network.kill(nodes.pop(peer))
        found.append(await driver.token())
    assert found == expected(12, COUNT)
    assert chains.broken == 2
    assert len(nodes) == 1


async def test_whoever_is_alone_and_dies_is_missed_in_words(
    autojump_clock: MockClock, scene: Scene
) -> None:
    node = await scene.stage(3, 8)
    await scene.driver.token()
    scene.network.kill(node)
    with pytest.raises(LayersLost, match="layers 0-2 of 9 are here, and not the rest"):
        await scene.driver.token()
    # Another one that comes goes on where that was.
    await scene.stage(3, 8)
    found = [*scene.driver.out, await scene.driver.token()]
    assert found == expected(2, COUNT)


async def test_a_peer_that_pauses_or_leaves_is_gone_round(
    autojump_clock: MockClock, scene: Scene
) -> None:
    nodes = [await scene.stage(3, 8) for _ in range(2)]
    driver, chains = scene.driver, scene.node.dependencies.chains
    await driver.token()
    ((peer, _),) = chains.peers_of(MODEL)
    next(it for it in nodes if it.peers.me == peer).pause("the owner is there")
    found = [*driver.out, *[await driver.token() for _ in range(3)]]
    assert found == expected(4, COUNT)
    assert any("paused" in it for it in driver.losses)


def rows_of(asked: StagePass, value: float = 1.0) -> bytes:
    return np.full(len(asked.rows.data) // 4, value, "<f4").tobytes()


async def _shape(call: TypedCall, asked: StagePass) -> None:
    await call.send(StagePassed(number=asked.number, data=rows_of(asked) + b"more"))


async def _no_numbers(call: TypedCall, asked: StagePass) -> None:
    await call.send(StagePassed(number=asked.number, data=rows_of(asked, float("nan"))))


async def _endless(call: TypedCall, asked: StagePass) -> None:
    await call.send(StagePassed(number=asked.number, data=rows_of(asked, float("inf"))))


async def _anothers(call: TypedCall, asked: StagePass) -> None:
    await call.send(StagePassed(number=asked.number + 1, data=rows_of(asked)))


async def _never(call: TypedCall, asked: StagePass) -> None:
    await trio.sleep_forever()


async def _late(call: TypedCall, asked: StagePass) -> None:
    await trio.sleep(PASS_S + 1)
    await call.send(StagePassed(number=asked.number, data=rows_of(asked)))


async def _refusing(call: TypedCall, asked: StagePass) -> None:
    await call.send(Refuse(code=RefusalCode.OTHER, reason="no", retry_after_ms=None))


async def _out_of_turn(call: TypedCall, asked: StagePass) -> None:
    await call.channel.send(encode(StageOpened(pages=1)))


EVIL = (_shape, _no_numbers, _endless, _anothers, _never, _late, _refusing, _out_of_turn)


@pytest.mark.parametrize(
    ("script", "after"),
    [*((it, 3) for it in EVIL), (_shape, 0), (_never, 0)],
    ids=lambda it: getattr(it, "__name__", it),
)
async def test_a_peer_that_answers_what_are_no_rows_is_gone_round(
    autojump_clock: MockClock, scene: Scene, script: Script, after: int
) -> None:
    bad = await scene.stage(3, 8)
    engine = bad.dependencies.engine

    async def on_open(call: TypedCall, message: Message) -> None:
        assert isinstance(message, StageOpen)
        engine.sessions[99] = {}
        engine._granted[99] = 8
        await call.send(StageOpened(pages=8))
        passes = 0
        while True:
            asked = await call.receive()
            if not isinstance(asked, StagePass):
                return
            if passes >= after:
                await script(call, asked)
                return
            await call.send(StagePassed(number=passes, data=engine._through(99, asked.rows)))
            passes += 1

    bad.peers.handlers[StageOpen] = on_open
    driver = scene.driver
    chains = scene.node.dependencies.chains
    # It is the only one at first, so that it is asked.
    found = [await driver.token() for _ in range(after)]
    good = await scene.stage(3, 8)
    found += [await driver.token() for _ in range(6 - after)]
    assert found == expected(6, COUNT)
    if chains.broken:
        assert [it for it, _ in chains.peers_of(MODEL)] == [good.peers.me]
    if after:
        assert chains.broken == 1
    standing = scene.node.peers.standing(bad.peers.me)
    assert standing is not Standing.BANNED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"first": 4}, RefusalCode.UNSUPPORTED),
        ({"last": 7}, RefusalCode.UNSUPPORTED),
        ({"first": 8, "last": 3}, RefusalCode.UNSUPPORTED),
        ({"model": summing_manifest().id.of(b"other")}, RefusalCode.NO_SUCH_MODEL),
    ],
)
async def test_what_is_not_run_here_is_refused(
    autojump_clock: MockClock, scene: Scene, changes: dict[str, object], code: RefusalCode
) -> None:
    node = await scene.stage(3, 8)
    asked = StageOpen(model=MODEL, first=3, last=8, pages=4)
    async with scene.node.peers.call(node.peers.me, deadline_s=30) as call:
        await call.send(replace(asked, **changes))
        answer = await call.receive()
        assert isinstance(answer, Refuse)
        assert answer.cause is code


async def test_an_asker_that_sends_nonsense_ends_its_own_session_alone(
    autojump_clock: MockClock, scene: Scene
) -> None:
    node = await scene.stage(3, 8)
    await scene.driver.token()
    peers, engine = scene.node.peers, node.dependencies.engine
    whole = StageRows(
        tables=(b"\0\0",), owners=b"\0", places=bytes(4), data=np.ones(HIDDEN, "<f4").tobytes()
    )
    wrong = (
        replace(whole, tables=(b"\xff\0",)),
        replace(whole, places=np.array([PAGE], "<u4").tobytes()),
        replace(whole, data=np.ones(8, "<f4").tobytes()),
        replace(whole, data=np.full(HIDDEN, np.nan, "<f4").tobytes()),
    )
    for rows in wrong:
        async with peers.call(node.peers.me, deadline_s=30) as call:
            await call.send(StageOpen(model=MODEL, first=3, last=8, pages=2))
            await call.expect(StageOpened)
            await call.send(StagePass(number=0, rows=rows))
            assert isinstance(await call.receive(), Refuse)
    assert len(engine.sessions) == node.stage_server.sessions == 1
    found = [*scene.driver.out, await scene.driver.token()]
    assert found == expected(2, COUNT)
    assert scene.driver.losses == ["the other layers are begun anew"]


async def test_one_asker_has_two_sessions_at_most_and_idle_ones_end(
    autojump_clock: MockClock, scene: Scene
) -> None:
    node = await scene.stage(3, 8)
    peers = scene.node.peers
    async with trio.open_nursery() as nursery:

        async def hold(wanted: type[Message]) -> None:
            async with peers.call(node.peers.me, deadline_s=900) as call:
                await call.send(StageOpen(model=MODEL, first=3, last=8, pages=2))
                assert isinstance(await call.receive(), wanted)
                if wanted is StageOpened:
                    # Its asker says no more.
                    assert isinstance(await call.receive(), Refuse)

        for wanted in (StageOpened, StageOpened, Refuse):
            nursery.start_soon(hold, wanted)
            await trio.sleep(1)
        assert node.stage_server.sessions == 2
    assert node.stage_server.sessions == 0


# What is signed, and looked at again


def lying(node: Node, lie: float = 1.0) -> Node:
    engine = node.dependencies.engine
    assert isinstance(engine, SummingEngine)
    engine.lie = lie
    return node


async def made(scene: Scene, count: int) -> EndedRows:
    """So many tokens of an answer, which is then at an end."""
    for _ in range(count):
        await scene.driver.token()
    return EndedRows(MODEL, TABLE, len(scene.driver.out))


def digest(rows: list[np.ndarray]) -> bytes:
    return rows_digest(row_digest(it.astype("<f4").tobytes()) for it in rows)


async def test_each_stage_signs_what_went_in_and_what_came_out(
    autojump_clock: MockClock, scene: Scene
) -> None:
    nodes = [await scene.stage(3, 5), await scene.stage(6, 8)]
    ended = await made(scene, 6)
    legs = [open_signed(it, StageLeg) for it in await scene.node.dependencies.chains.sign(ended)]
    assert [it.signer for it in legs] == [it.peers.me for it in nodes]
    first, last = (it.record for it in legs)
    assert (first.first, first.last, last.first, last.last) == (3, 5, 6, 8)
    assert {it.record.asker for it in legs} == {scene.node.peers.me}
    assert {it.record.rows for it in legs} == {6}
    # What one gave is what the next one took.
    assert first.input == digest(scene.driver.rows)
    assert first.output == last.input != first.input
    assert last.output == digest([np.full(HIDDEN, it) for it in scene.driver.out])


async def test_a_stage_that_gave_wrong_rows_is_named_and_banned_and_gone_round(
    autojump_clock: MockClock, scene: Scene
) -> None:
    liar = lying(await scene.stage(3, 8))
    await scene.driver.token()
    honest = [await scene.stage(3, 8) for _ in range(2)]
    chains, peers = scene.node.dependencies.chains, scene.node.peers
    with pytest.raises(LayersLied, match=f"{liar.peers.me.short} gave wrong rows of layers 3-8"):
        await chains.sign(await made(scene, 3))
    assert dict(chains.named) == {liar.peers.me: "layers 3-8 of 9"}
    assert peers.standing(liar.peers.me) is Standing.BANNED
    assert {peers.standing(it.peers.me) for it in honest} == {Standing.GOOD}
    scene.driver = Reading(chains, MODEL, HERE)
    legs = await chains.sign(await made(scene, 4))
    assert scene.driver.out == expected(4, COUNT)
    assert open_signed(legs[0], StageLeg).signer in {it.peers.me for it in honest}


async def test_who_lies_when_it_runs_others_rows_again_is_named_itself(
    autojump_clock: MockClock, scene: Scene
) -> None:
    honest = await scene.stage(3, 8)
    await scene.driver.token()
    liar, other = lying(await scene.stage(3, 8)), await scene.stage(3, 8)
    chains, peers = scene.node.dependencies.chains, scene.node.peers
    claim = LayerClaim(
        honest.peers.me,
        MODEL,
        LayerRange(3, 8, COUNT),
        [
            (row.tobytes(), np.full(HIDDEN, scene.driver.out[0], "<f4").tobytes())
            for row in scene.driver.rows
        ],
    )
    found = await look_again(peers, claim, [liar.peers.me, other.peers.me])
    assert found.wrong == (liar.peers.me,)
    assert set(found.agreeing) == {honest.peers.me, other.peers.me}
    assert chains.broken == 0


async def test_where_two_differ_nobody_is_blamed(autojump_clock: MockClock, scene: Scene) -> None:
    nodes = [lying(await scene.stage(3, 8))]
    await scene.driver.token()
    nodes.append(await scene.stage(3, 8))
    chains, peers = scene.node.dependencies.chains, scene.node.peers
    assert len(await chains.sign(await made(scene, 2))) == 1
    assert chains.looked == 1
    assert {peers.standing(it.peers.me) for it in nodes} == {Standing.GOOD}


async def test_who_is_known_is_looked_at_now_and_then_and_honest_answers_pass(
    autojump_clock: MockClock, scene: Scene
) -> None:
    for _ in range(3):
        await scene.stage(3, 8)
    chains = scene.node.dependencies.chains
    for _ in range(4 * LOOKED_ONE_IN):
        scene.driver = Reading(chains, MODEL, HERE, fresh=False)
        assert len(await chains.sign(await made(scene, 1))) == 1
    assert 2 <= chains.looked <= 16
    assert not chains.named
    assert chains.broken == 0


@pytest.mark.parametrize("field", ["input", "output", "rows", "asker", "first", "model", "key"])
async def test_a_stage_that_signs_something_else_ends_the_chain(
    autojump_clock: MockClock, scene: Scene, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await scene.stage(3, 8)
    server, right = node.stage_server, StageServer._signed
    other = {
        "input": bytes(32),
        "output": bytes(32),
        "rows": 1,
        "asker": node.peers.me,
        "first": 2,
        "model": MODEL.of(b"other"),
    }

    def signed(self: StageServer, *asked: Any) -> StageSigned:
        leg = open_signed(right(self, *asked).leg, StageLeg).record
        key = SigningKey(bytes(32)) if field == "key" else self.key
        changed = {field: other[field]} if field in other else {}
        return StageSigned(leg=sign(replace(leg, **changed), key).raw)

    monkeypatch.setattr(StageServer, "_signed", signed)
    chains = scene.node.dependencies.chains
    assert await chains.sign(await made(scene, 3)) == ()
    assert server.sessions <= 1
    # The next token is made by a new chain.
    assert [*scene.driver.out, await scene.driver.token()] == expected(4, COUNT)
    assert chains.broken == 1


async def test_rows_that_did_not_go_through_are_not_signed_for(
    autojump_clock: MockClock, scene: Scene
) -> None:
    node = await scene.stage(3, 8)
    rows = StageRows(
        tables=(b"\0\0",), owners=b"\0", places=bytes(4), data=np.ones(HIDDEN, "<f4").tobytes()
    )
    for table, count, answer in (
        (b"\0\0", 1, StageSigned),
        (b"\1\0", 1, Refuse),
        (b"\0\0", 2, Refuse),
    ):
        async with scene.node.peers.call(node.peers.me, deadline_s=30) as call:
            await call.send(StageOpen(model=MODEL, first=3, last=8, pages=2))
            await call.expect(StageOpened)
            await call.send(StagePass(number=0, rows=rows))
            await call.expect(StagePassed)
            await call.send(StageSign(table=table, rows=count))
            assert isinstance(await call.receive(), answer)


async def test_what_was_signed_is_not_signed_again_and_again(
    autojump_clock: MockClock, scene: Scene
) -> None:
    node = await scene.stage(3, 8)
    rows = StageRows(
        tables=(b"\0\0",), owners=b"\0", places=bytes(4), data=np.ones(HIDDEN, "<f4").tobytes()
    )
    async with scene.node.peers.call(node.peers.me, deadline_s=30) as call:
        await call.send(StageOpen(model=MODEL, first=3, last=8, pages=2))
        await call.expect(StageOpened)
        await call.send(StagePass(number=0, rows=rows))
        await call.expect(StagePassed)
        for answer in (StageSigned, Refuse):
            await call.send(StageSign(table=b"\0\0", rows=1))
            assert isinstance(await call.receive(), answer)
    assert node.stage_server.signed == 1


async def test_two_of_one_address_prefix_blame_nobody(
    autojump_clock: MockClock, scene: Scene
) -> None:
    accused = await scene.stage(3, 8)
    await scene.driver.token()
    liars = [lying(await scene.stage(3, 8)) for _ in range(2)]
    peers = scene.node.peers
    gave = np.full(HIDDEN, scene.driver.out[0], "<f4").tobytes()
    pairs = [(row.tobytes(), gave) for row in scene.driver.rows]
    claim = LayerClaim(accused.peers.me, MODEL, LayerRange(3, 8, COUNT), pairs)
    for node in liars:
        peers.view.origins.prefixes[node.peers.me] = "203.0.113.0/24"
    found = await look_again(peers, claim, [it.peers.me for it in liars])
    assert found == LayerFinding()


async def test_an_older_stage_is_not_asked_to_sign(autojump_clock: MockClock, scene: Scene) -> None:
    old = await scene.stage(3, 5)
    old.peers.neighbours.speaks = limits.STAGE_LEGS_VERSION - 1
    new = await scene.stage(6, 8)
    ended = await made(scene, 2)
    (leg,) = await scene.node.dependencies.chains.sign(ended)
    assert open_signed(leg, StageLeg).signer == new.peers.me
    assert old.stage_server.signed == 0


async def test_a_session_that_is_not_used_makes_room_for_another_asker(
    autojump_clock: MockClock, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_sessions, "SESSIONS_MAX", 1)
    node = await scene.stage(3, 8)
    other = await scene.network.start(D)
    with trio.fail_after(60):
        while node.peers.me not in other.peers.connected():
            await trio.sleep(0.1)
    opening = StageOpen(model=MODEL, first=3, last=8, pages=2)
    async with scene.node.peers.call(node.peers.me, deadline_s=600) as call:
        await call.send(opening)
        await call.expect(StageOpened)
        async with other.peers.call(node.peers.me, deadline_s=600) as too_soon:
            await too_soon.send(opening)
            assert isinstance(await too_soon.receive(), Refuse)
        await trio.sleep(stage_sessions.TAKEN_BACK_S + 1)
        async with other.peers.call(node.peers.me, deadline_s=600) as later:
            await later.send(opening)
            await later.expect(StageOpened)
            answer = await call.receive()
            assert isinstance(answer, Refuse)
            assert "you have not used them" in answer.reason
            assert node.stage_server.sessions == 1
            await later.send(StageClose(passes=0))
