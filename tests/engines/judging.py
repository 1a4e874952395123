"""What an engine of the tests makes of an answer that another claims: it would say its own."""

import numpy as np

from node.engines.interface import Output
from node.engines.replay import JudgedAnswer, ReplayRequest
from node.engines.sampler import MARGIN_MAX
from wire.generation import Token, read_frames


def judged(claim: ReplayRequest, said: bytes) -> Output:
    """The claim beside the frames that the engine would have told."""
    own = [it.id for it in read_frames(said) if isinstance(it, Token)]
    margins = [0.0 if a == b else MARGIN_MAX for a, b in zip(claim.tokens, own, strict=False)]
    answer = JudgedAnswer(
        margins=np.array(margins, "<f4").tobytes(), output=said, positions=len(margins)
    )
    return Output(data=answer.to_bytes(), units=len(margins))
