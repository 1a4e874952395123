"""Legs that go by a standing order: many at once, each as it would be done by itself."""

from collections.abc import Sequence
from pathlib import Path

import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.peer import Node
from tests.node.asking import asked, nothing_left, request, signers, texts_of, vectors_of
from tests.node.engines import Counted
from tests.node.network import I, S, open_network
from wire.errors import BatonError
from wire.kinds import Level


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
        await trio.sleep(10)
        assert not orders.standing
        assert not worker.order_server.standing
        assert 90 <= orders.sent < 100
        assert orders.bundles < 90
