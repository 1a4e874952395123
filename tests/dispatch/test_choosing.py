"""Two are asked, the better gets the leg; one that takes long is not waited for alone."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.dispatch.hedging import LEGS_MIN
from node.engines.interface import Emit, Job, Output
from node.peer import Node
from p2p.peers import Handler
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.node.asking import (
    EMBED_PASSAGES,
    FETCH,
    asked,
    complete,
    failures,
    request,
    signers,
)
from tests.node.engines import Counted
from tests.node.network import D, I, S, open_network
from tests.node.test_streams import Watching
from wire.content import PeerId
from wire.errors import TaskFailed
from wire.kinds import Level, RefusalCode
from wire.message import Message, Offer, Quote, Quoted, Refuse

LONG = request(complete(20), data=b"prompt", level=Level.SIGNED)


async def test_the_one_that_would_be_done_first_gets_the_leg_whatever_its_advert_says(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, other = await network.start(S), await network.start(S)
        # By its advert it is the faster one, and idle.
        busy = await network.start(I, S, engine=Counted(unit_s=0.8))
        await network.settled()
        async with trio.open_nursery() as nursery:
            for number in range(3):
                wanted = request(complete(20), data=b"%d" % number, level=Level.SIGNED)
                nursery.start_soon(asked, other, wanted)
            await trio.sleep(1)
            assert busy.leg_server.under_way == 3
            idle = await network.start(I, S, engine=Counted(unit_s=1.0))
            await network.settled()
            answered, events = await asked(asker, LONG)
            assert signers(answered) == [idle.peers.me]
            assert not failures(events)


async def test_a_leg_that_is_soon_done_or_that_one_alone_can_do_is_not_asked_about(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=Counted(unit_s=0.01)) for _ in range(2)]
        await network.settled()
        quotes: list[PeerId] = []

        def noting(worker: Node) -> Handler:
            async def note(call: TypedCall, message: Message) -> None:
                quotes.append(worker.peers.me)
                await worker.offer_server.on_quote(call, message)

            return note

        for worker in workers:
            worker.peers.handlers[Quote] = noting(worker)
        await asked(asker, request(level=Level.SIGNED))
        assert quotes == []
        bringers = [await network.start(D, S) for _ in range(2)]
        for node in bringers:
            node.peers.handlers[Quote] = noting(node)
        await network.settled()
        await asked(asker, request(FETCH, EMBED_PASSAGES, data=None, level=Level.SIGNED))
        assert not set(quotes) & {it.peers.me for it in bringers}
        quotes.clear()
        await asked(asker, LONG)
        assert sorted(quotes) == sorted(it.peers.me for it in workers)
        network.kill(workers.pop())
        await trio.sleep(200)
        await asked(asker, request(complete(20), data=b"another", level=Level.SIGNED))
        assert len(quotes) == 2


@pytest.mark.parametrize("answer", ["silence", "busy", "never", "nonsense", "late"])
async def test_who_gives_no_good_quote_holds_up_nobody_and_the_other_is_offered_it(
    autojump_clock: MockClock, tmp_path: Path, answer: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S, engine=Counted(unit_s=0.1))
        await network.settled()

        async def quote(call: TypedCall, _: Message) -> None:
            match answer:
                case "silence":
                    await trio.sleep_forever()
                case "busy":
                    await call.send(Refuse(reason="busy", retry_after_ms=60_000))
                case "never":
                    await call.send(Refuse(reason="never", retry_after_ms=None))
                case "nonsense":
                    await call.channel.send(b"nonsense")
                case "late":
                    await trio.sleep(0.8)
                    await call.send(Quoted(expected_ms=0))

        async def offered(call: TypedCall, _: Message) -> None:
            raise AssertionError("it gave no quote in time")

        # As fast as the honest one by its advert.
        async with network.outsider(I, units_per_s=10.0) as rogue:
            rogue.answer(Quote, quote)
            rogue.answer(Offer, offered)
            began_at_s = trio.current_time()
            answered, _ = await asked(asker, LONG)
            assert signers(answered) == [honest.peers.me]
            assert trio.current_time() - began_at_s < 2.5
            assert [type(it) for it in rogue.asked] == [Quote]
            cost = asker.peers.scores.cost(rogue.key.peer, trio.current_time())
            assert (cost > 0) is (answer == "nonsense")


@pytest.mark.parametrize(
    ("code", "again"),
    [
        (RefusalCode.BUSY, True),
        (RefusalCode.LOADING, True),
        # Of a newer peer: it is read as a refusal that says nothing else.
        (60_000, True),
        (RefusalCode.MALFORMED, False),
        (RefusalCode.NO_SUCH_MODEL, False),
        (RefusalCode.LEAVING, False),
    ],
)
async def test_who_is_asked_again_follows_from_the_code_and_not_from_the_words(
    autojump_clock: MockClock, tmp_path: Path, code: int, *, again: bool
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.settled()
        offers: list[Message] = []

        async def offered(call: TypedCall, message: Message) -> None:
            offers.append(message)
            await call.send(Refuse(code=code, reason="ask me again!", retry_after_ms=100))

        async with network.outsider(I, units_per_s=10.0) as rogue:
            rogue.answer(Offer, offered)
            with pytest.raises(TaskFailed):
                await asked(asker, request(complete(4), level=Level.SIGNED, deadline_s=5))
            assert (len(offers) > 1) is again


async def test_where_nobody_answers_a_quote_one_is_offered_the_leg_all_the_same(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=Counted(unit_s=0.1)) for _ in range(2)]
        await network.settled()

        async def silence(call: TypedCall, _: Message) -> None:
            await trio.sleep_forever()

        for worker in workers:
            worker.peers.handlers[Quote] = silence
        answered, _ = await asked(asker, LONG)
        assert signers(answered)[0] in {it.peers.me for it in workers}


class Slower(Counted):
    """Says that it is fast, and is not."""

    def __init__(self, factor: float) -> None:
        super().__init__(unit_s=0.01)
        self.factor = factor

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        await trio.sleep(20 * self.unit_s * self.factor)
        return await super().infer(job, emit)


async def test_who_is_slower_than_it_says_is_soon_asked_less(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        boaster = await network.start(I, S, engine=Slower(50.0))
        honest = await network.start(I, S, engine=Counted(unit_s=0.05))
        await network.settled()
        for number in range(12):
            wanted = request(complete(20), data=b"%d" % number, level=Level.SIGNED)
            await asked(asker, wanted)
        # It was tried once, and its first leg did not wait for it.
        assert boaster.leg_server.done <= 1
        assert honest.leg_server.done == 12


class Stumbling(Counted):
    """Falls asleep over a job when it is told to."""

    def __init__(self) -> None:
        super().__init__(unit_s=0.01)
        self.sleeps_s = 0.0
        self.emits = False

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if self.sleeps_s and not self.emits:
            await trio.sleep(self.sleeps_s)
        output = await super().infer(job, emit)
        if self.sleeps_s:
            await trio.sleep(self.sleeps_s)
        return output


@pytest.mark.parametrize("stage", ["complete", "embed"])
async def test_a_leg_that_takes_far_longer_than_ever_is_given_to_another_besides(
    autojump_clock: MockClock, tmp_path: Path, stage: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Stumbling()
        slow = await network.start(I, S, engine=engine)
        other = await network.start(I, S, engine=Counted(unit_s=0.1))
        await network.settled()
        dispatcher = asker.tasks.dispatcher
        for _ in range(LEGS_MIN):
            dispatcher.directory.hedging.delivered(0.2, 0.2)
        engine.sleeps_s = 40.0
        wanted = LONG if stage == "complete" else request(level=Level.SIGNED)
        # There is none to spend yet; a hundred legs give two.
        dispatcher.directory.under_way[other.peers.me] = 50
        began_at_s = trio.current_time()
        answered, events = await asked(asker, wanted)
        assert signers(answered) == [other.peers.me]
        assert trio.current_time() - began_at_s < 5
        assert dispatcher.directory.hedged == 1
        # Slow once is no offence, and nothing failed.
        assert not failures(events)
        assert asker.peers.standing(slow.peers.me) is Standing.GOOD
        assert asker.peers.scores.cost(slow.peers.me, trio.current_time()) == 0
        assert slow.peers.me not in dispatcher.directory.under_way


async def test_a_stream_that_has_begun_is_waited_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Stumbling()
        slow = await network.start(I, S, engine=engine)
        other = await network.start(I, S, engine=Counted(unit_s=0.1))
        await network.settled()
        dispatcher = asker.tasks.dispatcher
        for _ in range(LEGS_MIN):
            dispatcher.directory.hedging.delivered(0.2, 0.2)
        engine.sleeps_s, engine.emits = 10.0, True
        dispatcher.directory.under_way[other.peers.me] = 50
        answered, _ = await asked(asker, LONG)
        assert signers(answered) == [slow.peers.me]
        assert dispatcher.directory.hedged == 0


async def test_of_two_that_stream_at_the_same_time_one_is_shown(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Stumbling()
        await network.start(I, S, engine=engine)
        other = await network.start(I, S, engine=Counted(unit_s=2.0))
        await network.settled()
        dispatcher = asker.tasks.dispatcher
        for _ in range(LEGS_MIN):
            dispatcher.directory.hedging.delivered(0.2, 0.2)
        # It wakes when the other has begun, but has not shown anything yet.
        engine.sleeps_s = 2.5
        dispatcher.directory.under_way[other.peers.me] = 50
        watching = Watching()
        task = await asker.tasks.submit(LONG)
        answered = await asker.tasks.watch(task, watching.on_event)
        assert dispatcher.directory.hedged == 1
        assert watching.screen.data == answered.output
        assert watching.screen.restarts == 0


async def test_who_was_hedged_and_dies_leaves_the_leg_to_the_other(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Stumbling()
        slow = await network.start(I, S, engine=engine)
        other = await network.start(I, S, engine=Counted(unit_s=1.0))
        await network.settled()
        dispatcher = asker.tasks.dispatcher
        for _ in range(LEGS_MIN):
            dispatcher.directory.hedging.delivered(0.2, 0.2)
        engine.sleeps_s = 40.0
        dispatcher.directory.under_way[other.peers.me] = 50

        async def kill_it() -> None:
            while not dispatcher.directory.hedged:
                await trio.sleep(0.1)
            await trio.sleep(0.5)
            network.kill(slow)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_it)
            answered, events = await asked(asker, request(level=Level.SIGNED))
        assert signers(answered) == [other.peers.me]
        assert [it.peer for it in failures(events)] == [slow.peers.me]
