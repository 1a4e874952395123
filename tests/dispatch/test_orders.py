"""Legs that go by a standing order: many at once, each as it would be done by itself."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.local.commands import LocalCommands
from node.peer import Node
from node.serving.served_order import PLACES_PER_ORDER
from node.task.events import Event, Restarted, Streamed, ignore_event
from p2p.peers import Handler
from p2p.typed_call import TypedCall
from tests.node.asking import (
    asked,
    complete,
    nothing_left,
    request,
    signers,
    texts_of,
    vectors_of,
)
from tests.node.engines import Counted
from tests.node.network import I, S, V, open_network
from wire import limits
from wire.content import PeerId
from wire.errors import BatonError, Malformed
from wire.kinds import Level
from wire.message import Message
from wire.order import Bundle, Open, Outcomes


async def all_asked(asker: Node, wanted: Sequence[TaskRequest]) -> list[Answered | BatonError]:
    """What each of them came to, all asked for at the same time."""
    found: list[Answered | BatonError | None] = [None] * len(wanted)

    async def one(at: int, request: TaskRequest) -> None:
        try:
            found[at], _ = await asked(asker, request)
        except BatonError as error:
            found[at] = error

    async with trio.open_nursery() as nursery:
        for at, request in enumerate(wanted):
            nursery.start_soon(one, at, request)
    return [it for it in found if it is not None]


async def test_many_at_once_go_by_an_order(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        texts = [str(number) for number in range(100)]
        wanted = [request(data=texts_of(it), level=Level.SIGNED) for it in texts]
        answers = await all_asked(asker, wanted)
        for text, answered in zip(texts, answers, strict=True):
            assert isinstance(answered, Answered)
            assert answered.output == vectors_of(text)
            assert signers(answered) == [worker.peers.me]
        assert worker.order_server.standing == 1
        assert nothing_left(asker)
        # Nobody was refused for being one too many, and nothing was asked again.
        assert not asker.tasks.dispatcher.directory.failed_over
        orders = asker.tasks.dispatcher.directory.orders
        assert orders is not None
        assert orders.standing == 1
        status = await LocalCommands(asker).status({}, emit=lambda _: None)
        ours, theirs = status["orders"]["asking"], worker.order_server.figures().as_map()
        assert (ours["open"], theirs["open"]) == (1, 1)
        assert ours["tasks"] == theirs["tasks"] == orders.figures().tasks >= 90
        assert ours["tasks_per_bundle"] == theirs["tasks_per_bundle"] > 1
        assert ours["places_in_use"] == theirs["places_in_use"] == 0
        assert ours["places_free"] == theirs["places_free"] == PLACES_PER_ORDER
        await trio.sleep(10)
        assert not orders.standing
        assert orders.figures().as_map() == ours | {"open": 0, "places_free": 0}
        assert not worker.order_server.standing
        assert 90 <= orders.sent < 100
        assert orders.bundles < 90


async def test_a_peer_that_dies_gives_its_tasks_back_and_another_does_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        dying = await network.start(I, S, engine=Counted(unit_s=0.2))
        await network.settled()
        texts = [str(number) for number in range(30)]
        wanted = [request(data=texts_of(it), level=Level.SIGNED, deadline_s=60) for it in texts]
        other: list[Node] = []

        async def replace() -> None:
            while not dying.order_server.standing:
                await trio.sleep(0.1)
            await trio.sleep(1)
            other.append(await network.start(I, S, engine=Counted(unit_s=0.01)))
            await network.settled()
            network.kill(dying)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace)
            answers = await all_asked(asker, wanted)
        for text, answered in zip(texts, answers, strict=True):
            assert isinstance(answered, Answered)
            assert answered.output == vectors_of(text)
        assert any(signers(it) == [other[0].peers.me] for it in answers if not is_error(it))
        assert nothing_left(asker)


def is_error(found: Answered | BatonError) -> TypeGuard[BatonError]:
    return isinstance(found, BatonError)


async def test_peers_that_know_no_orders_are_asked_and_served_as_ever(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        old = await network.start(I, S, engine=Counted(unit_s=0.01))
        # What a peer says of itself that was made before there were orders.
        old.peers.neighbours.speaks = limits.PROTOCOL_VERSION
        asker.peers.neighbours._versions.clear()
        opened: list[Message] = []

        async def unreadable(call: TypedCall, message: Message) -> None:
            opened.append(message)
            raise Malformed("not a message: a list of its kind and its fields")

        old.peers.handlers[Open] = unreadable
        await network.settled()
        texts = [str(number) for number in range(10)]
        wanted = [request(data=texts_of(it), level=Level.SIGNED) for it in texts]
        assert not any(map(is_error, await all_asked(asker, wanted)))
        assert not opened
        assert not old.peers.scores.cost(asker.peers.me, trio.current_time())
        # A new one beside it: each is used in its own way.
        new = await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        signed: Counter[PeerId] = Counter()
        for turn in range(2):
            texts = [f"{turn} {number}" for number in range(20)]
            wanted = [request(data=texts_of(it), level=Level.SIGNED) for it in texts]
            for answered in await all_asked(asker, wanted):
                assert isinstance(answered, Answered)
                signed.update(signers(answered))
        assert signed.keys() == {old.peers.me, new.peers.me}
        assert new.order_server.standing == 1
        assert not opened
        # And the old one asks the new one as it always did.
        assert not is_error((await all_asked(old, [request(level=Level.SIGNED)]))[0])


async def test_each_peer_is_sent_bundles_in_the_form_that_it_reads(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        peers = [await network.start(I, S, engine=Counted(unit_s=0.0)) for _ in range(2)]
        old, new = peers
        # What a peer says of itself that knows orders, and no roots.
        old.peers.neighbours.speaks = limits.KEEPS_VERSION
        asker.peers.neighbours._versions.clear()
        seen: dict[PeerId, list[Message]] = {it.peers.me: [] for it in peers}
        for peer in peers:
            peer.peers.handlers[Open] = watched_order(peer, seen[peer.peers.me])
        await network.settled()
        for turn in range(3):
            texts = [f"{turn} {number}" for number in range(20)]
            wanted = [request(data=texts_of(it), level=Level.SIGNED) for it in texts]
            for answered in await all_asked(asker, wanted):
                assert isinstance(answered, Answered)
                assert signers(answered)[0] in seen
        for peer, roots in ((old, False), (new, True)):
            heard = seen[peer.peers.me]
            bundles = [it for it in heard if isinstance(it, Bundle)]
            outcomes = [it for it in heard if isinstance(it, Outcomes)]
            assert len(bundles) > 1
            assert any(it.roots for it in bundles) is roots
            assert any(it.roots for it in outcomes) is roots
            assert not peer.peers.scores.cost(asker.peers.me, trio.current_time())
            assert not asker.peers.scores.cost(peer.peers.me, trio.current_time())


def watched_order(peer: Node, heard: list[Message]) -> Handler:
    """The peer's own handler of orders, which also notes all that is said in one."""
    honest = peer.peers.handlers[Open]

    async def watch(call: TypedCall, message: Message) -> None:
        heard.append(message)
        send, receive = call.send, call.receive

        class Watched:
            peer = call.peer

            async def send(self, message: Message) -> None:
                heard.append(message)
                await send(message)

            async def receive(self) -> Message:
                message = await receive()
                heard.append(message)
                return message

        await honest(Watched(), message)  # type: ignore[arg-type]

    return watch


