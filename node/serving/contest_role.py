"""One side of a dispute: shows the asker what each layer of an integer model gave for one row.

Whoever signed the receipt is asked as the prover, whoever signed a verdict against it as the
challenger. Both compute the row again, layer by layer, commit to all of it, and answer what the
asker wants to see. What does not fit the commitment convicts them, so there is nothing to gain.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from node.engines.exact.model import ExactModel
from node.engines.exact.states import RowStates, first_wrong_row, inputs_of, states_of
from node.engines.formats.onnx_protobuf import Array
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.text_disputes import own_states
from p2p.blobs import Blobs
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.chain import open_receipts, source_of
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.dispute import (
    Children,
    Commitment,
    Committed,
    Contest,
    Descend,
    Reveal,
    Revealed,
    Settled,
)
from wire.errors import (
    EngineError,
    Malformed,
    ModelRefused,
    Refused,
    RemoteProtocolError,
    StoreError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.message import Message
from wire.operations import CALL, GENERATE
from wire.receipt import Receipt
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.task import Task
from wire.tree import name_of

CONTESTS_MAX = 4
CONTESTS_PER_ASKER_MAX = 2
# Where all places are taken, who has asked nothing for so long makes room for somebody new.
IDLE_S_MAX = 5.0
# A tree's levels, the outputs and two inputs of a layer: nobody needs to ask more often.
QUESTIONS_MAX = 32
CONTEST_S_MAX = 60.0
PAYLOAD_BYTES_MAX = limits.TENSORS_BYTES_MAX


class HasModel(Protocol):
    """What a reader of integer models gives."""

    @property
    def model(self) -> ExactModel: ...


class ModelsHere(Protocol):
    """Reads models in whole numbers that are here; it fetches none."""

    async def here(self, model: ContentId) -> HasModel | None:
        """An integer model; None if it is none, or is not here."""

    async def claims(self, model: ContentId) -> ExactClaims | None:
        """What judges answers of an exact transformer; None unless it is one, and is here."""


# What each layer gives for one row of a call, whose inputs are in the model's order.
TraceRow = Callable[[ExactModel, Sequence[Array], int], list[bytes]]


@dataclass(slots=True)
class ContestRole:
    """Answers for the receipts and the verdicts of this peer."""

    key: SigningKey
    blobs: Blobs
    read_here: ModelsHere
    # Whether this peer checks others, and so may be asked for its verdicts.
    verifies: bool = False
    trace: TraceRow = states_of
    # Whether an answer in words is being read again.
    _reading: bool = False
    _under_way: Counter[PeerId] = field(default_factory=Counter)
    # Contests that wait for their asker, and since when, the longest first.
    _idle: dict[trio.CancelScope, float] = field(default_factory=dict)

    async def on_contest(self, call: TypedCall, message: Message) -> None:
        """Commit to one row's states and show what is asked for, or refuse."""
        assert isinstance(message, Contest)
        task = open_signed(message.task, Task)
        receipts = open_receipts(task, message.receipts)
        # A leg that brings data in may have any word for its operation, and has no model.
        leg = receipts[-1].record
        known = leg.operation in (CALL, GENERATE) and leg.role is Role.INFER
        if task.signer != call.peer or not known:
            raise RemoteProtocolError("a contest is the asker's, and about what a model gave")
        try:
            with trio.fail_after(min(message.deadline_ms / 1000, stretched(CONTEST_S_MAX))):
                await self._answer(call, message, task, receipts)
        except trio.TooSlowError:
            # The asker has stopped asking, or there was too little time: the stream just ends.
            return

    async def _answer(
        self, call: TypedCall, contest: Contest, task: Signed[Task], receipts: list[Signed[Receipt]]
    ) -> None:
        asker, receipt = call.peer, receipts[-1]
        try:
            self._check_willing(receipt, asker)
            with counted(self._under_way, asker):
                states, row = await self._states(contest, task, receipts, asker)
                commitment = Commitment(
                    receipt=receipt.id, row=row, layers=len(states.levels[0]), root=states.root
                )
                signed = sign(commitment, self.key)
                await call.send(Committed(commitment=signed.raw))
                for _ in range(QUESTIONS_MAX):
                    question = await self._question(call)
                    if question is None or isinstance(question, Settled):
                        return
                    await call.send(_shown(states, question))
        except (Refused, EngineError, StoreError, TooSlow) as error:
            await call.send(refusal_of(error))

    async def _question(self, call: TypedCall) -> Message | None:
        """What the asker says next; None if it waited for too long and others need the place."""
        with trio.CancelScope() as scope:
            self._idle[scope] = trio.current_time()
            try:
                return await call.receive()
            finally:
                del self._idle[scope]
        return None

    def _make_room(self) -> None:
        """End the contest whose asker has been silent the longest, if it has been for long."""
        for scope, since_at_s in self._idle.items():
            if not scope.cancel_called and trio.current_time() - since_at_s >= IDLE_S_MAX:
                scope.cancel()
                return

    def _check_willing(self, receipt: Signed[Receipt], asker: PeerId) -> None:
        if receipt.signer != self.key.peer and not self.verifies:
            raise Refused("this leg is another peer's", code=RefusalCode.NOT_WILLING)
        full = self._under_way.total() >= CONTESTS_MAX
        if full:
            self._make_room()
        if full or self._under_way[asker] >= CONTESTS_PER_ASKER_MAX:
            raise Refused("this peer is settling other disputes", retry_after_s=0.5)

    async def _states(
        self,
        contest: Contest,
        task: Signed[Task],
        receipts: list[Signed[Receipt]],
        asker: PeerId,
    ) -> tuple[RowStates, int]:
        """The states of the row in question; Refused if this peer cannot know them."""
        receipt = receipts[-1]
        assert receipt.record.model is not None, "a model did it"
        if receipt.record.operation == GENERATE:
            return await self._text_states(contest, task, receipts, asker)
        found = await self.read_here.here(receipt.record.model)
        if found is None:
            raise Refused("this model is not had here", code=RefusalCode.NO_SUCH_MODEL)
        input_id = source_of(task, receipts, receipt.record.stage)
        assert input_id is not None, "a call has an input"
        data = await self._bring(contest.input, input_id, receipt, asker)
        try:
            inputs = inputs_of(found.model, data)
            row = contest.row
            if row is None:
                output_id = receipt.record.output
                output = await self._bring(contest.output, output_id, receipt, asker)
                # A call may have more rows than there is time for: it ends with the conversation.
                looking = partial(
                    first_wrong_row, found.model, inputs, output, trio.from_thread.check_cancelled
                )
                first = await trio.to_thread.run_sync(looking)
                row = 0 if first is None else first
            if row >= len(inputs[0]):
                raise Malformed(f"the call has {len(inputs[0])} rows")
        except Malformed as error:
            raise Refused(error.message, code=RefusalCode.MALFORMED) from error

        def traced() -> RowStates:
            return RowStates.of(self.trace(found.model, inputs, row))

        return await trio.to_thread.run_sync(traced), row

    async def _text_states(
        self,
        contest: Contest,
        task: Signed[Task],
        receipts: list[Signed[Receipt]],
        asker: PeerId,
    ) -> tuple[RowStates, int]:
        """The states of all tokens before the one in question; Refused as `_states`."""
        receipt, row = receipts[-1], contest.row
        model, input_id = receipt.record.model, source_of(task, receipts, receipt.record.stage)
        if row is None:
            raise RemoteProtocolError("a contest about words names a token")
        # It takes all cores, as reading the answer does.
        if self._reading:
            raise Refused("this peer is settling another dispute about words", retry_after_s=0.5)
        self._reading = True
        try:
            claims = None if model is None else await self.read_here.claims(model)
            if claims is None or input_id is None:
                raise Refused("this model is not had here", code=RefusalCode.NO_SUCH_MODEL)
            source = await self._bring(contest.input, input_id, receipt, asker)
            output = await self._bring(contest.output, receipt.record.output, receipt, asker)
            check = trio.from_thread.check_cancelled
            looking = partial(own_states, claims, source, output, row, check)
            return (await trio.to_thread.run_sync(looking)).states, row
        except (WireError, ModelRefused) as error:
            raise Refused(error.message, code=RefusalCode.MALFORMED) from error
        finally:
            self._reading = False

    async def _bring(
        self, inline: bytes | None, content: ContentId, receipt: Signed[Receipt], asker: PeerId
    ) -> bytes:
        if inline is not None and name_of(inline) == content:
            return inline
        try:
            return await self.blobs.get(
                content,
                (asker, receipt.signer),
                deadline_s=stretched(CONTEST_S_MAX / 4),
                size_bytes_max=PAYLOAD_BYTES_MAX,
            )
        except TransportError as error:
            raise Refused(error.message, code=RefusalCode.NOT_FOUND) from error


def _shown(states: RowStates, question: Message) -> Children | Revealed:
    """What is asked for; RemoteProtocolError for a node or a layer that is not there."""
    try:
        match question:
            case Descend():
                left, right = states.nodes_below(question.level, question.index)
                return Children(left=left, right=right)
            case Reveal() if question.layer < len(states.states):
                at = question.layer
                return Revealed(state=states.states[at], path=states.path(at))
    except Malformed as error:
        raise RemoteProtocolError(error.message) from error
    raise RemoteProtocolError("there is no such layer")
