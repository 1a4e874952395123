"""Peers that mean ill with the orders that they open: each hurts its own order and no task."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.dispatch.handoff import Handoff
from node.dispatch.offer import offer_leg
from node.dispatch.order import TAKEN, UNHEARD_BYTES_MAX, Order, OrderedTask, OrderOutcome
from node.dispatch.orders import Orders
from node.dispatch.standing_order import ACCEPT_DEADLINE_S, IDLE_S
from node.engines.interface import Part
from node.peer import Node
from node.task.events import Event, Offered
from p2p.score import Offence
from p2p.typed_call import TypedCall
from tests.node.asking import (
    EMBED_PASSAGES,
    FETCH,
    TEXTS,
    VECTORS,
    complete,
    receipt_of,
    task_of,
)
from tests.node.network import I, Outsider, S, open_network
from wire import limits
from wire.compact import compact
from wire.errors import BatonError, Disconnected, Malformed, Refused, RemoteProtocolError
from wire.kinds import RefusalCode
from wire.message import Message, Refuse
from wire.order import (
    Bundle,
    Close,
    Open,
    Opened,
    OrderItem,
    OrderPiece,
    OrderRefusal,
    Outcomes,
    Places,
    Taken,
    TaskOutcome,
    Withdraw,
)
from wire.receipt import Receipt
from wire.signed import Signed, open_signed, sign_many
from wire.signing import SigningKey
from wire.task import Stage, Task

Script = Callable[["Serving"], Awaitable[None]]
# What goes from the first leg to the second, and who does that one.
BETWEEN, NEXT = b"what the first leg gave", SigningKey(b"n" * 32)
ONE_LEG, TWO_LEGS = (), (FETCH, EMBED_PASSAGES)
each_way = pytest.mark.parametrize("stages", [ONE_LEG, TWO_LEGS], ids=["one leg", "two legs"])


def next_receipt(
    task: Signed[Task], first: Signed[Receipt], output: bytes, **changes: object
) -> Signed[Receipt]:
    """The receipt of a task's second leg, after the first one's."""
    stage = task.record.stages[1]
    fields = {
        "stage": 1,
        "role": stage.role,
        "operation": stage.operation,
        "model": stage.model,
        "input": first.record.output,
        "previous": first.id,
    }
    return receipt_of(task, NEXT, output, **(fields | changes))


@dataclass(slots=True)
class Serving:
    """An order as the peer sees it that serves it by a script."""

    call: TypedCall
    there: Outsider
    items: list[OrderItem] = field(default_factory=list)

    async def take(self, count: int) -> None:
        """Wait until so many tasks came."""
        while len(self.items) < count:
            message = await self.call.receive()
            if isinstance(message, Bundle):
                self.items += message.items

    def done(self, item: OrderItem, output: bytes = VECTORS, **changes: object) -> TaskOutcome:
        task = open_signed(item.task, Task)
        stages = task.record.stages
        if len(stages) == 1:
            receipt = receipt_of(task, self.there.key, output, **changes)
            return TaskOutcome(tag=item.tag, receipt=receipt.raw, output=VECTORS, refusal=None)
        first = receipt_of(task, self.there.key, BETWEEN)
        second = next_receipt(task, first, output, **changes)
        return TaskOutcome(
            tag=item.tag,
            receipt=first.raw,
            output=VECTORS,
            refusal=None,
            later=(second.raw,),
            source=BETWEEN,
        )

    async def tell(self, *outcomes: TaskOutcome, places: int = 0) -> None:
        await self.call.send(Outcomes(items=outcomes, pieces=(), places=places))


@dataclass(slots=True)
class Scene:
    asker: Node
    there: Outsider
    scripts: list[Script]
    opened: int = 0
    results: list[object] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def orders(self) -> Orders:
        found = self.asker.tasks.dispatcher.directory.orders
        assert found is not None
        return found

    async def leg(self, number: int, *stages: Stage, deadline_s: float = 30) -> None:
        """Have one leg done there by the order; keeps the result or the error."""
        key, wall_s = self.asker.peers.key, self.asker.peers.environment.wall_s()
        task = task_of(key, wall_s, *stages, nonce=number.to_bytes(16, "big"))
        handoff = Handoff(task=task, input=TEXTS, units=3)

        async def take(part: Part) -> None:
            if part.position + part.units > 3:
                raise RemoteProtocolError("a piece beyond the units of the leg")

        with trio.move_on_after(deadline_s) as scope:
            try:
                found: object = await offer_leg(
                    self.asker.tasks.dispatcher.directory,
                    handoff,
                    self.there.peers.me,
                    self.events.append,
                    take,
                    trio.current_time() + deadline_s,
                )
            except BatonError as error:
                found = error
            self.results.append(found)
        if scope.cancelled_caught:
            self.results.append("given up")

    async def legs(self, count: int, *stages: Stage, deadline_s: float = 30) -> list[object]:
        """So many legs at once, on an order that stands before."""
        await self.stand()
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(lambda at=number: self.leg(at, *stages, deadline_s=deadline_s))
        return self.results

    async def stand(self) -> Order:
        peer = self.there.peers.me
        order = self.orders._open(peer)
        await order.settled.wait()
        return order

    def cost(self) -> float:
        return self.asker.peers.scores.cost(self.there.key.peer, trio.current_time())


@asynccontextmanager
async def served_by(tmp_path: Path, *scripts: Script, places: int = 8) -> AsyncIterator[Scene]:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        async with network.outsider(I) as there:
            scene = Scene(asker, there, list(scripts))

            async def serve(call: TypedCall, message: Message) -> None:
                await call.send(Opened(places=places))
                script = scene.scripts[min(scene.opened, len(scene.scripts) - 1)]
                scene.opened += 1
                await script(Serving(call, there))

            there.answer(Open, serve)
            yield scene


def delivered(results: list[object]) -> int:
    return sum(not isinstance(it, BatonError) and it != "given up" for it in results)


@each_way
async def test_an_honest_peer_s_order(
    stages: tuple[Stage, ...], autojump_clock: MockClock, tmp_path: Path
) -> None:
    closed: list[int] = []

    async def honest(serving: Serving) -> None:
        await serving.take(3)
        await serving.call.send(Taken(tags=tuple(it.tag for it in serving.items)))
        await serving.tell(*[serving.done(it) for it in reversed(serving.items)], places=3)
        message = await serving.call.receive()
        assert isinstance(message, Close)
        closed.append(message.tasks)

    async with served_by(tmp_path, honest) as scene:
        assert delivered(await scene.legs(3, *stages)) == 3
        assert sum(isinstance(it, Offered) for it in scene.events) == 3
        await trio.sleep(2 * IDLE_S)
        assert closed == [3]
        assert not scene.orders.standing
        assert not scene.cost()


async def never_given(serving: Serving) -> None:
    await serving.take(3)
    outcome = serving.done(serving.items[0])
    await serving.tell(TaskOutcome(tag=77, receipt=outcome.receipt, output=None, refusal=None))
    await trio.sleep_forever()


async def given_twice(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    await serving.tell(serving.done(serving.items[0]))
    await trio.sleep_forever()


async def a_piece_after_the_end(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    piece = OrderPiece(tag=serving.items[0].tag, position=0, units=1, data=b"x")
    await serving.call.send(Outcomes(items=(), pieces=(piece,), places=0))
    await trio.sleep_forever()


async def taken_that_never_was(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    await serving.call.send(Taken(tags=(5,)))
    await trio.sleep_forever()


async def credit_that_overflows(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    for _ in range(2):
        await serving.call.send(Places(more=limits.ORDER_PLACES_MAX // 2))
    await trio.sleep_forever()


async def bytes_that_are_no_message(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    await serving.call.channel.send(b"\xc1")
    await trio.sleep_forever()


async def credit_that_goes_back(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    # 46 is PLACES: a number below zero, as the codec writes it.
    await serving.call.channel.send(b"\x92\x2e\x81\xa4more\xff")
    await trio.sleep_forever()


async def a_root_that_does_not_hold(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    others = [serving.done(it) for it in serving.items[1:]]
    records = [open_signed(it.receipt or b"", Receipt).record for it in others]
    roots, travelling = compact(sign_many(records, serving.there.key), serving.there.key.peer)
    told = [
        replace(it, receipt=one.data, root=one.root, leaf=one.leaf)
        for it, one in zip(others, travelling, strict=True)
    ]
    root = replace(roots[0], signature=bytes(64))
    await serving.call.send(Outcomes(items=tuple(told), pieces=(), places=0, roots=(root,)))
    await trio.sleep_forever()


async def hanging_up(serving: Serving) -> None:
    await serving.take(3)
    await serving.tell(serving.done(serving.items[0]))
    raise Disconnected("it is gone")


@pytest.mark.parametrize(
    ("script", "done"),
    [
        (never_given, 0),
        (given_twice, 1),
        (a_piece_after_the_end, 1),
        (taken_that_never_was, 1),
        (credit_that_overflows, 1),
        (credit_that_goes_back, 1),
        (a_root_that_does_not_hold, 1),
        (bytes_that_are_no_message, 1),
        (hanging_up, 1),
    ],
)
@each_way
async def test_an_order_that_breaks_gives_its_tasks_back(
    stages: tuple[Stage, ...],
    script: Script,
    done: int,
    autojump_clock: MockClock,
    tmp_path: Path,
) -> None:
    async with served_by(tmp_path, script) as scene:
        began_at_s = trio.current_time()
        results = await scene.legs(3, *stages)
        assert delivered(results) == done
        assert sum(isinstance(it, Disconnected) for it in results) == 3 - done
        assert trio.current_time() - began_at_s < 1
        assert not scene.orders.standing
        if script is not hanging_up:
            # It is counted once, not once for each task.
            assert Offence.MALFORMED - 1 < scene.cost() < Offence.MALFORMED + 1


async def test_a_refusal_ends_the_order_with_its_code(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def refusing(serving: Serving) -> None:
        await serving.take(3)
        await serving.call.send(
            Refuse(code=RefusalCode.BANNED, reason="you are banned", retry_after_ms=None)
        )

    async with served_by(tmp_path, refusing) as scene:
        for it in await scene.legs(3):
            assert isinstance(it, Refused)
            assert it.code is RefusalCode.BANNED
        assert not scene.cost()


async def test_what_does_not_fit_is_the_error_of_its_task(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def some(serving: Serving) -> None:
        await serving.take(5)
        one, two, three, four, five = serving.items
        refusal = OrderRefusal(code=RefusalCode.BUSY, reason="full", retry_after_ms=700)
        await serving.tell(
            serving.done(one),
            serving.done(two, units=3, output=b"another"),
            TaskOutcome(tag=three.tag, receipt=b"\xc1", output=None, refusal=None),
            TaskOutcome(tag=four.tag, receipt=serving.done(one).receipt, output=None, refusal=None),
            TaskOutcome(tag=five.tag, receipt=None, output=None, refusal=refusal),
            places=5,
        )
        await serving.take(6)
        await serving.tell(serving.done(serving.items[5]))
        await trio.sleep_forever()

    async with served_by(tmp_path, some) as scene:
        results = await scene.legs(5)
        assert delivered(results) == 1
        assert sum(isinstance(it, Malformed) for it in results) == 3
        (refused,) = [it for it in results if isinstance(it, Refused)]
        assert refused.retry_after_s == 0.7
        assert 3 * Offence.MALFORMED - 1 < scene.cost() < 3 * Offence.MALFORMED + 1
        await scene.leg(6)
        assert delivered(results) == 2
        assert scene.opened == 1


async def test_legs_that_do_not_fit_are_the_error_of_their_task(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def some(serving: Serving) -> None:
        await serving.take(9)
        fits = [serving.done(it) for it in serving.items]
        key = serving.there.key
        task = open_signed(serving.items[7].task, Task)
        mine = receipt_of(task, key, BETWEEN)
        told = [
            fits[0],
            # Not every leg, and one too many.
            replace(fits[1], later=()),
            replace(fits[2], later=fits[2].later * 2),
            # A leg of another task, no receipt, and a first leg that another peer signed.
            replace(fits[3], later=fits[0].later),
            replace(fits[4], later=(b"\xc1",)),
            replace(fits[5], receipt=receipt_of(task_in(serving, 5), NEXT, BETWEEN).raw),
            # Another output, another input of the last leg, and a link to another receipt.
            replace(fits[6], output=b"another"),
            replace(fits[7], receipt=mine.raw, source=b"another"),
            replace(
                fits[8],
                later=(next_receipt(task_in(serving, 8), mine, VECTORS, previous=mine.id).raw,),
            ),
        ]
        await serving.tell(*told, places=9)
        await serving.take(10)
        await serving.tell(serving.done(serving.items[9]))
        await trio.sleep_forever()

    async with served_by(tmp_path, some, places=12) as scene:
        results = await scene.legs(9, *TWO_LEGS)
        assert delivered(results) == 1
        assert sum(isinstance(it, Malformed) for it in results) == 8
        assert 8 * Offence.MALFORMED - 1 < scene.cost() < 8 * Offence.MALFORMED + 1
        # The order stands, and what comes next is done by it.
        await scene.leg(10, *TWO_LEGS)
        assert delivered(results) == 2
        assert scene.opened == 1


def task_in(serving: Serving, at: int) -> Signed[Task]:
    return open_signed(serving.items[at].task, Task)


async def test_pieces_beyond_a_task_are_its_own_error(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def flooding(serving: Serving) -> None:
        await serving.take(2)
        first, second = serving.items
        pieces = tuple(
            OrderPiece(tag=first.tag, position=at, units=1, data=b"x" * 9999) for at in range(9)
        )
        await serving.call.send(Outcomes(items=(), pieces=pieces, places=0))
        await serving.tell(serving.done(second))
        await trio.sleep_forever()

    async with served_by(tmp_path, flooding) as scene:
        results = await scene.legs(2, complete(3))
        assert sum(isinstance(it, RemoteProtocolError) for it in results) == 1
        assert delivered(results) == 1


@each_way
async def test_who_takes_all_places_and_says_nothing_is_left_soon(
    stages: tuple[Stage, ...], autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def silent(serving: Serving) -> None:
        await serving.take(99)

    async with served_by(tmp_path, silent) as scene:
        began_at_s = trio.current_time()
        results = await scene.legs(12, *stages)
        # Eight were sent and four waited for a place.
        assert sum(isinstance(it, Refused) for it in results) == 12
        assert {it.code for it in results if isinstance(it, Refused)} == {
            RefusalCode.FAILED,
            RefusalCode.BUSY,
        }
        assert trio.current_time() - began_at_s < ACCEPT_DEADLINE_S + 3
        assert Offence.SLOW - 1 < scene.cost() < Offence.SLOW + 1
        await trio.sleep(5 * IDLE_S)
        # The order is not kept: the next one is another.
        assert not scene.orders.standing
        assert not scene.asker.tasks.dispatcher.directory.under_way


@each_way
async def test_who_takes_all_places_and_answers_nothing_keeps_no_order(
    stages: tuple[Stage, ...], autojump_clock: MockClock, tmp_path: Path
) -> None:
    withdrawn: list[int] = []

    async def holding(serving: Serving) -> None:
        await serving.take(6)
        await serving.call.send(Taken(tags=tuple(it.tag for it in serving.items)))
        while True:
            message = await serving.call.receive()
            if isinstance(message, Withdraw):
                withdrawn.extend(message.unwanted)

    async with served_by(tmp_path, holding) as scene:
        await scene.stand()
        async with trio.open_nursery() as nursery:
            for number in range(6):
                # They are given up one after the other.
                nursery.start_soon(lambda at=number: scene.leg(at, *stages, deadline_s=20 + at))
        assert scene.results == ["given up"] * 6
        await trio.sleep(5 * IDLE_S)
        assert not scene.orders.standing
        # Each is withdrawn once.
        assert sorted(withdrawn) == list(range(6))


async def test_a_flush_ends_though_tasks_never_stop(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    bundles: list[int] = []

    async def honest(serving: Serving) -> None:
        while True:
            before = len(serving.items)
            await serving.take(before + 1)
            new = serving.items[before:]
            bundles.append(len(new))
            await serving.tell(*[serving.done(it) for it in new], places=len(new))

    async with served_by(tmp_path, honest, places=300) as scene:
        order = await scene.stand()
        async with trio.open_nursery() as nursery:
            for number in range(200):
                # One more in each pass of the loop, and none of them waits for another.
                nursery.start_soon(scene.leg, number)
                await trio.lowlevel.checkpoint()
        assert delivered(scene.results) == 200
        assert 1 < len(bundles) < 200
        assert order.sent == 200


async def test_many_large_tasks_are_cut_into_messages(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def honest(serving: Serving) -> None:
        while True:
            before = len(serving.items)
            await serving.take(before + 1)
            for it in serving.items[before:]:
                await serving.tell(serving.done(it), places=1)

    async with served_by(tmp_path, honest, places=50) as scene:
        order = await scene.stand()
        key, wall_s = scene.asker.peers.key, scene.asker.peers.environment.wall_s()
        tasks = [
            order.put(
                Handoff(
                    task=task_of(key, wall_s, nonce=number.to_bytes(16, "big")),
                    input=b"x" * limits.INLINE_BYTES_MAX,
                ),
                trio.current_time() + 30,
            )
            for number in range(30)
        ]
        for task in tasks:
            assert isinstance(await task.hear(), OrderOutcome)
            order.leave(task)
        assert order.bundles >= 15


async def test_a_peer_that_never_opens_gets_conversations(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with served_by(tmp_path, never_given) as scene:

        async def silent(call: TypedCall, message: Message) -> None:
            await trio.sleep_forever()

        scene.there.answer(Open, silent)
        order = scene.orders._open(scene.there.peers.me)
        began_at_s = trio.current_time()
        await scene.leg(1)
        # It was offered by itself, and refused there, since no handler takes an offer.
        (refused,) = scene.results
        assert isinstance(refused, Refused)
        assert trio.current_time() - began_at_s < 2
        await order.settled.wait()
        assert not order.stands
        assert not scene.orders._may_open(scene.there.peers.me)


async def test_what_nobody_hears_of_a_stream_is_bounded(autojump_clock: MockClock) -> None:
    signed = task_of(SigningKey(bytes(31) + b"\1"), 0.0, complete(1000))
    ordered = OrderedTask(Handoff(task=signed, receipts=(), input=b"x", units=1), 10.0, 0.0)
    for _ in range(100):
        ordered.told(TAKEN)
    assert await ordered.hear() is TAKEN
    with trio.move_on_after(1) as nothing_more:
        await ordered.hear()
    assert nothing_more.cancelled_caught
    piece = OrderPiece(tag=0, position=0, units=1, data=bytes(limits.INLINE_BYTES_MAX))
    count = 2 * UNHEARD_BYTES_MAX // limits.INLINE_BYTES_MAX
    for _ in range(count):
        # Who hears in time is told everything.
        ordered.told(piece)
        assert await ordered.hear() == piece
    for _ in range(count):
        ordered.told(piece)
    with pytest.raises(Refused, match="more was streamed"):
        await ordered.hear()
