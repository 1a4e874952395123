"""What an engine of the tests makes of an answer that another claims: it would say its own."""

from node.engines.interface import Output
from node.engines.replay import ReplayRequest, beside_own


def judged(claim: ReplayRequest, said: bytes) -> Output:
    """The claim beside the frames that the engine would have told."""
    answer = beside_own(claim.tokens, said)
    return Output(data=answer.to_bytes(), units=answer.positions)
