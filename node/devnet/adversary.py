"""Peers that misbehave: each has another part behind an interface; no code of Baton is changed.

An adversary has an engine that lies, handlers that answer otherwise, a full disk, or a wrong clock.
Liars give the same wrong answers, so they confirm each other: the worst case for a quorum.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar
from zlib import crc32

import trio

from node.engines.hash_engine import HashEngine
from node.engines.interface import Emit, Job, Output, Part
from node.peer import Node
from node.serving.held_verdicts import HeldVerdict
from p2p.peers import Handler
from p2p.typed_call import CallChannel, TypedCall, refusal_of
from store import Store
from store.content_store import ContentStore
from store.group_commit import Action
from store.in_memory import MemoryBackend, MemoryRows
from store.quota import Quota
from store.recency import Recency
from wire import limits
from wire.advert import Advert
from wire.chain import open_receipts
from wire.checks import OpenChecks
from wire.commitment import TellVerdict, VerdictCommitted
from wire.content import PeerId
from wire.errors import Disconnected, Refused, StoreFull, TransportError
from wire.kinds import RefusalCode
from wire.lottery import Share
from wire.message import Accept, Check, Message, Offer, VerdictReply
from wire.operations import COMPLETE, by_rows
from wire.payload import Vectors
from wire.receipt import Verdict
from wire.signed import open_signed, sign
from wire.signing import SigningKey
from wire.task import Task

T = TypeVar("T")
SLOWER = 10.0
FLOOD_EVERY_S = 0.5
NONSENSE_BYTES = 64
# A stream carries this many messages before it is cut.
CUT_AFTER = 2
HANDLED = frozenset(
    (
        *("lazy_verifier", "copying_verifier", "naysaying_verifier"),
        *("whale", "garbage", "refuser", "silent", "truncator"),
    )
)
COPY_DEADLINE_S = 5.0
# A copying verifier asks so many others for the verdict that it gives.
COPIED_FROM_MAX = 2
# So seldom a seldom liar lies: about one of so many inputs.
SELDOM_ONE_IN = 20
LIES_ONE_IN = {"liar": 1, "seldom_liar": SELDOM_ONE_IN}
# As far off as a row can be said to be, in parts per billion.
FAR_OFF_PPB = 2 * 10**9


class DevnetEngine(HashEngine):
    """The hash engine, which lies about one of so many inputs; about none if that is 0."""

    def __init__(self, unit_s: float) -> None:
        super().__init__(unit_s=unit_s)
        self.lies_one_in = 0

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        """Run the job as the hash engine does; a liar's output is wrong in every value."""
        if not self.lies_one_in or crc32(job.input) % self.lies_one_in:
            return await super().infer(job, emit)

        async def lying(part: Part) -> None:
            assert emit is not None
            await emit(replace(part, data=_lie(job.operation, part.data)))

        output = await super().infer(job, None if emit is None else lying)
        return Output(data=_lie(job.operation, output.data), units=output.units)


def _lie(operation: str, data: bytes) -> bytes:
    if operation == COMPLETE:
        # The lie has the same length, and the parts of a lie together are the whole lie.
        return bytes(it ^ 1 for it in data)
    vectors = Vectors.from_bytes(data)
    # The sign of every number is the highest bit of its last byte.
    altered = bytearray(vectors.data)
    altered[3::4] = bytes(it ^ 0x80 for it in altered[3::4])
    return Vectors(dimensions=vectors.dimensions, rows=vectors.rows, data=bytes(altered)).to_bytes()


@dataclass(slots=True)
class Disk:
    """A disk that may be full."""

    full: bool = False


class _FallibleBackend(MemoryBackend):
    def __init__(self, disk: Disk, quota: Quota, recency: Recency) -> None:
        super().__init__(MemoryRows(), quota, recency)
        self._disk = disk

    async def commit(self, action: Action[T], size_bytes: int = 0) -> T:
        if self._disk.full:
            raise StoreFull("no space left on the device", todo="make room")
        return await super().commit(action, size_bytes)

    def offer(self, action: Action[object]) -> bool:
        return not self._disk.full and super().offer(action)


def memory_store(disk: Disk, quota_bytes: int) -> Store:
    """A store in memory that outlives its peer, and fails while `disk` is full."""
    recency, quota = Recency(), Quota(quota_bytes)
    return ContentStore(_FallibleBackend(disk, quota, recency), recency, quota)


def misbehave(node: Node, adversary: str, random: Random) -> Callable[[], None]:
    """Have a peer answer as `adversary` says; returns the call that ends the misbehaviour."""
    handlers = node.peers.handlers
    honest = dict(handlers)

    def behave() -> None:
        handlers.clear()
        handlers.update(honest)

    match adversary:
        case "lazy_verifier" | "whale":
            handlers[Check] = _unlooked(node, None)
            # Whoever has many legs to check asks it one by one.
            del handlers[OpenChecks]
        case "naysaying_verifier":
            handlers[Check] = _unlooked(node, random)
            del handlers[OpenChecks]
        case "copying_verifier":
            handlers[Check] = _copying(node, random)
            del handlers[OpenChecks]
        case "garbage":
            for kind in honest:
                handlers[kind] = _nonsense(random)
        case "refuser":
            handlers[Offer] = _refuse
        case "silent":
            handlers[Offer] = _accept_and_be_silent
        case "truncator":
            handlers[Offer] = _cut(honest[Offer])
    return behave


