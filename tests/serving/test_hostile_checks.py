"""Orders of checks whose asker says what it must not, or gives checks that are none."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.peer import Node
from node.serving import held_verdicts, verify_role
from node.serving.served_order import IDLE_S, ORDERS_PER_ASKER, PLACES_PER_ORDER
from p2p.score import Offence
from p2p.typed_call import TypedCall
from tests.node.asking import SECRET, TEXTS, VECTORS, complete, receipt_of, task_of
from tests.node.engines import Counted
from tests.node.network import I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.check_message import Check
from wire.checks import CheckOutcome, Checks, OpenChecks, OrderedCheck, Verdicts
from wire.commitment import (
    Commitments,
    OrderedTelling,
    TellVerdict,
    TellVerdicts,
    VerdictCommitted,
    commitment_to,
)
from wire.errors import Disconnected, Refused, RemoteProtocolError, TransportError
from wire.message import Message, Refuse, VerdictReply, Want
from wire.order import Close, Opened, Places, Withdraw
from wire.proof import place_of
from wire.receipt import Verdict
from wire.signed import Envelope, open_signed
from wire.task import Stage
from wire.tree import name_of


@dataclass(slots=True)
class Scene:
    """One verifier, and a peer that opens orders of checks there by hand."""

    network: Network
    verifier: Node
    asker: Outsider
    _nonce: int = 0

    def check(self, *stages: Stage, output: bytes = VECTORS, **changes: Any) -> Check:
        """A check of an honest leg that no other check is of."""
        self._nonce += 1
        source = changes.pop("source", TEXTS)
        task = task_of(
            self.asker.key,
            self.asker.peers.environment.wall_s(),
            *stages,
            source=name_of(source),
            nonce=self._nonce.to_bytes(16, "big"),
        )
        units = changes.pop("units", 3)
        receipt = receipt_of(task, key_of("worker"), output, units=units)
        fields: dict[str, Any] = {
            "task": task.raw,
            "receipts": (receipt.raw,),
            "secret": SECRET,
            "input": source,
            "output": output,
            "deadline_ms": 30_000,
        }
        return Check(**(fields | changes))

    @asynccontextmanager
    async def order(self) -> AsyncIterator["Opener"]:
        """An order that stands until it is left, which resets it."""
        left = Disconnected("the test is over")
        try:
            async with self.asker.peers.call(self.verifier.peers.me, deadline_s=300) as call:
                await call.send(OpenChecks(checks=10))
                yield Opener(call, (await call.expect(Opened)).places)
                raise left
        except Disconnected as error:
            if error is not left:
                raise

    def cost(self) -> float:
        """What the asker's offences weigh at the verifier."""
        return self.verifier.peers.scores.cost(self.asker.key.peer, trio.current_time())


@dataclass(slots=True)
class Opener:
    """An order as its asker sees it."""

    call: TypedCall
    places: int

    async def give(self, checks: Sequence[Check], first: int = 0) -> None:
        items = [OrderedCheck(tag=first + at, asked=it) for at, it in enumerate(checks)]
        for at in range(0, len(items), limits.CHECKS_PER_MESSAGE_MAX):
            some = items[at : at + limits.CHECKS_PER_MESSAGE_MAX]
            await self.call.send(Checks(items=tuple(some)))

    async def outcomes(self, count: int) -> dict[int, CheckOutcome]:
        """The next outcomes, by tag; none comes twice."""
        found: dict[int, CheckOutcome] = {}
        with trio.fail_after(120):
            while len(found) < count:
                message = await self.call.receive()
                if isinstance(message, Verdicts):
                    self.places += message.places
                    for it in message.items:
                        assert it.tag not in found
                        found[it.tag] = it
        return found

    async def ended(self) -> list[Message]:
        """What is said until the other side has broken the order off."""
        heard: list[Message] = []
        try:
            with trio.fail_after(120):
                while True:
                    heard.append(await self.call.receive())
        except (TransportError, RemoteProtocolError):
            return heard


@asynccontextmanager
async def opened(tmp_path: Path, unit_s: float = 0.01, *roles: Any) -> AsyncIterator[Scene]:
    async with open_network(tmp_path) as network:
        engine = Counted(unit_s=unit_s)
        verifier = await network.start(*(roles or (V, S)), engine=engine)
        await network.settled()
        while not verifier.probing.offered():
            await trio.sleep(0.1)
        async with network.outsider() as asker:
            yield Scene(network, verifier, asker)


def verdict_in(outcome: CheckOutcome) -> Verdict:
    assert outcome.verdict is not None
    return open_signed(outcome.verdict, Verdict).record


def why(outcome: CheckOutcome) -> str:
    assert outcome.refusal is not None
    return outcome.refusal.cause.name


