"""Verdicts are paid by who asked for them, each of them, however many are asked for at once."""

from pathlib import Path

import trio
from trio.testing import MockClock

from node.asking.own_judge import OwnJudge
from node.checking.check_request import CheckRequest
from node.peer import Node
from node.serving.asked_check import read_check
from node.serving.check_bundle import CheckEnd, SmallCheck, check_together, small_check
from tests.node.asking import EMBED, SECRET, TEXTS, VECTORS, asked, receipt_of, request, task_of
from tests.node.network import open_network
from tests.p2p.transports import key_of
from tests.paying.test_priced_peers import priced, settled, started
from wire.check_message import Check
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.receipt import Receipt
from wire.signed import open_signed
from wire.task import Task
from wire.tree import name_of


def checks_of(asker: Node, verifier: Node, count: int, ends: list[CheckEnd]) -> list[SmallCheck]:
    """So many checks of different tasks, as they come in one bundle."""
    found = []
    for number in range(count):
        task = task_of(
            asker.dependencies.key,
            asker.dependencies.environment.wall_s(),
            EMBED,
            source=name_of(TEXTS),
            nonce=number.to_bytes(16, "big"),
            price_max=1000,
        )
        check = Check(
            task=task.raw,
            receipts=(receipt_of(task, key_of("worker"), VECTORS, units=3).raw,),
            secret=SECRET,
            input=TEXTS,
            output=VECTORS,
            deadline_ms=30_000,
        )
        role, ended = verifier.verify_role, ends.append
        role.check_willing(read_check(check), asker.peers.me)
        small = small_check(role, read_check(check), asker.peers.me, ended)
        assert small is not None
        found.append(small)
    return found


async def test_of_checks_that_come_together_no_more_are_done_than_are_paid(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifier = await started(network, priced(base=100, check=10), verifiers=1)
        # The price of a model is said once the model is ready.
        await trio.sleep(30)
        await asked(asker, request(price_max=1000, verifiers=1, needed=1))
        _, earned = await settled(asker, verifier)
        till = verifier.verify_role.till
        assert till is not None
        assert till.own.now is not None
        ends: list[CheckEnd] = []
        together = checks_of(asker, verifier, 5, ends)
        # Each was found to be paid; what is owed may still grow by two verdicts.
        earned.highest = earned.charged - till.own.now.record.increment + 20
        before = earned.charged
        await check_together(verifier.verify_role, together, asker.peers.me)
        refused = [it for it in ends if isinstance(it, Refused)]
        assert (len(ends), len(refused)) == (5, 3)
        assert {it.code for it in refused} == {RefusalCode.NOT_PAID}
        assert (earned.charged, earned.held) == (before + 20, 0)


async def test_what_a_peer_looks_at_for_itself_is_charged_to_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifier = await started(network, priced(base=100, check=10), verifiers=1)
        # The price of a model is said once the model is ready.
        await trio.sleep(30)
        answered, _ = await asked(asker, request(price_max=1000, verifiers=1, needed=1))
        _, earned = await settled(asker, verifier)
        record = answered.answer.record
        claimed = CheckRequest(
            task=open_signed(record.task, Task),
            receipts=tuple(open_signed(it, Receipt) for it in record.receipts),
            secret=record.secret,
            input=TEXTS,
            output=answered.output,
        )
        # As a juror looks, or who doubts what others say.
        found = await OwnJudge(verifier.verify_role).look(claimed, answered.output)
        assert found is not None
        assert found.verdict.agrees
        assert earned.charged == 10
