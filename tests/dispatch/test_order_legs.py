"""Tasks of several legs on standing orders: each goes on from peer to peer as it would alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.dispatch.orders import Orders
from node.dispatch.standing_order import IDLE_S
from node.peer import Node
from node.serving.sources import Sources
from node.task.events import Restarted, Streamed
from tests.dispatch.test_orders import all_asked, watched_order
from tests.node.asking import (
    EMBED_PASSAGES,
    asked,
    complete,
    nothing_left,
    request,
    signers,
    vectors_of,
)
from tests.node.engines import Counted
from tests.node.network import D, I, S, V, open_network
from wire import limits
from wire.errors import BatonError
from wire.kinds import Level, Role
from wire.message import Message, Offer
from wire.order import Bundle, Open, Outcomes
from wire.receipt import Receipt
from wire.signed import open_signed
from wire.task import Stage


class Words:
    """A source for every name: a passage that says it."""

    def names(self) -> tuple[str, ...]:
        return ("words:none",)

    async def look(self) -> None:
        pass

    async def fetch(self, name: str) -> str:
        return f"what is {name}"


WORDS = Sources({"words": Words()})


def fetch(name: object) -> Stage:
    parameters = {"source": f"words:{name}"}
    return Stage(role=Role.DATA, operation="fetch", model=None, parameters=parameters)


def legs(name: object, *stages: Stage, **terms: object) -> TaskRequest:
    """The passages of a source, embedded, unless other stages follow."""
    fields = {"level": Level.SIGNED, "deadline_s": 60} | terms
    return request(fetch(name), *(stages or (EMBED_PASSAGES,)), data=None, **fields)


def orders_of(node: Node) -> Orders:
    found = node.tasks.dispatcher.directory.orders
    assert found is not None
    return found


def answer_of(name: object) -> bytes:
    return vectors_of(f"what is words:{name}")


def check_answers(found: Sequence[Answered | BatonError], *chain: Node) -> None:
    """Every one is what it has to be, and every leg is signed by the peers of `chain`."""
    for number, answered in enumerate(found):
        assert isinstance(answered, Answered), answered
        assert answered.output == answer_of(number)
        if chain:
            assert signers(answered) == [it.peers.me for it in chain]
        first, second = (open_signed(it, Receipt) for it in answered.answer.record.receipts)
        assert second.record.previous == first.id


async def test_tasks_of_several_legs_go_by_orders_all_the_way(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        worker = await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        offers = offers_at(data) + offers_at(worker)
        check_answers(await all_asked(asker, [legs(it) for it in range(30)]), data, worker)
        assert data.order_server.standing == worker.order_server.standing == 1
        # Hardly one went by itself: those that came before there was an order.
        assert data.order_server.tasks >= 20
        assert worker.order_server.tasks >= 20
        assert sum(map(len, offers)) <= 4
        assert orders_of(data).figures().tasks == worker.order_server.tasks
        assert not asker.tasks.dispatcher.directory.failed_over
        assert not data.tasks.dispatcher.directory.failed_over
        assert nothing_left(asker)
        assert not data.leg_server.under_way
        assert not worker.leg_server.under_way
        for peer, other in ((asker, data), (data, asker), (worker, data), (data, worker)):
            assert not peer.peers.scores.cost(other.peers.me, trio.current_time())
        await trio.sleep(3 * IDLE_S)
        assert not data.order_server.standing
        assert not worker.order_server.standing


def offers_at(*peers: Node) -> list[list[Message]]:
    """The offers that come to each of them from now on."""
    found: list[list[Message]] = []
    for peer in peers:
        heard: list[Message] = []
        found.append(heard)
        honest = peer.peers.handlers[Offer]

        async def noting(call, message, honest=honest, heard=heard) -> None:  # type: ignore[no-untyped-def]
            heard.append(message)
            await honest(call, message)

        peer.peers.handlers[Offer] = noting
    return found


async def test_one_task_after_another_goes_by_an_order_too(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        worker = await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        to_data, to_worker = offers_at(data, worker)
        for number in range(8):
            (answered,) = await all_asked(asker, [legs(number)])
            assert isinstance(answered, Answered)
            await trio.sleep(IDLE_S / 2)
        # The first comes alone, and while the second is under way the order is opened.
        assert len(to_data) == len(to_worker) == 2
        assert data.order_server.tasks == worker.order_server.tasks == 6
        await trio.sleep(3 * IDLE_S)
        # One that comes after a long while is alone again.
        await all_asked(asker, [legs(9)])
        assert not data.order_server.standing
        assert len(to_data) == 3


@pytest.mark.parametrize("old", ["data", "infer", "asker"])
async def test_peers_of_an_older_version_are_asked_and_served_as_ever(
    old: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        worker = await network.start(I, S, engine=Counted(unit_s=0.01))
        aged = {"data": data, "infer": worker, "asker": asker}[old]
        heard: list[Message] = []
        aged.peers.handlers[Open] = watched_order(aged, heard)
        # What a peer says of itself that knows orders, but only of one leg.
        aged.peers.neighbours.speaks = limits.LEGS_VERSION - 1
        if old == "asker":
            asker.tasks.dispatcher.directory.orders = None
        for peer in network.nodes:
            peer.peers.neighbours._versions.clear()
        await network.settled()
        check_answers(await all_asked(asker, [legs(it) for it in range(20)]), data, worker)
        assert not any(isinstance(it, Bundle) for it in heard)
        # Between two that both know them, legs go by orders all the same.
        assert (data.order_server.tasks > 10) is (old == "infer")
        assert (worker.order_server.tasks > 10) is (old != "infer")


async def test_a_peer_that_dies_in_the_middle_is_gone_round(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        dying = await network.start(I, S, engine=Counted(unit_s=0.2))
        await network.settled()
        async with trio.open_nursery() as nursery:

            async def replace() -> None:
                while not dying.order_server.standing:
                    await trio.sleep(0.1)
                await trio.sleep(1)
                await network.start(I, S, engine=Counted(unit_s=0.01))
                await network.settled()
                network.kill(dying)

            nursery.start_soon(replace)
            found = await all_asked(asker, [legs(it) for it in range(20)])
        check_answers(found)
        # Who had the task then had it done elsewhere, and the asker did not hear of it.
        assert data.tasks.dispatcher.directory.failed_over
        assert not asker.tasks.dispatcher.directory.failed_over
        assert nothing_left(asker)
        assert {signers(it)[0] for it in found if isinstance(it, Answered)} == {data.peers.me}


async def test_a_holder_that_dies_gives_the_task_back_and_another_takes_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        dying = await network.start(D, S, source=WORDS)
        worker = await network.start(I, S, engine=Counted(unit_s=0.1))
        await network.settled()
        other: list[Node] = []
        async with trio.open_nursery() as nursery:

            async def replace() -> None:
                while not dying.order_server.standing:
                    await trio.sleep(0.1)
                await trio.sleep(1)
                other.append(await network.start(D, S, source=WORDS))
                await network.settled()
                network.kill(dying)

            nursery.start_soon(replace)
            found = await all_asked(asker, [legs(it) for it in range(20)])
        check_answers(found)
        firsts = {signers(it)[0] for it in found if isinstance(it, Answered)}
        assert other[0].peers.me in firsts
        assert nothing_left(asker)
        await trio.sleep(1)
        assert not worker.leg_server.under_way


async def test_a_cancelled_task_is_withdrawn_from_all_that_have_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        worker = await network.start(I, S, engine=Counted(unit_s=0.5))
        await network.settled()
        await all_asked(asker, [legs(it) for it in range(2)])
        await all_asked(asker, [legs(it) for it in range(2)])
        assert data.order_server.standing == worker.order_server.standing == 1
        ids = [await asker.tasks.submit(legs(f"cancelled {it}")) for it in range(10)]
        while worker.leg_server.under_way < 10:
            await trio.sleep(0.05)
        for task in ids[4:]:
            asker.tasks.cancel(task)
        await trio.sleep(0.3)
        # One may have begun, and is finished.
        assert data.leg_server.under_way == 4
        assert worker.leg_server.under_way <= 5
        with trio.fail_after(30):
            while data.leg_server.under_way or worker.leg_server.under_way:
                await trio.sleep(0.1)
        assert nothing_left(asker)
        assert not data.tasks.dispatcher.directory.failed_over
        assert not asker.peers.scores.cost(data.peers.me, trio.current_time())


async def test_a_deadline_holds_for_all_legs_together(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        worker = await network.start(I, S, engine=Counted(unit_s=2.0))
        await network.settled()
        began_at_s = trio.current_time()
        found = await all_asked(asker, [legs(it, deadline_s=9) for it in range(12)])
        assert trio.current_time() - began_at_s < 12
        done = [it for it in found if isinstance(it, Answered)]
        # Two seconds each: no more than fit, and those that do not are not waited for.
        assert 2 <= len(done) <= 4
        await trio.sleep(10)
        assert not data.leg_server.under_way
        assert not worker.leg_server.under_way


async def test_streams_of_a_later_leg_show_every_token_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        engine = Counted(unit_s=0.05)
        dying = await network.start(I, S, engine=engine)
        await network.settled()
        heard: list[tuple[Answered, list[object]]] = []

        async def one(number: int) -> None:
            answered, events = await asked(asker, legs(number, complete(20)))
            heard.append((answered, list(events)))

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, number)
            while engine.statistics().units_done < 25:
                await trio.sleep(0.1)
            assert data.order_server.standing == dying.order_server.standing == 1
            await network.start(I, S, engine=Counted(unit_s=0.01))
            await network.settled()
            network.kill(dying)
        assert len(heard) == 6
        begun = 0
        for answered, events in heard:
            parts = [it for it in events if isinstance(it, Streamed)]
            assert b"".join(it.data for it in parts) == answered.output
            assert not any(isinstance(it, Restarted) for it in events)
            begun += len(parts) > 1
        assert begun


async def test_a_peer_does_the_next_leg_itself_where_it_can(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        both = await network.start(D, I, S, source=WORDS, engine=Counted(unit_s=0.01))
        await network.settled()
        for _ in range(2):
            wanted = [legs(it, EMBED_PASSAGES, complete(1)) for it in range(10)]
            for answered in await all_asked(asker, wanted):
                assert isinstance(answered, Answered)
                assert signers(answered) == [both.peers.me] * 3
        assert both.order_server.tasks >= 10
        assert not orders_of(both).figures().tasks
        assert nothing_left(asker)


async def test_tasks_of_several_legs_are_checked_as_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        worker = await network.start(I, S, engine=Counted(unit_s=0.01))
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        for _ in range(2):
            found = await all_asked(asker, [legs(it, level=Level.REPLAYED) for it in range(10)])
            check_answers(found, data, worker)
            for answered in found:
                assert isinstance(answered, Answered)
                assert len(answered.answer.record.verdicts) >= 2
        assert data.order_server.tasks >= 10
        assert worker.order_server.tasks >= 10


async def test_outcomes_of_several_legs_say_what_came_of_each(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S, source=WORDS)
        await network.start(I, S, engine=Counted(unit_s=0.01))
        heard: list[Message] = []
        data.peers.handlers[Open] = watched_order(data, heard)
        await network.settled()
        await all_asked(asker, [legs(it) for it in range(10)])
        told = [it for message in heard if isinstance(message, Outcomes) for it in message.items]
        assert told
        for outcome in told:
            assert outcome.receipt is not None
            assert len(outcome.later) == 1
            first, second = (open_signed(it, Receipt) for it in (outcome.receipt, outcome.later[0]))
            assert second.record.previous == first.id
            # The input of the last leg comes along, for those who check it.
            assert outcome.source
            assert len(outcome.source) == first.record.output_size_bytes
