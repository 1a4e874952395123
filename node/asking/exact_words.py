"""An exact answer in words, read again: what of it is wrong, who made that, and which layer it is.

Peers that were wrong are asked to show which layer they compute otherwise. That they were wrong is
known before, and stays so if they show nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from node.checking.hearing import SilentError
from node.checking.settling import Contested, Settling
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.disputes import Judgement, UnfitError
from node.evidence.text_disputes import OwnStates, own_states
from wire.chain import doers_of, segments_of
from wire.content import PeerId
from wire.dispute import CHALLENGER, PROVER, Dispute
from wire.errors import BatonError, ModelRefused, WireError
from wire.generation import Token, read_frames
from wire.receipt import Receipt, Verdict
from wire.signed import Signed

Named = tuple[Signed[Dispute], Judgement]


@dataclass(frozen=True, slots=True)
class WrongPeers:
    """Who was wrong about one answer: its prover at a token, or those who said that it is wrong."""

    contested: Contested
    against: Sequence[Signed[Verdict]]
    # The token that is another one; None where the answer is right.
    token: int | None = None

    async def own_states(self, claims: ExactClaims) -> tuple[OwnStates, int] | None:
        """What the model gives before the token that is looked at, and which that is.

        None where no dispute is held about it. It takes all cores: no more than one at a time.
        """
        claims.before_pass = trio.from_thread.check_cancelled
        try:
            token = self.token
            if token is None:
                output = read_frames(self.contested.output)
                token = max(0, sum(isinstance(it, Token) for it in output) - 1)
            own = await trio.to_thread.run_sync(
                own_states,
                claims,
                self.contested.input,
                self.contested.output,
                token,
                trio.from_thread.check_cancelled,
            )
        except BatonError:
            # More states than a dispute is held about, for one.
            return None
        return own, token

    async def named(self, settling: Settling, own: OwnStates, token: int) -> dict[PeerId, Named]:
        """Of each that shows it the record and the layer; who is asked may be slow to answer."""
        found: dict[PeerId, Named] = {}
        for contested, side in self._each():
            try:
                record, judgement = await settling.name_layer(contested, side, token, own)
            except (SilentError, UnfitError, BatonError):
                continue
            found |= dict.fromkeys(judgement.lost, (record, judgement))
        return found

    def _each(self) -> list[tuple[Contested, int]]:
        if self.token is not None:
            return [(self.contested, PROVER)]
        return [
            (
                Contested(
                    claimed=self.contested.claimed,
                    verdict=verdict,
                    manifest=self.contested.manifest,
                    model_data=b"",
                    input=self.contested.input,
                    output=self.contested.output,
                ),
                CHALLENGER,
            )
            for verdict in self.against
        ]


def misstated(leg: Receipt, output: bytes) -> str:
    """What a receipt says falsely of its own leg, whatever the model gives; empty if nothing."""
    if leg.output_size_bytes != len(output):
        return f"it signed for {leg.output_size_bytes} bytes, and the answer has {len(output)}"
    try:
        tokens = sum(isinstance(it, Token) for it in read_frames(output))
    except WireError as error:
        return f"what it signed is no answer: {error.message}"
    # An answer without a token counts as one.
    if leg.units == max(1, tokens):
        return ""
    return f"it signed for {leg.units} tokens, and there are {tokens}"


def difference(
    claims: ExactClaims, source: bytes, parameters: Mapping[str, Any], output: bytes
) -> tuple[str, int | None]:
    """What of an answer is not what the model gives, in words, and the first token of it."""
    try:
        return claims.first_difference(source, parameters, output)
    except (WireError, ModelRefused) as error:
        # Whoever signed an answer to what the model does not take is as wrong.
        return error.message, None


def maker_of(receipt: Signed[Receipt], token: int | None) -> PeerId | None:
    """Who made a token of an answer; None if several made the answer and it is not known which."""
    doers = doers_of(receipt)
    if token is None:
        return doers[0] if len(doers) == 1 else None
    return doers[sum(it.record.end <= token for it in segments_of(receipt))]
