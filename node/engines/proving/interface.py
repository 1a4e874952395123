"""What a peer needs of whatever makes and checks proofs; `node.engines.proving.prover` is one."""

from dataclasses import dataclass, field
from typing import Protocol

from wire.content import ContentId


@dataclass(frozen=True, slots=True)
class ProvableModel:
    """The file of a model of which a circuit is made, and its name for people."""

    name: str
    content: ContentId
    data: bytes = field(repr=False)


class Proofs(Protocol):
    """Proofs that small models gave an output for an input."""

    def refusal(self) -> str:
        """Why no proof is made or checked here at all, in words; empty if they are."""
        ...

    @property
    def system(self) -> str:
        """What makes the proofs, with its version."""
        ...

    async def prepare(self, model: ProvableModel) -> None:
        """Make what proofs of one row need, before anybody asks; errors as of `prove`."""
        ...

    async def prove(self, model: ProvableModel, source: bytes, deadline_s: float) -> bytes:
        """The output that the model's circuit gives for an input, as Tensors with their proof.

        Malformed if the input does not fit the model, ModelRefused if no circuit is made of the
        model or none takes this input, Refused if there is too much to do, EngineFailed if it
        ended otherwise, EngineMissing if this peer lacks what it needs.
        """
        ...

    async def rejected(
        self, model: ProvableModel, source: bytes, output: bytes, deadline_s: float
    ) -> str:
        """Why an output is not proved to be the model's for this input; empty if it is.

        Refused, ModelRefused, EngineFailed or EngineMissing if it could not be checked here, which
        says nothing of the output.
        """
        ...
