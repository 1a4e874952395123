"""Disputes about exact answers in words without a network: what is said is counted in bytes."""

from dataclasses import dataclass
from pathlib import Path

from node.checking.hearing import hear_words
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.text_disputes import OwnStates, own_states
from tests.checking.played_disputes import CHALLENGER, PROVER, REFEREE, says_wrong
from tests.engines.exact.text_models import exact_manifest
from wire.content import ContentId
from wire.dispute import Children, Commitment, Committed, Descend, Dispute
from wire.kinds import Role
from wire.message import encode
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, sign
from wire.signing import SigningKey
from wire.tree import name_of


@dataclass(slots=True)
class PlayedWords:
    """A side that computes another model than it says; `size_bytes` counts what is said."""

    key: SigningKey
    receipt: Signed[Receipt]
    states: OwnStates
    size_bytes: int = 0

    async def commit(self, row: int | None) -> bytes:
        assert row is not None, "words are about a token"
        said = Commitment(
            receipt=self.receipt.id, row=row, layers=self.states.count, root=self.states.states.root
        )
        raw = sign(said, self.key).raw
        self.size_bytes += len(encode(Committed(commitment=raw)))
        return raw

    async def nodes_below(self, level: int, index: int) -> tuple[bytes, bytes]:
        left, right = self.states.states.nodes_below(level, index)
        question = encode(Descend(level=level, index=index))
        self.size_bytes += len(question) + len(encode(Children(left=left, right=right)))
        return left, right

    async def reveal(self, layer: int) -> tuple[bytes, bytes]:
        raise AssertionError("nobody asks for states of words")


@dataclass(frozen=True, slots=True)
class PlayedAnswer:
    """An answer in words about which one side, PROVER or CHALLENGER by number, is wrong."""

    path: Path
    question: bytes
    output: bytes
    side: int

    def signed(self) -> tuple[Signed[Receipt], Signed[Verdict]]:
        receipt = sign(
            Receipt(
                task=ContentId.of(b"task"),
                stage=0,
                role=Role.INFER,
                operation="generate",
                model=exact_manifest(self.path)[0].id,
                input=name_of(self.question),
                output=name_of(self.output),
                output_size_bytes=len(self.output),
                units=1,
                started_at_ms=1,
                duration_ms=1,
                profile="",
                previous=None,
                reused=False,
            ),
            PROVER,
        )
        return receipt, sign(says_wrong(receipt.id), CHALLENGER)

    async def play(
        self, honest: ExactClaims, liar: ExactClaims, token: int
    ) -> tuple[Signed[Dispute], int]:
        """The signed record, and how many bytes were said."""
        receipt, verdict = self.signed()
        key = (PROVER, CHALLENGER)[self.side]
        own, other = (own_states(it, self.question, self.output, token) for it in (honest, liar))
        side = PlayedWords(key, receipt, other)
        heard = await hear_words(side, self.side, (receipt, key.peer), token, own)
        record = Dispute(
            manifest=exact_manifest(self.path)[0].to_bytes(),
            receipt=receipt.raw,
            verdict=verdict.raw,
            input=self.question,
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
        return sign(heard.written_in(record), REFEREE), side.size_bytes
