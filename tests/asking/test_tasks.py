"""The path of a task through whole peers, from offer to checked and kept answer."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.run import EVENTS_MAX
from node.asking.tasks import WATCHERS_MAX
from node.task.events import Accepted, Checked, Kept, LegDone, Offered, Streamed
from p2p.score import Offence
from store import Table, open_memory_store
from tests.node.asking import (
    EMBED,
    EMBED_PASSAGES,
    FETCH,
    MODEL,
    TEXTS,
    VECTORS,
    asked,
    complete,
    failures,
    journal_of,
    kept_output,
    nothing_left,
    request,
    signers,
    texts_of,
)
from tests.node.engines import Busy, Counted, Stuck
from tests.node.network import D, I, Network, S, V, open_network
from wire import limits
from wire.content import ContentId
from wire.errors import InputError, Missing, Refused, TaskFailed
from wire.kinds import Level, Role
from wire.payload import Passages, Vectors
from wire.receipt import Receipt, Verdict
from wire.signed import open_signed
from wire.task import Stage
from wire.tree import name_of


async def checked(network: Network, verifiers: int = 3) -> None:
    """Add verifiers, and wait until everybody knows everybody."""
    for _ in range(verifiers):
        await network.start(V, S)
    await network.settled()


async def test_a_task_goes_from_data_to_a_checked_kept_answer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S)
        infer = await network.start(I, S)
        await checked(network)
        answered, events = await asked(asker, request(FETCH, EMBED_PASSAGES, data=None))
        assert signers(answered) == [data.peers.me, infer.peers.me]
        assert Vectors.from_bytes(answered.output).rows > 3
        assert await kept_output(asker, answered) == answered.output
        assert not answered.kept_before
        told = [type(it) for it in events if not isinstance(it, Checked)]
        assert told == [Accepted, Offered, LegDone, LegDone, Kept]
        verdicts = [open_signed(raw, Verdict) for raw in answered.answer.record.verdicts]
        assert len({it.signer for it in verdicts}) == len(verdicts) == 2
        assert all(it.record.agrees for it in verdicts)
        assert answered.answer.record.attempts == 1
        assert nothing_left(asker)


async def test_the_passages_of_an_answer_can_be_had_by_their_ids(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        await network.start(I, S)
        await checked(network)
        answered, _ = await asked(asker, request(FETCH, EMBED_PASSAGES, data=None))
        first = open_signed(answered.answer.record.receipts[0], Receipt).record
        listed = await asker.blobs.get(first.output, deadline_s=9, size_bytes_max=1 << 20)
        for passage in Passages.from_bytes(listed).passages:
            assert await asker.blobs.get(passage, deadline_s=9, size_bytes_max=8192)


async def test_many_tasks_at_once_are_all_answered_and_the_statistics_add_up(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        for _ in range(2):
            await network.start(I, S, engine=Counted(unit_s=0.01))
        await checked(network)
        outputs: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            answered, _ = await asked(asker, request(data=texts_of(f"text {number}")))
            outputs[number] = answered.output

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
        assert len(set(outputs.values())) == 20
        statistics = asker.tasks.statistics()
        assert (statistics.accepted, statistics.answered) == (20, 20)
        assert (statistics.failed, statistics.retried, statistics.under_way) == (0, 0, 0)
        assert sum(it.leg_server.done for it in network.nodes) == 20
        assert sum(it.verify_role.checked for it in network.nodes) == 40
        assert nothing_left(asker)
        assert not any(it.leg_server.under_way for it in network.nodes)


async def test_work_spreads_over_peers_that_are_equally_fast(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=Counted(unit_s=0.5)) for _ in range(3)]
        await network.settled()
        async with trio.open_nursery() as nursery:
            for number in range(30):
                wanted = request(data=texts_of(f"text {number}"), level=Level.SIGNED)
                nursery.start_soon(asked, asker, wanted)
        # Two are drawn for each: that is not quite as even as asking all.
        assert min(it.leg_server.done for it in workers) >= 5


async def test_a_large_output_goes_by_its_content_id(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=0.0))
        await checked(network)
        answered, _ = await asked(asker, request(complete(4096), data=b"a prompt"))
        assert len(answered.output) > limits.INLINE_BYTES_MAX
        assert worker.blobs.served > 0
        assert await kept_output(asker, answered) == answered.output
        assert len(answered.answer.record.verdicts) == 2


async def test_a_large_input_goes_by_its_content_id(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await checked(network)
        prompt = bytes(300_000)
        answered, _ = await asked(asker, request(complete(4), data=prompt))
        assert len(answered.output) == 256
        assert asker.blobs.served >= 3
        assert nothing_left(asker)


async def test_the_same_question_again_is_served_from_the_store(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await checked(network)
        assert await asker.tasks.answers.of_job(EMBED, name_of(TEXTS), 2) is None
        answered, _ = await asked(asker, request())
        kept = await asker.tasks.answers.of_job(EMBED, name_of(TEXTS), 2)
        assert kept is not None
        assert kept.kept_before
        assert (kept.output, kept.answer) == (answered.output, answered.answer)
        assert await asker.tasks.answers.of_job(EMBED, name_of(b"another"), 2) is None
        other = Stage(role=Role.INFER, operation="embed", model=MODEL, parameters={"scale": 2})
        assert await asker.tasks.answers.of_job(other, name_of(TEXTS), 2) is None


async def test_the_same_question_of_another_asker_is_not_computed_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        askers = [await network.start(S) for _ in range(2)]
        engine = Counted()
        await network.start(I, S, engine=engine)
        await checked(network)
        outputs, reused = [], []
        for asker in askers:
            answered, _ = await asked(asker, request())
            outputs.append(answered.output)
            receipt = open_signed(answered.answer.record.receipts[-1], Receipt).record
            reused.append(receipt.reused)
        assert outputs == [VECTORS, VECTORS]
        assert reused == [False, True]
        assert engine.calls == 1


async def test_after_accepted_a_new_peer_on_the_same_store_and_key_finishes_the_journal(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 28) as store:
        await network.start(S)
        worker = await network.start(I, S, engine=Stuck())
        await checked(network)
        first = await network.start(S, store=store, number=77)
        await network.settled()
        task = await first.tasks.submit(request())
        await worker.dependencies.engine.began.wait()
        network.kill(first)
        network.kill(worker)
        await network.start(I, S)
        second = await network.start(S, store=store, number=77)
        assert second.tasks.statistics().under_way == 1
        with trio.fail_after(100):
            answered = await second.tasks.watch(task, lambda _: None)
        assert answered.output == VECTORS
        assert nothing_left(second)
        assert (await second.tasks.answers.of_task(task)).output == VECTORS


async def test_whose_a_task_is_outlives_a_restart_and_its_end(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 28) as store:
        await network.start(S)
        worker = await network.start(I, S, engine=Stuck())
        await checked(network)
        first = await network.start(S, store=store, number=77)
        await network.settled()
        owner = bytes(range(32))
        theirs = await first.tasks.submit(replace(request(), owner=owner))
        # One of nobody's has an entry as it always had.
        ours = await first.tasks.submit(request())
        await worker.dependencies.engine.began.wait()
        network.kill(first)
        network.kill(worker)
        await network.start(I, S)
        second = await network.start(S, store=store, number=77)
        assert [second.tasks.owner_of(it) for it in (theirs, ours)] == [owner, b""]
        with trio.fail_after(100):
            for task in (theirs, ours):
                await second.tasks.watch(task, lambda _: None)
        network.kill(second)
        third = await network.start(S, store=store, number=77)
        assert [third.tasks.owner_of(it) for it in (theirs, ours)] == [owner, b""]
        assert (await third.tasks.answers.of_task(theirs)).output == VECTORS
        assert third.tasks.owner_of(ContentId.of(b"never was")) is None


async def test_a_task_whose_deadline_passed_while_its_peer_was_off_is_said_to_have_failed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 28) as store:
        await network.start(S)
        await network.start(I, S, engine=Stuck())
        await network.settled()
        first = await network.start(S, store=store, number=77)
        await network.settled()
        task = await first.tasks.submit(request(deadline_s=60))
        network.kill(first)
        await trio.sleep(600)
        second = await network.start(S, store=store, number=77)
        with pytest.raises(TaskFailed), trio.fail_after(5):
            await second.tasks.watch(task, lambda _: None)
        assert nothing_left(second)
        assert second.tasks.statistics().failed == 1


async def test_without_anybody_who_can_nothing_is_journaled_and_the_way_out_is_named(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        await network.settled()
        with pytest.raises(InputError, match=f"runs the model {MODEL}") as nobody:
            await asker.tasks.submit(request())
        assert "--role infer" in nobody.value.todo
        with pytest.raises(InputError, match="runs the model"):
            await asker.tasks.submit(request(FETCH, EMBED_PASSAGES, data=None))
        assert nothing_left(asker)
        assert asker.tasks.statistics().accepted == 0


async def test_a_peer_that_just_joined_is_waited_for_before_a_task_is_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answered, _ = await asked(asker, request(level=Level.SIGNED))
                assert answered.output == VECTORS

            nursery.start_soon(ask)
            await trio.sleep(1)
            await network.start(I, S)


async def test_a_passed_deadline_is_TaskFailed_with_its_reasons_and_leaves_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Stuck())
        await network.settled()
        with pytest.raises(TaskFailed, match="within the deadline") as failed:
            await asked(asker, request(deadline_s=10))
        assert worker.peers.me.short in failed.value.message
        assert "--deadline" in failed.value.todo
        assert nothing_left(asker)
        statistics = asker.tasks.statistics()
        assert (statistics.accepted, statistics.answered, statistics.failed) == (1, 0, 1)


async def test_without_enough_verifiers_the_answer_is_not_returned(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await checked(network, verifiers=1)
        with pytest.raises(TaskFailed, match="could not be checked, and is not given") as failed:
            await asked(asker, request(deadline_s=20))
        assert "1 of the verdicts agree, 2 have to, and 1 peer could" in failed.value.message
        assert "--verdicts 1/1 or, unchecked, 0/0" in failed.value.todo
        assert nothing_left(asker)
        assert asker.dependencies.store.scan(Table.ANSWERS) == []
        answered, _ = await asked(asker, request(deadline_s=20, verifiers=1, needed=1))
        assert answered.output == VECTORS


async def test_a_verifier_that_comes_later_still_takes_part(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await checked(network, verifiers=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked, asker, request(deadline_s=60))
            await trio.sleep(10)
            await network.start(V, S)


async def test_the_answer_of_a_task_nobody_asked_is_Missing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        with pytest.raises(Missing, match="no answer"):
            await asker.tasks.watch(ContentId.of(b"no such task"), lambda _: None)


async def test_who_watches_late_hears_everything_and_too_many_are_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=1.0))
        await network.settled()
        wanted = request(complete(20), data=b"prompt", level=Level.SIGNED)
        task = await asker.tasks.submit(wanted)
        heard: list[list[object]] = [[] for _ in range(WATCHERS_MAX)]
        async with trio.open_nursery() as nursery:
            for events in heard:
                nursery.start_soon(asker.tasks.watch, task, events.append)
                await trio.sleep(1)
            with pytest.raises(Refused, match="watch this task already") as refused:
                await asker.tasks.watch(task, heard[0].append)
            assert refused.value.retry_after_s == 5.0
        # Pieces are for who is there when they come; what happened is told to everybody.
        lasting = [[it for it in events if not isinstance(it, Streamed)] for events in heard]
        assert all(events == lasting[0] for events in lasting)
        assert len(lasting[0]) >= 4
        assert len(heard[-1]) < len(heard[0]) < EVENTS_MAX


async def test_a_watcher_that_goes_away_does_not_end_the_task(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=1.0))
        await network.settled()
        task = await asker.tasks.submit(request(level=Level.SIGNED))
        with trio.move_on_after(1):
            await asker.tasks.watch(task, lambda _: None)
        answered = await asker.tasks.watch(task, lambda _: None)
        assert answered.output == VECTORS


async def test_pieces_arrive_in_order_and_are_the_answer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await checked(network)
        answered, events = await asked(asker, request(complete(12), data=b"prompt"))
        pieces = [it.data for it in events if hasattr(it, "data")]
        assert len(pieces) == 12
        assert b"".join(pieces) == answered.output


async def test_a_refusal_is_honoured_and_the_peer_asked_again_when_it_said(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Busy(refusals=2, retry_after_s=7.0)
        worker = await network.start(I, S, engine=engine)
        await network.settled()
        answered, events = await asked(asker, request(level=Level.SIGNED))
        assert answered.output == VECTORS
        first, second, third = engine.asked_at_s
        assert 7.0 <= second - first < 8.0
        assert 7.0 <= third - second < 8.0
        assert [it.why for it in failures(events)] == ["the queue is full"] * 2
        assert asker.peers.scores.cost(worker.peers.me, trio.current_time()) == 0


async def test_while_one_is_busy_the_next_best_is_asked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Busy(refusals=99, retry_after_s=30.0))
        free = await network.start(I, S, engine=Counted())
        await network.settled()
        started_at_s = trio.current_time()
        answered, _ = await asked(asker, request(level=Level.SIGNED))
        assert signers(answered) == [free.peers.me]
        assert trio.current_time() - started_at_s < 5


async def test_a_banned_peer_gets_no_work(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        banned = await network.start(I, S, engine=Counted(unit_s=0.0))
        await network.start(I, S)
        await network.settled()
        asker.peers.offended(banned.peers.me, Offence.WRONG_ANSWER)
        for number in range(5):
            await asked(asker, request(data=texts_of(str(number)), level=Level.SIGNED))
        assert banned.leg_server.done == 0


async def test_a_peer_with_too_much_under_way_refuses_aloud(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Stuck())
        await network.settled()
        for number in range(256):
            await asker.tasks.submit(
                request(data=texts_of(str(number)), deadline_s=5, level=Level.SIGNED)
            )
        with pytest.raises(Refused, match="256 tasks are under way") as refused:
            await asker.tasks.submit(request())
        assert refused.value.retry_after_s == 1.0
        assert len(journal_of(asker)) == 256
        with trio.fail_after(20):
            while not nothing_left(asker):
                await trio.sleep(0.5)
        assert asker.tasks.statistics().failed == 256


async def test_a_leaving_peer_takes_nothing_new_and_finishes_what_it_holds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Counted(unit_s=0.02)
        leaving = await network.start(I, S, engine=engine)
        await network.settled()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answered, _ = await asked(asker, request(level=Level.SIGNED))
                assert signers(answered) == [leaving.peers.me]

            nursery.start_soon(ask)
            while not engine.calls:
                await trio.sleep(0.01)
            await leaving.leave()
            assert not leaving.leg_server.under_way
        with pytest.raises((InputError, TaskFailed)):
            await asked(asker, request(data=texts_of("new"), level=Level.SIGNED, deadline_s=5))


async def test_who_cancels_a_task_as_its_answer_is_kept_is_too_late(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await checked(network)
        task = await asker.tasks.submit(request())

        def on_event(event: object) -> None:
            if isinstance(event, Kept):
                asker.tasks.cancel(task)

        answered = await asker.tasks.watch(task, on_event)
        assert (await asker.tasks.answers.of_task(task)).answer.id == answered.answer.id
        assert nothing_left(asker)