async def test_streams_of_an_order_show_every_token_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Counted(unit_s=0.05)
        dying = await network.start(I, S, engine=engine)
        await network.settled()
        heard: list[tuple[Answered, list[Event]]] = []

        async def one(number: int) -> None:
            wanted = request(
                complete(20), data=b"prompt %d" % number, level=Level.SIGNED, deadline_s=60
            )
            heard.append(await asked(asker, wanted))

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, number)
            while engine.statistics().units_done < 25:
                await trio.sleep(0.1)
            assert dying.order_server.standing == 1
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


async def test_checked_tasks_go_by_orders_too(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.01))
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        wanted = [request(data=texts_of(str(number))) for number in range(10)]
        for answered in await all_asked(asker, wanted):
            assert isinstance(answered, Answered)
            assert len(answered.answer.record.verdicts) >= 2
        assert worker.order_server.standing == 1


async def test_a_cancelled_task_is_withdrawn_and_the_others_go_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.5))
        await network.settled()
        ids = [
            await asker.tasks.submit(request(data=texts_of(str(number)), level=Level.SIGNED))
            for number in range(10)
        ]
        while worker.leg_server.under_way < 10:
            await trio.sleep(0.05)
        for task_id in ids[5:]:
            asker.tasks.cancel(task_id)
        await trio.sleep(0.2)
        assert worker.leg_server.under_way <= 6
        for task_id in ids[:5]:
            await asker.tasks.watch(task_id, ignore_event)
        await trio.sleep(1)
        assert nothing_left(asker)
        assert worker.leg_server.under_way == 0


async def test_more_than_a_peer_has_places_for_wait_at_home(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, other = await network.start(S), await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.02))
        await network.settled()
        wanted = [
            [request(data=texts_of(f"{who} {it}"), level=Level.SIGNED) for it in range(60)]
            for who in range(2)
        ]
        found: list[Answered | BatonError] = []

        async def ask(who: Node, requests: list[TaskRequest]) -> None:
            found.extend(await all_asked(who, requests))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, asker, wanted[0])
            nursery.start_soon(ask, other, wanted[1])
        assert len(found) == 120
        assert not any(map(is_error, found))
        assert worker.leg_server.done == 120
        # Hardly anybody was refused, and nobody polled.
        refused = sum(it.tasks.dispatcher.directory.failed_over for it in (asker, other))
        assert refused < 40


async def test_a_peer_s_own_legs_go_by_an_order_to_itself(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        alone = await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        while not alone.probing.offered():
            await trio.sleep(0.1)
        wanted = [request(data=texts_of(str(it)), level=Level.SIGNED) for it in range(20)]
        for answered in await all_asked(alone, wanted):
            assert isinstance(answered, Answered)
            assert signers(answered) == [alone.peers.me]
        assert alone.order_server.standing == 1
        await trio.sleep(10)
        assert not alone.order_server.standing
