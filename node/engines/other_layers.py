"""The seam between an engine that has the first layers of a model and the peers with the rest.

The engine knows nothing of peers: it hands on the rows of one pass after the other, and rows come
back. What went through before is kept where the rest is; when that is lost, whoever has the first
layers reads everything once more, so that no token is lost or doubled.
"""

from dataclasses import dataclass
from typing import Protocol

from wire.content import ContentId
from wire.layers import LayerRange

# Parameters of a job `stage`: whose pass it is; how many pages a session begins with, of which the
# output says how many it got, in four bytes; 1 where it ends.
SESSION, BEGIN, END = "session", "begin", "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPass:
    """One pass of a model whose layers `here` it went through; `rows` is a `wire.stage.StageRows`.

    `wait` is whether the rows are to come back; `fresh` whether nothing went before that they
    depend on; `pages` how many pages they may name, numbered from 0, and `pages_max` how many are
    of use.
    """

    model: ContentId
    here: LayerRange
    rows: bytes
    wait: bool
    fresh: bool
    pages: int
    pages_max: int


class LayersLost(Exception):
    """What the rest kept is gone; `final`: and nobody has the layers, as the words say.

    `pages` is how many pages the next rows may name; 0 if that is not known yet.
    """

    def __init__(self, words: str, *, final: bool = False, pages: int = 0) -> None:
        super().__init__(words)
        self.final = final
        self.pages = pages


@dataclass(frozen=True, slots=True)
class EndedRows:
    """The rows of an answer that has ended: those of the first `rows` places of its pages.

    `table` is 16-bit numbers of pages, as in the passes.
    """

    model: ContentId
    table: bytes
    rows: int


class LayersLied(Exception):
    """A peer gave rows that its layers do not give: all answers are to be begun anew."""


class OtherLayers(Protocol):
    """The layers that others have."""

    async def run(self, some: LayerPass) -> bytes:
        """The rows after all layers, 32-bit floats; empty at once where nobody waits for them.

        Passes go in the order of the calls. LayersLost.
        """

    async def sign(self, ended: EndedRows) -> tuple[bytes, ...]:
        """What the peers signed of the rows of an answer, a `wire.stage.StageLeg` of each.

        None of peers that do not sign. LayersLied if one of them is found to have lied; then the
        next pass goes through others.
        """

    def missing(self, model: ContentId, here: LayerRange) -> str:
        """Which layers nobody has that is known now, in words; empty if none."""
