"""Legs of others' tasks on standing orders: what is said of one that is not so is its own error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.peer import Node
from node.serving.order_server import TAKEN_AFTER_S
from node.serving.served_order import PLACES_PER_ORDER
from p2p.score import Offence
from tests.node.asking import FETCH, complete, receipt_of
from tests.node.engines import Counted
from tests.node.network import D, I, S
from tests.serving.test_hostile_orders import Opener, Scene, code_of, opened, raw_bundle, signer_of
from wire import limits
from wire.codec import pack
from wire.errors import Malformed
from wire.kinds import Kind, RefusalCode
from wire.message import Offer, Result
from wire.order import OrderItem, OrderRefusal, Taken, TaskOutcome, Withdraw
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.signing import SigningKey
from wire.task import Task

# Somebody whose task the opener of an order did a leg of, and somebody else.
CLIENT, OTHER = SigningKey(b"c" * 32), SigningKey(b"o" * 32)
FIRST = b"what the first leg gave"
VERSION = limits.LEGS_VERSION


def task_of_client(scene: Scene, tokens: int = 1) -> Signed[Task]:
    return scene.task(FETCH, complete(tokens), key=CLIENT)


def handed_on(
    scene: Scene, tag: int, by: SigningKey | None = None, tokens: int = 1, **changes: Any
) -> OrderItem:
    """The second leg of a client's task, of which `by` did the first."""
    task = task_of_client(scene, tokens)
    first = receipt_of(task, by or scene.asker.key, FIRST)
    fields = {"input": FIRST, "receipts": (first.raw,)} | changes
    return scene.item(tag, task, **fields)


