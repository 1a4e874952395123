"""Disputes without a network: each side answers at once, and what is said is counted in bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from node.checking.hearing import DisputeHearing, SilentError
from node.engines.exact.model import FILE, ExactModel
from node.engines.exact.states import RowStates, first_wrong_row, states_of
from node.evidence.disputes import Grounds, check_grounds
from tests.checking.exact_peers import answer_of, asked_of
from wire.content import ContentId
from wire.dispute import (
    Children,
    Commitment,
    Committed,
    Contest,
    Descend,
    Dispute,
    Reveal,
    Revealed,
)
from wire.kinds import Role
from wire.message import encode
from wire.model import Manifest, ModelFile
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, sign
from wire.signing import SigningKey
from wire.tree import name_of

PROVER, CHALLENGER, REFEREE = (SigningKey(bytes([it]) * 32) for it in (1, 2, 3))


def says_wrong(receipt: ContentId, profile: str = "") -> Verdict:
    """The verdict that the only row of an answer is another one."""
    return Verdict(
        receipt=receipt,
        secret=bytes(32),
        agrees=False,
        could_check=True,
        rows=1,
        sampled=(0,),
        worst_ppb=(1_000_000_000,),
        profile=profile,
        reason="the output differs",
        checked_at_ms=1,
        duration_ms=1,
    )


def manifest_for(model: ExactModel) -> Manifest:
    data = model.to_bytes()
    return Manifest(
        name="digits",
        format="exact",
        profile="exact",
        operations=("call",),
        files=(ModelFile(name=FILE, content=name_of(data), size_bytes=len(data)),),
        parameters={"exact": True},
        tolerance=0.0,
    )


@dataclass(slots=True)
class Played:
    """A side that computes `model`, whatever it should; `silent_after` so many answers."""

    key: SigningKey
    model: ExactModel
    grounds: Grounds
    silent_after: int = 99
    answers: int = 0
    size_bytes: int = 0
    states: RowStates | None = None

    def _count(self, question: bytes, answer: bytes) -> None:
        self.answers += 1
        if self.answers > self.silent_after:
            raise SilentError("nothing came")
        self.size_bytes += len(question) + len(answer)

    async def commit(self, row: int | None) -> bytes:
        """Commit to the row; where none is named, to the first that is wrong by this model."""
        grounds = self.grounds
        contest = Contest(
            task=b"task",
            receipts=(grounds.receipt.raw,),
            input=None,
            output=None,
            row=row,
            deadline_ms=30_000,
        )
        if row is None:
            row = first_wrong_row(self.model, grounds.inputs, grounds.output) or 0
        self.states = RowStates.of(states_of(self.model, grounds.inputs, row))
        said = Commitment(
            receipt=grounds.receipt.id,
            row=row,
            layers=len(self.states.states),
            root=self.states.root,
        )
        raw = sign(said, self.key).raw
        self._count(encode(contest), encode(Committed(commitment=raw)))
        return raw

    async def nodes_below(self, level: int, index: int) -> tuple[bytes, bytes]:
        assert self.states is not None
        left, right = self.states.nodes_below(level, index)
        question = encode(Descend(level=level, index=index))
        self._count(question, encode(Children(left=left, right=right)))
        return left, right

    async def reveal(self, layer: int) -> tuple[bytes, bytes]:
        assert self.states is not None
        state, path = self.states.states[layer], self.states.path(layer)
        self._count(encode(Reveal(layer=layer)), encode(Revealed(state=state, path=path)))
        return state, path


@dataclass(slots=True)
class Stage:
    """A model, what it is called with, and two sides that compute models of their own."""

    model: ExactModel
    prover: ExactModel
    challenger: ExactModel
    arrays: Sequence[np.ndarray]
    silent_after: dict[int, int] = field(default_factory=dict)
    # What the prover answered, if it is not what its model gives.
    answered: bytes | None = None
    # What the receipt says besides, if it is not what is so.
    receipt: dict[str, int] = field(default_factory=dict)
    sides: list[Played] = field(default_factory=list)

    @property
    def source(self) -> bytes:
        return asked_of(self.model, self.arrays)

    @property
    def output(self) -> bytes:
        return answer_of(self.prover, self.arrays) if self.answered is None else self.answered

    def grounds(self) -> Grounds:
        manifest, output = manifest_for(self.model), self.output
        signed = Receipt(
            task=ContentId.of(b"task"),
            stage=0,
            role=Role.INFER,
            operation="call",
            model=manifest.id,
            input=name_of(self.source),
            output=name_of(output),
            output_size_bytes=len(output),
            units=1,
            started_at_ms=1,
            duration_ms=1,
            profile="",
            previous=None,
            reused=False,
        )
        receipt = sign(replace(signed, **self.receipt), PROVER)
        verdict = sign(says_wrong(receipt.id), CHALLENGER)
        return check_grounds(
            manifest.to_bytes(),
            receipt.raw,
            verdict.raw,
            self.model.to_bytes(),
            self.source,
            output,
        )

    async def play(self) -> Signed[Dispute]:
        """The signed record of the whole dispute."""
        grounds = self.grounds()
        pairs = ((PROVER, self.prover), (CHALLENGER, self.challenger))
        self.sides = [
            Played(key, model, grounds, self.silent_after.get(at, 99))
            for at, (key, model) in enumerate(pairs)
        ]
        record = Dispute(
            manifest=manifest_for(self.model).to_bytes(),
            receipt=grounds.receipt.raw,
            verdict=grounds.verdict.raw,
            input=self.source,
            output=self.output,
            prover=None,
            challenger=None,
            outputs=(),
            steps=(),
            sources=(),
            prover_silent=False,
            challenger_silent=False,
            settled_at_ms=1_800_000_000_000,
        )
        return sign(await DisputeHearing(grounds, record, self.sides).hear(), REFEREE)
