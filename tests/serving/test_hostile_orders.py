"""Standing orders of askers that mean ill: what one sends costs its own order and no other."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.peer import Node
from node.serving import served_order
from node.serving.order_server import TAKEN_AFTER_S
from node.serving.served_order import (
    IDLE_S,
    MAKES_ROOM_S,
    ORDERS_PER_ASKER,
    PLACES_BESIDE_OTHERS,
    PLACES_PER_ORDER,
)
from p2p.score import Offence
from p2p.typed_call import TypedCall
from store import Table
from tests.node.asking import EMBED, EMBED_PASSAGES, FETCH, TEXTS, complete, task_of, texts_of
from tests.node.engines import Counted
from tests.node.network import I, Network, Outsider, S, open_network
from wire import limits
from wire.codec import pack, unpack
from wire.compact import BatchRoot, compact
from wire.compact import opened as open_all
from wire.content import PeerId
from wire.errors import Disconnected, RemoteProtocolError, TransportError
from wire.kinds import Kind, Level, RefusalCode
from wire.message import Message, Offer, Refuse, Result, encode
from wire.order import (
    Bundle,
    Close,
    Open,
    Opened,
    OrderItem,
    Outcomes,
    Places,
    Taken,
    TaskOutcome,
    Withdraw,
)
from wire.proof import prove
from wire.receipt import Receipt
from wire.signed import Signed, open_signed, sign_many
from wire.signing import SigningKey
from wire.task import CheckPolicy, Stage, Task
from wire.tree import name_of


@dataclass(slots=True)
class Scene:
    """One peer that serves, and one that opens orders there by hand."""

    network: Network
    worker: Node
    asker: Outsider
    _nonce: int = 0

    def task(self, *stages: Stage, key: SigningKey | None = None, **changes: Any) -> Signed[Task]:
        self._nonce += 1
        nonce = self._nonce.to_bytes(16, "big")
        wall_s = self.asker.peers.environment.wall_s()
        return task_of(key or self.asker.key, wall_s, *stages, **({"nonce": nonce} | changes))

    def item(self, tag: int, signed: Signed[Task] | None = None, **changes: Any) -> OrderItem:
        fields: dict[str, Any] = {
            "tag": tag,
            "task": b"" if "task" in changes else (signed or self.task()).raw,
            "input": TEXTS,
            "deadline_ms": 30_000,
            "units": 3,
        }
        return OrderItem(**(fields | changes))

    def batch(self, count: int) -> list[Signed[Task]]:
        """Tasks of the asker under one signature, which nobody checks."""
        unchecked = CheckPolicy(level=Level.SIGNED, verifiers=0, needed=0, secret_hash=bytes(32))
        records = [self.task(checking=unchecked).record for _ in range(count)]
        return list(sign_many(records, self.asker.key))

    def compact(self, tasks: list[Signed[Task]], signer: PeerId | None = None) -> Bundle:
        """A bundle of tasks as peers send it that know roots."""
        roots, travelling = compact(tasks, signer or self.asker.key.peer)
        items = [
            self.item(at, task=it.data, root=it.root, leaf=it.leaf)
            for at, it in enumerate(travelling)
        ]
        return Bundle(items=tuple(items), roots=roots)

    @asynccontextmanager
    async def order(
        self, there: Outsider | None = None, speaks: int = 0
    ) -> AsyncIterator["Opener"]:
        """An order that stands until it is left, which resets it."""
        peers = (there or self.asker).peers
        left = Disconnected("the test is over")
        try:
            async with peers.call(self.worker.peers.me, deadline_s=300) as call:
                await call.send(Open(wanted=10, speaks=speaks))
                yield Opener(call, (await call.expect(Opened)).places)
                raise left
        except Disconnected as error:
            if error is not left:
                raise

    def cost(self) -> float:
        """What the asker's offences weigh at the peer that serves."""
        return self.worker.peers.scores.cost(self.asker.key.peer, trio.current_time())