async def _refuse(call: TypedCall, _message: Message) -> None:
    await call.send(refusal_of(Refused("not today", code=RefusalCode.NOT_WILLING)))


async def _accept_and_be_silent(call: TypedCall, message: Message) -> None:
    assert isinstance(message, Offer)
    await call.send(Accept(expected_ms=1))
    await trio.sleep(message.deadline_ms / 1000)


def _nonsense(random: Random) -> Handler:
    async def answer(call: TypedCall, _message: Message) -> None:
        # This sends past the checks of the conversation, which an honest peer never does.
        await call.channel.send(random.randbytes(NONSENSE_BYTES))

    return answer


def _cut(honest: Handler) -> Handler:
    async def answer(call: TypedCall, message: Message) -> None:
        await honest(TypedCall(_CutExchange(call.channel), call.conversation), message)

    return answer


class _CutExchange:
    """An exchange that breaks after a few messages."""

    def __init__(self, inner: CallChannel) -> None:
        self._inner = inner
        self._left = CUT_AFTER
        self.peer = inner.peer
        self.receive = inner.receive

    async def send(self, payload: bytes) -> None:
        if not self._left:
            raise Disconnected("cut on purpose")
        self._left -= 1
        await self._inner.send(payload)


def _unlooked(node: Node, naysaying: Random | None) -> Handler:
    """Verdicts on the rows that are due, without looking at any: all agree, or each calls a drawn
    row wrong.
    """

    async def answer(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Check)
        task = open_signed(message.task, Task)
        receipt = open_receipts(task, message.receipts)[-1]
        rows = receipt.record.units
        sampled: tuple[int, ...] = (0,)
        if by_rows(receipt.record.operation):
            share = Share(message.part, message.parts, frozenset(message.rows))
            sampled = share.due(message.secret, receipt.id, node.peers.me, rows)
        else:
            rows = 1
        worst = [0] * len(sampled)
        if naysaying is not None:
            worst[naysaying.randrange(len(sampled))] = FAR_OFF_PPB
        verdict = Verdict(
            receipt=receipt.id,
            secret=message.secret,
            agrees=naysaying is None,
            could_check=True,
            rows=rows,
            sampled=sampled,
            worst_ppb=tuple(worst),
            profile=receipt.record.profile,
            reason="",
            checked_at_ms=int(node.dependencies.environment.wall_s() * 1000),
            duration_ms=1,
        )
        if message.commit:
            key = node.dependencies.key
            held = HeldVerdict(verdict, node.dependencies.environment.entropy(32), 0.0)
            await call.send(VerdictCommitted(digest=held.commitment(key.peer)))
            telling = await call.expect(TellVerdict)
            verdict = held.told(telling.shown, telling.count)
        await call.send(VerdictReply(verdict=sign(verdict, node.dependencies.key).raw))

    return answer


def _copying(node: Node, random: Random) -> Handler:
    lazy = _unlooked(node, None)

    async def copied(call: TypedCall, check: Check, other: PeerId) -> None:
        """Have another verifier look, and give what it says as this peer's own."""
        async with node.peers.call(other, deadline_s=COPY_DEADLINE_S) as asked:
            await asked.send(check)
            if check.commit:
                await call.send(await asked.expect(VerdictCommitted))
                await asked.send(await call.expect(TellVerdict))
            reply = await asked.expect(VerdictReply)
        verdict = open_signed(reply.verdict, Verdict).record
        await call.send(VerdictReply(verdict=sign(verdict, node.dependencies.key).raw))

    async def copy(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Check)
        receipt = open_receipts(open_signed(message.task, Task), message.receipts)[-1]
        doers = {receipt.signer, call.peer, node.peers.me}
        known = sorted(node.tasks.checking.verifiers(receipt.record.model) - doers)
        for other in random.sample(known, min(COPIED_FROM_MAX, len(known))):
            try:
                await copied(call, message, other)
            except Refused:
                continue
            return
        # Nobody works for it: then it says what most say.
        await lazy(call, message)

    return copy


async def flood(node: Node, random: Random) -> None:
    """Publish adverts of fresh keys, each with a valid signature, until cancelled."""
    advertiser = node.peers.advertiser
    while True:
        key = SigningKey(random.randbytes(32))
        wall_s = node.dependencies.environment.wall_s()
        advert = Advert(
            version=limits.PROTOCOL_VERSION,
            seq=int(wall_s * 1000),
            instance=random.randbytes(8),
            issued_at_s=int(wall_s),
            ttl_s=limits.ADVERT_TTL_S_MAX,
            addresses=(f"/memory/{random.randrange(1 << 20)}/p2p/{key.peer}",),
            roles=node.config.role_bits,
            models=(),
            free_slots=64,
            queue_s=0.0,
            price=0,
            leaving=False,
        )
        with suppress(TransportError):
            await node.peers.endpoint.publish(advertiser.topic, sign(advert, key).raw)
        await trio.sleep(FLOOD_EVERY_S)
