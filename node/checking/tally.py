"""What the verdicts on one leg came to. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from node.checking.check_request import Drawn
from wire.content import PeerId
from wire.ownership import Ownership
from wire.receipt import Verdict
from wire.signed import Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The count of the verdicts. `agreed` is None while too few verifiers could be found.

    `disputed`: a verdict names a wrong row, and too few could look at it for a decision.
    """

    agreed: bool | None
    verdicts: tuple[Signed[Verdict], ...]
    candidates: tuple[PeerId, ...]
    disputed: bool = False
    # How many had to agree, which may be more than the task asks for; and whether nobody was left
    # to be asked.
    needed: int = 0
    ran_out: bool = False
    # Of the verifiers that agree, how many may be one owner's for all this peer knows.
    tied: int = 0
    # Whose the peers are that asked, worked and checked; None for each that declared nothing.
    owned: Mapping[PeerId, Ownership | None] = field(default_factory=dict)
    # The commitments to verdicts, in the order in which they came.
    commitments: tuple[tuple[PeerId, bytes], ...] = ()

    # How much each candidate counted in the draw; 0 for all where they counted alike.
    weights: Mapping[PeerId, int] = field(default_factory=dict)
    # The draw that candidates contributed to; None where the asker alone drew.
    drawn: Drawn | None = None

    @property
    def agreeing(self) -> int:
        return sum(it.record.agrees for it in self.verdicts)
