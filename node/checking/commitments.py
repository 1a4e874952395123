"""Commitments to verdicts on one leg: who gave one, when verdicts are asked for, what then fits.

Pure. What travels is in `wire.commitment`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wire import limits
from wire.commitment import commitment_to, shown_hash
from wire.content import PeerId
from wire.receipt import Verdict
from wire.signed import Signed

# For verifiers that are not known yet, or say that they are busy, commitments wait so long.
MORE_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a verifier is shown when it is asked for its verdict: a hash of so many commitments."""

    hash: bytes
    count: int


Tell = Callable[[Shown], None]


@dataclass(frozen=True, slots=True)
class _Held:
    """A verdict that was committed to; `tell` asks for it."""

    commitment: bytes
    since_at_s: float
    late_at_s: float
    tell: Tell


@dataclass(slots=True)
class LegCommitments:
    """The commitments on one leg, in the order in which they came."""

    made: list[tuple[PeerId, bytes]] = field(default_factory=list)
    # Whose verdict was not asked for yet, and whose was: with its commitment and what it was shown.
    held: dict[PeerId, _Held] = field(default_factory=dict)
    told: dict[PeerId, tuple[bytes, Shown]] = field(default_factory=dict)
    _salts: dict[bytes, PeerId] = field(default_factory=dict)

    @property
    def are_full(self) -> bool:
        """Whether no verifier is to commit any more: too many did."""
        return len(self.made) >= limits.COMMITMENTS_MAX - limits.VERIFIERS_MAX

    def add(
        self, verifier: PeerId, commitment: bytes, now_at_s: float, late_at_s: float, tell: Tell
    ) -> None:
        """Note a commitment. Its check may take until `late_at_s`: at half of that time its verdict
        is asked for, whoever is missing.
        """
        self.made.append((verifier, commitment))
        half_at_s = now_at_s + (late_at_s - now_at_s) / 2
        self.held[verifier] = _Held(commitment, now_at_s, half_at_s, tell)

    def forget(self, verifier: PeerId) -> None:
        """A verifier is asked anew, or its check ended."""
        self.held.pop(verifier, None)
        self.told.pop(verifier, None)

    def has(self, verifier: PeerId) -> bool:
        """Whether a verifier has committed to a verdict that it has not told yet."""
        return verifier in self.held or verifier in self.told

    def tell_if_due(self, now_at_s: float, asked: Iterable[PeerId], *, wanted: bool) -> None:
        """Ask for verdicts once nobody may still commit, or it gets late.

        `asked` are those who were asked and are not slow; `wanted`: more are to be asked.
        """
        if not self.held:
            return
        if not any(it.late_at_s <= now_at_s for it in self.held.values()):
            last_at_s = max(it.since_at_s for it in self.held.values())
            if wanted and now_at_s - last_at_s < MORE_WITHIN_S:
                return
            if not all(it in self.held or it in self.told for it in asked):
                return
        self._tell_all()

    def _tell_all(self) -> None:
        shown = Shown(shown_hash([it for _, it in self.made]), len(self.made))
        held, self.held = self.held, {}
        for verifier, one in held.items():
            self.told[verifier] = (one.commitment, shown)
        for one in held.values():
            one.tell(shown)

    def misfit(self, verdict: Signed[Verdict]) -> str:
        """Why a verdict is not what its signer had committed to; empty if it is, or did not."""
        signer, said = verdict.signer, verdict.record
        if signer not in self.told:
            return "it opens a commitment that nobody made" if said.opening else ""
        commitment, shown = self.told[signer]
        if not said.opening:
            return "its verdict does not open its commitment"
        (opening,) = said.opening
        if (opening.shown, opening.count) != (shown.hash, shown.count):
            return "its verdict names other commitments than it was shown"
        if commitment_to(said, opening.salt, signer) != commitment:
            for other, _ in self.made:
                if commitment_to(said, opening.salt, other) == commitment:
                    return f"it copied the verdict of {other}"
            return "its verdict is not the one that it had committed to"
        first = self._salts.setdefault(opening.salt, signer)
        # A salt of 32 random bytes is known to nobody but who drew it.
        return "" if first == signer else f"it copied the verdict of {first}"
