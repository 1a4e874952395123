"""What a liar answered before it was caught is looked at again, and never on anybody's word."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Later
from node.engines.interface import Output
from node.local.receipt_commands import ReceiptCommands
from node.peer import Node
from p2p.score import Offence, Standing
from store import open_memory_store
from tests.node.asking import EMBED, asked, request, signers, texts_of
from tests.node.engines import Counted, Liar, one_row
from tests.node.network import I, Network, S, V, open_network
from wire.content import ContentId
from wire.kinds import Level

FIRST = texts_of("the first question")


class Turncoat(Liar):
    """Lies from the moment it is told to."""

    def __init__(self, *, lies: bool) -> None:
        super().__init__(self._altered)
        self.lies = lies

    def _altered(self, output: Output) -> Output:
        return one_row(output) if self.lies else output


async def verifiers(network: Network) -> None:
    for _ in range(3):
        await network.start(V, S)
    await network.settled()


async def later_of(node: Node, task_index: int) -> str | None:
    found = await ReceiptCommands(node).receipts({}, [].append)
    row: str | None = found["receipts"][task_index]["later"]
    return row


async def judged(node: Node, wanted: Later, within_s: float = 120.0) -> None:
    with trio.fail_after(within_s):
        while await later_of(node, -1) != wanted.value:
            await trio.sleep(0.5)


@pytest.mark.parametrize("lied", [True, False])
async def test_an_unchecked_answer_of_who_is_caught_later_is_checked_again(
    autojump_clock: MockClock, tmp_path: Path, lied: bool
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        engine = Turncoat(lies=lied)
        liar = await network.start(I, S, engine=engine)
        await verifiers(network)
        first, _ = await asked(asker, request(data=FIRST, level=Level.SIGNED))
        assert signers(first) == [liar.peers.me]
        job = (EMBED, ContentId.of(FIRST), 0)
        assert await asker.tasks.answers.of_job(*job) is not None
        assert await later_of(asker, -1) is None
        await network.start(I, S, engine=Counted())
        await network.settled()
        engine.lies = True
        await asked(asker, request(data=texts_of("the second question")))
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        await judged(asker, Later.WRONG if lied else Later.HELD)
        assert (await asker.tasks.answers.of_job(*job) is None) is lied
        assert asker.rechecking.found_wrong == lied
        # Of its task it is still the answer, and can be audited.
        assert (await asker.tasks.answers.of_task(await latest_task(asker))).output == first.output


async def latest_task(node: Node) -> ContentId:
    found = await ReceiptCommands(node).receipts({}, [].append)
    return ContentId.parse(found["receipts"][-1]["task"])


async def test_while_nobody_can_check_it_the_answer_is_not_given_also_after_a_restart(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        open_network(tmp_path) as network,
    ):
        await network.start(S)
        asker = await network.start(S, store=store, number=50)
        liar = await network.start(I, S, engine=Turncoat(lies=True))
        await network.settled()
        await asked(asker, request(data=FIRST, level=Level.SIGNED))
        job = (EMBED, ContentId.of(FIRST), 0)
        asker.tasks.answers.accuse(
            liar.peers.me, int(asker.dependencies.environment.wall_s() * 1000)
        )
        assert await asker.tasks.answers.of_job(*job) is None
        await trio.sleep(200)
        assert await later_of(asker, -1) == Later.SUSPECT
        network.kill(asker)
        again = await network.start(S, store=store, number=50)
        assert await again.tasks.answers.of_job(*job) is None
        await verifiers(network)
        await judged(again, Later.WRONG, within_s=1500.0)


async def test_an_answer_that_two_agreed_with_is_not_suspect_and_nor_is_anybody_elses(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted())
        await verifiers(network)
        checked, _ = await asked(asker, request(data=FIRST))
        other, _ = await asked(asker, request(data=texts_of("other"), level=Level.SIGNED))
        answers = asker.tasks.answers
        now_ms = int(asker.dependencies.environment.wall_s() * 1000)
        answers.accuse(network.key(99).peer, now_ms)
        assert answers.later(checked.answer) is None
        assert answers.later(other.answer) is None
        answers.accuse(worker.peers.me, now_ms)
        assert answers.later(checked.answer) is None
        assert answers.later(other.answer) is Later.SUSPECT


async def test_who_was_banned_by_one_is_in_good_standing_with_everybody_else(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        bystander = await network.start(S)
        liar = await network.start(I, S, engine=Turncoat(lies=True))
        await network.start(I, S, engine=Counted())
        await verifiers(network)
        await asked(asker, request(data=FIRST))
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        # Long enough for anything that is told to reach everybody, and short of forgiveness.
        await trio.sleep(120)
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        for node in network.nodes:
            if node is not asker:
                assert node.peers.scores.cost(liar.peers.me, trio.current_time()) == 0
                assert liar.peers.me not in node.tasks.answers.liars
        assert bystander.peers.standing(liar.peers.me) is Standing.GOOD


async def test_a_ban_runs_out(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted())
        await network.settled()
        asker.peers.offended(worker.peers.me, Offence.WRONG_ANSWER)
        assert asker.peers.standing(worker.peers.me) is Standing.BANNED
        await trio.sleep(1800)
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD
        answered, _ = await asked(asker, request(level=Level.SIGNED))
        assert signers(answered) == [worker.peers.me]