@dataclass(slots=True)
class Opener:
    """An order as its asker sees it."""

    call: TypedCall
    places: int
    heard: list[Message] = field(default_factory=list)

    async def give(self, *items: OrderItem) -> None:
        await self.call.send(Bundle(items=items))

    async def outcomes(self, count: int) -> dict[int, TaskOutcome]:
        """The next outcomes, by tag; none comes twice."""
        found: dict[int, TaskOutcome] = {}
        with trio.fail_after(60):
            while len(found) < count:
                message = await self.call.receive()
                self.heard.append(message)
                if isinstance(message, Outcomes):
                    self.places += message.places
                    for it in message.items:
                        assert it.tag not in found
                        found[it.tag] = it
        return found

    async def ended(self) -> None:
        """Wait until the other side has broken the order off."""
        try:
            with trio.fail_after(60):
                while True:
                    self.heard.append(await self.call.receive())
        except (TransportError, RemoteProtocolError):
            return


@asynccontextmanager
async def opened(
    tmp_path: Path, unit_s: float = 0.01, engine: Counted | None = None
) -> AsyncIterator[Scene]:
    async with open_network(tmp_path) as network:
        worker = await network.start(I, S, engine=engine or Counted(unit_s=unit_s))
        await network.settled()
        while not worker.probing.offered():
            await trio.sleep(0.1)
        async with network.outsider() as asker:
            yield Scene(network, worker, asker)


def signer_of(outcome: TaskOutcome) -> PeerId:
    assert outcome.receipt is not None
    return open_signed(outcome.receipt, Receipt).signer


def code_of(outcome: TaskOutcome) -> RefusalCode:
    assert outcome.refusal is not None
    return outcome.refusal.cause