async def test_the_next_leg_of_another_s_task_is_taken_from_who_did_the_one_before(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order(speaks=VERSION) as order:
        items = [handed_on(scene, tag) for tag in range(5)]
        await order.give(*items)
        for tag, outcome in (await order.outcomes(5)).items():
            assert signer_of(outcome) == scene.worker.peers.me
            receipt = open_signed(outcome.receipt or b"", Receipt)
            first = open_signed(items[tag].receipts[0], Receipt)
            assert receipt.record.previous == first.id
            assert receipt.record.stage == 1
            assert outcome.output is not None
            assert not outcome.later
        assert not scene.cost()


async def test_legs_that_do_not_fit_are_refused_by_themselves(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order(speaks=VERSION) as order:
        one = task_of_client(scene)
        first = receipt_of(one, scene.asker.key, FIRST)
        second = receipt_of(
            one,
            scene.asker.key,
            FIRST,
            stage=1,
            role=I,
            operation="complete",
            model=one.record.stages[1].model,
            input=first.record.output,
            previous=first.id,
        )
        forged = bytearray(first.raw)
        forged[-1] ^= 1
        items = {
            # Another asker's task, of which it did nothing, or of which somebody else did the leg.
            1: scene.item(1, task_of_client(scene)),
            2: handed_on(scene, 2, by=OTHER),
            # Its own task, of which somebody else did the leg: its own peer hands it on from there.
            3: scene.item(
                3,
                (own := scene.task(FETCH, complete(1))),
                input=FIRST,
                receipts=(receipt_of(own, OTHER, FIRST).raw,),
            ),
            # Receipts of another task, that do not hold, twice, of every leg, and none at all.
            4: handed_on(scene, 4, receipts=(first.raw,)),
            5: scene.item(5, one, input=FIRST, receipts=(bytes(forged),)),
            6: scene.item(6, one, input=FIRST, receipts=(first.raw, first.raw)),
            7: scene.item(7, one, input=FIRST, receipts=(first.raw, second.raw)),
            8: handed_on(scene, 8, receipts=(b"\xc1",)),
            # An input that is not what the leg before gave.
            9: handed_on(scene, 9, input=b"something else"),
            # A leg of a role that is not played here.
            10: scene.item(10, scene.task(FETCH, complete(1)), input=None),
            11: handed_on(scene, 11),
        }
        await order.give(*items.values())
        found = await order.outcomes(len(items))
        codes = {tag: code_of(it).name for tag, it in found.items() if tag != 11}
        assert codes == {
            **dict.fromkeys((1, 2, 3, 10), "NOT_WILLING"),
            **dict.fromkeys((4, 5, 6, 7, 8, 9), "MALFORMED"),
        }
        assert signer_of(found[11]) == scene.worker.peers.me
        assert 6 * Offence.MALFORMED - 1 < scene.cost() < 6 * Offence.MALFORMED + 1


async def test_who_said_an_older_version_is_sent_nothing_that_it_cannot_read(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene:
        for speaks in (0, VERSION - 1):
            async with scene.order(speaks=speaks) as order:
                await order.give(handed_on(scene, 1), scene.item(2))
                found = await order.outcomes(2)
                assert code_of(found[1]) is RefusalCode.UNSUPPORTED
                assert signer_of(found[2]) == scene.worker.peers.me
        assert not scene.cost()


async def test_one_leg_twice_is_done_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with opened(tmp_path) as scene, scene.order(speaks=VERSION) as order:
        engine = scene.worker.dependencies.engine
        assert isinstance(engine, Counted)
        item, before = handed_on(scene, 1), engine.calls
        again = OrderItem(**{**{it: getattr(item, it) for it in FIELDS}, "tag": 2})
        await order.give(item, again)
        found = await order.outcomes(2)
        assert found[1].receipt == found[2].receipt is not None
        # And by a conversation of its own it is the same leg.
        async with scene.asker.peers.call(scene.worker.peers.me, deadline_s=30) as call:
            await call.send(
                Offer(
                    task=item.task,
                    stage=1,
                    receipts=item.receipts,
                    input=item.input,
                    deadline_ms=30_000,
                    units=1,
                    resume=None,
                    avoid=(),
                )
            )
            await call.receive()
            result = await call.receive()
        assert isinstance(result, Result)
        assert result.receipts == (*item.receipts, found[1].receipt)
        assert engine.calls == before + 1


FIELDS = tuple(OrderItem.__dataclass_fields__)


@pytest.mark.parametrize(
    "name", ["more receipts than legs before", "a piece of no receipt", "places twice over"]
)
async def test_what_breaks_an_order_of_legs_breaks_it_alone(
    name: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.network.outsider() as honest:
        async with scene.order(speaks=VERSION) as order:
            if name == "places twice over":
                items = [handed_on(scene, it) for it in range(PLACES_PER_ORDER + 1)]
                await order.call.channel.send(raw_bundle(items))
            else:
                fields = handed_on(scene, 1).to_fields()
                odd: list[object] = [b"r"] * limits.STAGES_MAX if "more" in name else [b""]
                await order.call.channel.send(bundle_of(fields | {"receipts": odd}))
            await order.ended()
            assert scene.cost() > Offence.MALFORMED - 1
        async with scene.order(honest, speaks=VERSION) as beside:
            await beside.give(handed_on(scene, 1, by=honest.key))
            assert signer_of((await beside.outcomes(1))[1]) == scene.worker.peers.me
        await trio.sleep(1)
        assert not scene.worker.leg_server.under_way


def bundle_of(*items: dict[str, Any]) -> bytes:
    return pack([int(Kind.BUNDLE), {"items": list(items)}])


async def test_who_withdraws_a_leg_that_waits_has_its_place_back_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, unit_s=1.0) as scene, scene.order(speaks=VERSION) as order:
        began_at_s = trio.current_time()
        await order.give(*[handed_on(scene, tag, tokens=3) for tag in range(6)])
        taken = await order.call.receive()
        assert isinstance(taken, Taken)
        assert trio.current_time() - began_at_s == pytest.approx(TAKEN_AFTER_S, abs=0.02)
        await order.call.send(Withdraw(unwanted=tuple(range(6))))
        found = await order.outcomes(6)
        # One has begun, and is finished.
        assert sum(it.refusal is not None for it in found.values()) == 5
        assert trio.current_time() - began_at_s < 5


@asynccontextmanager
async def beside_a_data_peer(tmp_path: Path) -> AsyncIterator[tuple[Scene, Node]]:
    """A data peer that serves, and the slow one to which it hands on."""
    async with opened(tmp_path) as scene:
        worker, data = scene.worker, await scene.network.start(D, S)
        engine = worker.dependencies.engine
        assert isinstance(engine, Counted)
        engine.unit_s = 1.0
        await scene.network.settled()
        with trio.fail_after(30):
            while scene.asker.peers.view.advert_of(data.peers.me) is None:
                await trio.sleep(0.1)
        scene.worker = data
        yield scene, worker


async def give_four(scene: Scene, order: Opener, worker: Node) -> None:
    """Tasks of two legs; the second ones are under way at `worker`."""
    # They differ in their second leg, or they would be one job.
    tasks = [scene.task(FETCH, complete(2 + it), input=None) for it in range(4)]
    await order.give(*[scene.item(at, it, input=None) for at, it in enumerate(tasks)])
    with trio.fail_after(10):
        while worker.leg_server.under_way < 4:
            await trio.sleep(0.05)


async def test_a_task_of_which_the_next_leg_is_elsewhere_ends_as_it_is_withdrawn(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with beside_a_data_peer(tmp_path) as (scene, worker):
        data = scene.worker
        async with scene.order(speaks=VERSION) as order:
            await give_four(scene, order, worker)
            await order.call.send(Withdraw(unwanted=(1, 2, 3)))
            began_at_s = trio.current_time()
            found = await order.outcomes(3)
            assert trio.current_time() - began_at_s < 1
            assert all(it.refusal is not None for it in found.values())
            await trio.sleep(0.2)
            # There one had begun, and is finished.
            assert data.leg_server.under_way == 1
            assert worker.leg_server.under_way <= 2
            (done,) = (await order.outcomes(1)).values()
            assert_chain(done, data.peers.me, worker.peers.me)
        assert not scene.cost()


def assert_chain(outcome: TaskOutcome, *signers: object) -> None:
    assert outcome.receipt is not None
    receipts = [open_signed(it, Receipt) for it in (outcome.receipt, *outcome.later)]
    assert [it.signer for it in receipts] == [*signers]
    assert receipts[1].record.previous == receipts[0].id


async def test_an_order_that_ends_ends_what_was_handed_on_for_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with beside_a_data_peer(tmp_path) as (scene, worker):
        data = scene.worker
        async with scene.order(speaks=VERSION) as order:
            await give_four(scene, order, worker)
        await trio.sleep(1)
        assert not data.leg_server.under_way
        assert not data.order_server.standing
        # The first had begun, and is finished, in case its asker comes back.
        assert worker.leg_server.under_way <= 1


def test_an_outcome_says_nothing_of_legs_after_one_that_failed() -> None:
    refusal = OrderRefusal(code=RefusalCode.BUSY, reason="full", retry_after_ms=None)
    for more in ({"later": (b"r",)}, {"source": b"s"}):
        with pytest.raises(Malformed):
            TaskOutcome(tag=1, receipt=None, output=None, refusal=refusal, **more)
