"""Whether the verifiers that are known can check an answer at all, before it is made. Pure."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from p2p.joining import Joining
from wire.content import PeerId
from wire.errors import InputError
from wire.plural import plural


@dataclass(frozen=True, slots=True)
class Prospect:
    """How many could check what each of the peers makes that could answer."""

    left: dict[PeerId, int]

    @property
    def most(self) -> int:
        """How many can check at most, whoever answers."""
        return max(self.left.values(), default=0)

    def makers(self, needed: int) -> frozenset[PeerId]:
        """Whose answers enough can check; empty for everybody's."""
        enough = frozenset(it for it, count in self.left.items() if count >= needed)
        return enough if len(enough) < len(self.left) else frozenset()


def prospect_of(
    makers: Iterable[PeerId],
    verifiers: Collection[PeerId],
    me: PeerId,
    owner_of: Callable[[PeerId], PeerId],
) -> Prospect:
    """Nobody checks for itself, nor what it made; one declared owner has one voice, and none
    about what its own peers ask or make.
    """
    owners = {owner_of(it) for it in verifiers if it != me} - {owner_of(me)}
    return Prospect({it: len(owners - {owner_of(it)}) for it in makers})


class TooFewCanCheck(InputError):
    """A task asks for more verdicts than can come: `most` peers could check its answer."""

    def __init__(self, most: int, needed: int, called: str, joining: Joining) -> None:
        has_to = "has to" if needed == 1 else "have to"
        super().__init__(
            f"nothing was asked: {plural(most, 'peer')} could check an answer of {called},"
            f" beside this peer and who makes it, and {needed} {has_to} agree",
            todo=f"ask with {fewer_verdicts(most)}; or"
            f" {joining.have('check', f'--role verify --model {called}')}",
        )
        self.most = most


def fewer_verdicts(count: int) -> str:
    """What to ask with where so many can check; of one that nobody checks it is said."""
    if count:
        return f"--verdicts {count}/{count} or, unchecked, 0/0"
    return "--verdicts 0/0, which nobody checks"