async def test_bad_checks_of_a_bundle_are_refused_or_lost_by_themselves(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        forged = bytearray(scene.check().task)
        forged[-1] ^= 1
        good = scene.check()
        wrong = bytes([VECTORS[0], *VECTORS[1:-1], VECTORS[-1] ^ 1])
        await order.give(
            [
                scene.check(),
                replace(good, task=bytes(forged)),
                replace(good, task=b"\xc1"),
                replace(good, secret=bytes(32)),
                replace(good, receipts=()),
                scene.check(complete(1), part=1, parts=2),
                scene.check(part=1, parts=2, rows=(7,)),
                scene.check(output=wrong),
                scene.check(output=b"no vectors"),
                scene.check(
                    Stage(
                        role=complete(1).role,
                        operation="invent",
                        model=complete(1).model,
                        parameters={},
                    )
                ),
                good,
            ]
        )
        found = await order.outcomes(11)
        assert verdict_in(found[0]).agrees
        assert [why(found[tag]) for tag in range(1, 7)] == ["MALFORMED"] * 6
        for tag in (7, 8):
            assert verdict_in(found[tag]).could_check
            assert not verdict_in(found[tag]).agrees
        assert why(found[9]) == "UNSUPPORTED"
        assert verdict_in(found[10]).agrees
        # Six of them were no checks at all, and that is the asker's own.
        assert 6 * Offence.MALFORMED - 1 < scene.cost() < 6 * Offence.MALFORMED + 1


async def test_small_checks_of_a_bundle_share_a_signature_and_a_long_one_keeps_none_waiting(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:

        async def silence(_call: TypedCall, _message: Message) -> None:
            await trio.sleep_forever()

        scene.asker.answer(Want, silence)
        # What the first is of does not come: it is waited for, for ten seconds.
        long = replace(scene.check(), input=None)
        began_at_s = trio.current_time()
        await order.give([long, *[scene.check() for _ in range(8)]])
        small = await order.outcomes(8)
        assert trio.current_time() - began_at_s < 5
        proofs = [
            place_of(Envelope.read(it.verdict or b"", Verdict).proof) for it in small.values()
        ]
        assert len({it[0] for it in proofs if it is not None}) == 1
        assert all(verdict_in(it).agrees for it in small.values())
        assert 0 not in small
        assert not verdict_in((await order.outcomes(1))[0]).could_check


async def test_what_a_check_does_not_bring_is_fetched(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        await scene.asker.store.put(VECTORS)
        await order.give(
            [replace(scene.check(), output=None), replace(scene.check(), output=b"another")]
        )
        found = await order.outcomes(2)
        assert verdict_in(found[0]).agrees
        assert verdict_in(found[1]).agrees


async def test_what_nobody_waits_for_is_given_up_and_has_its_end(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, 1.0) as scene, scene.order() as order:
        await order.give([scene.check(), scene.check()])
        await trio.sleep(0.1)
        began_at_s = trio.current_time()
        await order.call.send(Withdraw(unwanted=(0, 99)))
        found = await order.outcomes(1)
        assert why(found[0]) == "BUSY"
        assert trio.current_time() - began_at_s < 1
        assert verdict_in((await order.outcomes(1))[1]).agrees
        await order.call.send(Close(tasks=2))
        while scene.verifier.check_server.standing:
            await trio.sleep(0.1)
        assert not scene.cost()


@pytest.mark.parametrize(
    "what", ["too many", "twice", "early end", "wrong count", "another's word"]
)
async def test_an_order_of_checks_ends_where_its_asker_breaks_the_rules(
    autojump_clock: MockClock, tmp_path: Path, what: str
) -> None:
    async with opened(tmp_path, 1.0) as scene:
        async with scene.order() as order:
            assert order.places == PLACES_PER_ORDER
            match what:
                case "too many":
                    await order.give([scene.check() for _ in range(order.places + 1)])
                case "twice":
                    await order.give([scene.check()])
                    await order.give([scene.check()])
                case "early end":
                    await order.give([scene.check()])
                    await order.call.send(Close(tasks=1))
                case "wrong count":
                    await order.call.send(Close(tasks=1))
                case _:
                    # 44 is Places, which only the other side may say.
                    await order.call.channel.send(bytes.fromhex("922c81a46d6f726503"))
            assert not [it for it in await order.ended() if isinstance(it, Verdicts)]
        while scene.verifier.check_server.standing:
            await trio.sleep(0.1)
        assert Offence.MALFORMED - 1 < scene.cost() < Offence.MALFORMED + 1


async def test_places_come_back_and_an_idle_order_ends(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as order:
        for turn in range(3):
            given = [scene.check() for _ in range(PLACES_PER_ORDER)]
            order.places -= len(given)
            await order.give(given, turn * PLACES_PER_ORDER)
            await order.outcomes(len(given))
            while order.places < PLACES_PER_ORDER:
                more = await order.call.receive()
                assert isinstance(more, Places)
                order.places += more.more
        began_at_s = trio.current_time()
        last = (await order.ended())[-1]
        assert isinstance(last, Refuse)
        assert last.retry_after_ms == 0
        assert IDLE_S - 5 < trio.current_time() - began_at_s < IDLE_S + 5


async def test_orders_of_checks_are_few_and_only_where_somebody_verifies(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order(), scene.order():
        async with scene.asker.peers.call(scene.verifier.peers.me, deadline_s=30) as call:
            await call.send(OpenChecks(checks=1))
            assert isinstance(await call.receive(), Refuse)
        assert scene.verifier.check_server.standing == ORDERS_PER_ASKER


async def test_who_does_not_verify_opens_no_order_of_checks(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        opened(tmp_path, 0.01, I, S) as scene,
        scene.asker.peers.call(scene.verifier.peers.me, deadline_s=30) as call,
    ):
        await call.send(OpenChecks(checks=1))
        said = await call.receive()
        assert isinstance(said, Refuse)
        assert said.cause.name == "NOT_WILLING"


# Verdicts that are committed to.


async def commitments(opener: Opener, count: int) -> dict[int, bytes]:
    """The next commitments, by tag."""
    found: dict[int, bytes] = {}
    with trio.fail_after(120):
        while len(found) < count:
            message = await opener.call.receive()
            if isinstance(message, Commitments):
                found |= {it.tag: it.commitment for it in message.items}
    return found


async def test_a_verdict_that_nobody_asks_for_is_let_go_and_others_are_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as opener:
        await opener.give([scene.check(commit=True, deadline_ms=10_000) for _ in range(3)])
        made = await commitments(opener, 3)
        told = OrderedTelling(tag=1, shown=bytes(32), count=2)
        # Tag 9 was never given, and tag 1 is asked for twice.
        nine = OrderedTelling(tag=9, shown=bytes(32), count=2)
        await opener.call.send(TellVerdicts(items=(told, nine)))
        await opener.call.send(TellVerdicts(items=(told,)))
        found = await opener.outcomes(3)
        raw = found[1].verdict
        assert raw is not None
        verdict = open_signed(raw, Verdict)
        (opening,) = verdict.record.opening
        assert commitment_to(verdict.record, opening.salt, verdict.signer) == made[1]
        assert (opening.shown, opening.count) == (bytes(32), 2)
        for tag in (0, 2):
            refusal = found[tag].refusal
            assert refusal is not None
            assert "nobody asked for this verdict" in refusal.reason
        assert not scene.verifier.check_server._orders[0].in_use
        assert scene.cost() == 0


async def test_who_asks_for_a_verdict_before_its_commitment_breaks_the_order(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as opener:
        await opener.give([scene.check(complete(50), commit=True)])
        told = OrderedTelling(tag=0, shown=bytes(32), count=1)
        await opener.call.send(TellVerdicts(items=(told,)))
        await opener.ended()
        assert scene.cost() > 0


async def test_verdicts_that_are_withdrawn_after_their_commitment_are_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as opener:
        await opener.give([scene.check(commit=True)])
        await commitments(opener, 1)
        await opener.call.send(Withdraw(unwanted=(0,)))
        found = await opener.outcomes(1)
        assert found[0].refusal is not None


async def test_only_who_signed_a_task_has_it_checked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as scene, scene.order() as opener:
        own = scene.check()
        verifier = scene.verifier.peers.me
        async with (
            scene.network.outsider() as other,
            other.peers.call(verifier, deadline_s=30) as call,
        ):
            await call.send(own)
            with pytest.raises(Refused, match="only who signed a task"):
                await call.expect(VerdictReply)
        await opener.give([own])
        assert (await opener.outcomes(1))[0].verdict is not None


async def test_one_asker_holds_only_so_many_verdicts_back(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_role, "HELD_PER_ASKER_MAX", 3)
    async with opened(tmp_path) as scene:
        heard: list[Message] = []

        async def ask(check: Check) -> None:
            async with scene.asker.peers.call(scene.verifier.peers.me, deadline_s=200) as call:
                await call.send(check)
                heard.append(await call.receive())
                if isinstance(heard[-1], VerdictCommitted):
                    # It is never asked for, and let go when its check is late.
                    with pytest.raises(Refused, match="nobody asked for this verdict"):
                        await call.expect(VerdictReply)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, scene.check(commit=True))
                await trio.sleep(0.5)
        assert sum(isinstance(it, VerdictCommitted) for it in heard) == 3
        assert not scene.verifier.verify_role._holding


async def test_verdicts_that_nobody_asks_for_make_room_for_others(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_verdicts, "HELD_MAX", 3)
    async with opened(tmp_path) as scene:
        verifier, let_go = scene.verifier.peers.me, 0

        async def never_ask(check: Check) -> None:
            nonlocal let_go
            async with scene.asker.peers.call(verifier, deadline_s=200) as call:
                await call.send(check)
                await call.expect(VerdictCommitted)
                with pytest.raises(Refused, match="nobody asked for this verdict"):
                    await call.expect(VerdictReply)
                let_go += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(never_ask, scene.check(commit=True))
                await trio.sleep(0.5)
            assert let_go == 0
            async with scene.asker.peers.call(verifier, deadline_s=20) as call:
                await call.send(scene.check(commit=True))
                await call.expect(VerdictCommitted)
                await trio.sleep(1)
                assert let_go == 1
                await call.send(TellVerdict(shown=bytes(32), count=1))
                await call.expect(VerdictReply)
        assert let_go == 3
        assert not scene.verifier.verify_role._holding