async def test_bad_items_of_a_bundle_are_refused_by_themselves(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        forged = bytearray(scene.task().raw)
        forged[-1] ^= 1
        other = SigningKey(bytes(32))
        late = scene.task(issued_at_ms=0)
        await order.give(
            scene.item(1),
            scene.item(2),
            OrderItem(tag=3, task=bytes(forged), input=TEXTS, deadline_ms=9000, units=1),
            OrderItem(tag=4, task=b"\xc1", input=TEXTS, deadline_ms=9000, units=1),
            scene.item(5, scene.task(key=other)),
            scene.item(6, scene.task(FETCH, EMBED_PASSAGES, input=None)),
            scene.item(7, input=b"not what the task names"),
            scene.item(8, late),
            scene.item(9, deadline_ms=1),
        )
        found = await order.outcomes(9)
        assert signer_of(found[1]) == signer_of(found[2]) == scene.worker.peers.me
        assert [code_of(found[tag]).name for tag in range(3, 10)] == [
            *("MALFORMED", "MALFORMED", "NOT_WILLING", "UNSUPPORTED", "MALFORMED"),
            *("LATE", "TOO_LONG"),
        ]
        # Three of them were no tasks at all, and that is the asker's own.
        assert 3 * Offence.MALFORMED - 1 < scene.cost() < 3 * Offence.MALFORMED + 1


async def test_one_task_twice_is_done_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        engine = scene.worker.dependencies.engine
        assert isinstance(engine, Counted)
        task, before = scene.task(), engine.calls
        await order.give(scene.item(1, task), scene.item(2, task))
        found = await order.outcomes(2)
        assert found[1].receipt == found[2].receipt is not None
        await order.give(scene.item(3, task))
        assert (await order.outcomes(1))[3].receipt == found[1].receipt
        assert engine.calls == before + 1


def raw_bundle(items: list[OrderItem]) -> bytes:
    """A bundle's bytes without the rules that hold where one is born."""
    return pack([int(Kind.BUNDLE), {"items": [it.to_fields() for it in items]}])


@pytest.mark.parametrize("speaks", [0, limits.KEEPS_VERSION, limits.BUNDLES_VERSION, 99])
async def test_an_asker_is_told_in_the_form_that_it_reads(
    speaks: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, unit_s=0.0) as scene, scene.order(speaks=speaks) as order:
        tasks = scene.batch(5)
        # What is sent is read in either form.
        if speaks >= limits.BUNDLES_VERSION:
            await order.call.send(scene.compact(tasks))
        else:
            await order.give(*[scene.item(at, it) for at, it in enumerate(tasks)])
        found = await order.outcomes(5)
        told = [it for it in order.heard if isinstance(it, Outcomes)]
        together = [it for it in found.values() if it.root]
        if speaks < limits.BUNDLES_VERSION:
            assert not together
            assert not any(it.roots for it in told)
            assert {signer_of(it) for it in found.values()} == {scene.worker.peers.me}
            return
        assert len(together) == 5
        receipts = {
            it.record.task: it
            for message in told
            for it in open_all(message.roots, message.travelling, Receipt, scene.worker.peers.me)
            if isinstance(it, Signed)
        }
        assert receipts.keys() == {it.id for it in tasks}
        # What was kept there are the very bytes that are built here.
        for task in tasks:
            kept = scene.worker.dependencies.store.read(Table.RECEIPTS, task.id.digest + b"\0")
            assert kept == receipts[task.id].raw
        assert not scene.cost()


async def test_a_body_that_is_no_task_is_refused_by_itself(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order(speaks=5) as order:
        bodies = [scene.task().record.to_bytes(), b"\xc1", scene.task().record.to_bytes()]
        proofs = prove([("task", it) for it in bodies], scene.asker.key)
        items = [scene.item(at, task=it, root=1, leaf=at) for at, it in enumerate(bodies)]
        root = BatchRoot(signature=proofs[0][:64], count=3, beside=b"")
        await order.call.send(Bundle(items=tuple(items), roots=(root,)))
        found = await order.outcomes(3)
        assert code_of(found[1]) is RefusalCode.MALFORMED
        assert [it.refusal is None for it in (found[0], found[2])] == [True, True]
        assert Offence.MALFORMED - 1 < scene.cost() < Offence.MALFORMED + 1


def altered_root(scene: Scene, **changes: Any) -> bytes:
    """The bytes of a bundle of three tasks under one root, with another root."""
    fields = scene.compact(scene.batch(3)).to_fields()
    if changes.pop("items", None) is not None:
        fields["items"] = [scene.item(7).to_fields()]
    fields["roots"][0] |= changes
    return pack([int(Kind.BUNDLE), fields])


def altered_item(scene: Scene, **changes: Any) -> bytes:
    """The bytes of a bundle of three tasks under one root, the last of them at another place."""
    fields = scene.compact(scene.batch(3)).to_fields()
    fields["items"][2] |= changes
    return pack([int(Kind.BUNDLE), fields])


def another_s_root(scene: Scene) -> bytes:
    other = SigningKey(bytes(32))
    tasks = sign_many([scene.task(key=other).record for _ in range(3)], other)
    return encode(scene.compact(list(tasks), other.peer))


BREAKING: dict[str, Callable[[Scene], bytes]] = {
    "ten thousand items": lambda _: raw_bundle(
        [OrderItem(tag=it, task=b"t", input=None, deadline_ms=1, units=1) for it in range(10_000)]
    ),
    "more items than a bundle may have": lambda scene: raw_bundle(
        [scene.item(it) for it in range(limits.BUNDLE_ITEMS_MAX + 1)]
    ),
    "one tag twice": lambda scene: raw_bundle([scene.item(1), scene.item(1)]),
    "no items": lambda _: raw_bundle([]),
    "more items than places": lambda scene: raw_bundle(
        [scene.item(it) for it in range(PLACES_PER_ORDER + 1)]
    ),
    "the answerer's words": lambda _: pack([int(Kind.TAKEN), {"tags": [1]}]),
    "a second opening": lambda _: pack([int(Kind.OPEN), {"wanted": 3}]),
    "the end before the end": lambda _: pack([int(Kind.CLOSE), {"tasks": 7}]),
    "nothing that can be read": lambda _: b"\xc1",
    "a root that does not hold": lambda scene: altered_root(scene, signature=bytes(64)),
    "a root of more than there are": lambda scene: altered_root(scene, count=4),
    "hashes of a root too many": lambda scene: altered_root(scene, beside=bytes(32)),
    "a root signed for another purpose": lambda scene: altered_root(
        scene, signature=prove([("receipt", b"a"), ("receipt", b"b")], scene.asker.key)[0][:64]
    ),
    "a root of nobody": lambda scene: altered_root(scene, count=0),
    "a root of one": lambda scene: altered_root(scene, count=1),
    "a root of 4,097": lambda scene: altered_root(scene, count=limits.BATCH_RECORDS_MAX + 1),
    "a leaf that no root has": lambda scene: altered_item(scene, leaf=3),
    "a leaf twice": lambda scene: altered_item(scene, leaf=1),
    "a root that is not there": lambda scene: altered_item(scene, root=2),
    "a root of nothing that is there": lambda scene: altered_root(scene, items=[]),
    "another asker's root": another_s_root,
}


@pytest.mark.parametrize("name", BREAKING)
async def test_what_breaks_an_order_breaks_it_alone(
    name: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        opened(tmp_path) as scene,
        scene.network.outsider() as honest,
        scene.order(honest) as beside,
    ):
        async with scene.order() as order:
            await order.call.channel.send(BREAKING[name](scene))
            await order.ended()
            assert scene.cost() > Offence.MALFORMED - 1
        await beside.give(scene.item(1, task_of(honest.key, honest.peers.environment.wall_s())))
        assert signer_of((await beside.outcomes(1))[1]) == scene.worker.peers.me
        await trio.sleep(1)
        assert scene.worker.order_server.standing == 1
        assert scene.worker.leg_server.under_way == 0


async def test_a_tag_in_use_is_given_to_no_other_task(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, unit_s=1.0) as scene, scene.order() as order:
        await order.give(scene.item(1))
        await order.give(scene.item(1))
        await order.ended()


async def test_places_bound_what_an_asker_has_here_and_come_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        assert order.places == PLACES_PER_ORDER
        tags = iter(range(10_000))
        for _ in range(3):
            given = [scene.item(next(tags)) for _ in range(PLACES_PER_ORDER)]
            await order.give(*given)
            order.places -= len(given)
            found = await order.outcomes(len(given))
            assert {signer_of(it) for it in found.values()} == {scene.worker.peers.me}
            assert order.places == PLACES_PER_ORDER
        await order.call.send(Close(tasks=3 * PLACES_PER_ORDER))
        with trio.fail_after(5):
            while scene.worker.order_server.standing:
                await trio.sleep(0.01)
        assert not scene.cost()


async def test_orders_share_the_places(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with opened(tmp_path) as scene, scene.network.outsider() as other, scene.order() as first:
        async with scene.order(other) as second:
            assert second.places == PLACES_BESIDE_OTHERS
            # What the first one has is not taken from it, but comes back only up to its share.
            await first.give(*[scene.item(it) for it in range(PLACES_PER_ORDER)])
            first.places -= PLACES_PER_ORDER
            await first.outcomes(PLACES_PER_ORDER)
            assert first.places == PLACES_BESIDE_OTHERS
        more = await first.call.receive()
        assert isinstance(more, Places)
        assert first.places + more.more == PLACES_PER_ORDER


async def test_so_many_orders_of_one_asker_and_no_more(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order(), scene.order():
        assert scene.worker.order_server.standing == ORDERS_PER_ASKER
        async with scene.asker.peers.call(scene.worker.peers.me, deadline_s=30) as call:
            await call.send(Open(wanted=1))
            refused = await call.receive()
            assert isinstance(refused, Refuse)
            assert refused.retry_after_ms is not None


async def test_an_order_without_a_task_is_ended(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        began_at_s = trio.current_time()
        assert isinstance(await order.call.receive(), Refuse)
        assert trio.current_time() - began_at_s == pytest.approx(IDLE_S, abs=1)
        await trio.sleep(0.1)
        assert not scene.worker.order_server.standing


async def test_what_is_no_task_keeps_no_order_open(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        began_at_s = trio.current_time()

        async def withdraw() -> None:
            while True:
                await order.call.send(Withdraw(unwanted=(7,)))
                await trio.sleep(IDLE_S / 3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(withdraw)
            assert isinstance(await order.call.receive(), Refuse)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began_at_s == pytest.approx(IDLE_S, abs=1)


async def test_orders_without_a_task_make_room_where_there_is_none(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_order, "ORDERS_MAX", 2)
    async with (
        opened(tmp_path) as scene,
        scene.network.outsider() as other,
        scene.order() as first,
        scene.order() as second,
    ):
        async with other.peers.call(scene.worker.peers.me, deadline_s=30) as call:
            await call.send(Open(wanted=1))
            assert isinstance(await call.receive(), Refuse)
        await trio.sleep(MAKES_ROOM_S - 2)
        await second.give(scene.item(1))
        await second.outcomes(1)
        await trio.sleep(2)
        async with scene.order(other):
            refused = await first.call.receive()
            assert isinstance(refused, Refuse)
            assert "others want" in refused.reason
            assert scene.worker.order_server.standing == 2


async def test_a_task_that_takes_long_is_said_to_be_taken_and_one_that_is_withdrawn_ends(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, unit_s=1.0) as scene, scene.order() as order:
        began_at_s = trio.current_time()
        other = texts_of("four", "five", "six")
        await order.give(
            scene.item(1), scene.item(2, scene.task(source=name_of(other)), input=other)
        )
        taken = await order.call.receive()
        assert isinstance(taken, Taken)
        assert taken.tags == (1, 2)
        assert trio.current_time() - began_at_s == pytest.approx(TAKEN_AFTER_S, abs=0.02)
        # One waits for the engine, and gives its turn up; the other has begun, and is finished.
        await order.call.send(Withdraw(unwanted=(1, 2, 99)))
        found = await order.outcomes(2)
        assert sum(it.refusal is None for it in found.values()) == 1
        assert trio.current_time() - began_at_s < 3.5


async def test_who_hangs_up_keeps_the_engine_from_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, unit_s=1.0) as scene:
        stage = complete(10)
        async with scene.order() as order:
            items = [
                scene.item(
                    it,
                    scene.task(stage, source=name_of(b"%d" % it), deadline_s=600),
                    input=b"%d" % it,
                    deadline_ms=600_000,
                )
                for it in range(20)
            ]
            await order.give(*items)
            await trio.sleep(3)
            assert scene.worker.leg_server.under_way == 20
        # The first has begun and is finished, in case its asker comes back.
        await trio.sleep(1)
        assert scene.worker.leg_server.under_way == 1
        await trio.sleep(10)
        assert scene.worker.leg_server.under_way == 0
        assert not scene.worker.order_server.standing


async def test_who_takes_no_outcomes_holds_up_nobody_else(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        opened(tmp_path) as scene,
        scene.network.outsider() as honest,
        scene.order() as deaf,
        scene.order(honest) as beside,
    ):
        await deaf.give(*[scene.item(it) for it in range(10)])
        for tag in range(5):
            wall_s = honest.peers.environment.wall_s()
            await beside.give(scene.item(tag, task_of(honest.key, wall_s, nonce=bytes([tag] * 16))))
            assert signer_of((await beside.outcomes(1))[tag]) == scene.worker.peers.me


async def test_a_banned_asker_s_order_ends_with_its_next_task(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        await order.give(scene.item(1))
        await order.outcomes(1)
        while scene.worker.peers.standing(scene.asker.key.peer).name != "BANNED":
            scene.worker.peers.offended(scene.asker.key.peer, Offence.WRONG_ANSWER)
        await order.give(scene.item(2))
        message = await order.call.receive()
        assert isinstance(message, Refuse)
        assert message.cause is RefusalCode.BANNED


async def test_a_peer_that_leaves_opens_no_order(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.worker.leg_server.taking = False
        async with scene.asker.peers.call(scene.worker.peers.me, deadline_s=30) as call:
            await call.send(Open(wanted=1))
            refused = await call.receive()
        assert isinstance(refused, Refuse)
        assert refused.cause is RefusalCode.LEAVING


async def test_a_leg_by_an_order_and_by_a_conversation_is_one_leg(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, unit_s=0.1) as scene, scene.order() as order:
        task = scene.task(EMBED)
        await order.give(scene.item(1, task))
        async with scene.asker.peers.call(scene.worker.peers.me, deadline_s=30) as call:
            await call.send(
                Offer(
                    task=task.raw,
                    stage=0,
                    receipts=(),
                    input=TEXTS,
                    deadline_ms=30_000,
                    units=3,
                    resume=None,
                    avoid=(),
                )
            )
            await call.receive()
            result = await call.receive()
        assert isinstance(result, Result)
        assert result.receipts == ((await order.outcomes(1))[1].receipt,)
        assert unpack(result.receipts[0])[0] == int(Kind.RECEIPT)
