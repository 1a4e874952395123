"""Whose name is looked up next, where strangers gave the names and answers may be long in coming.

Pure. A lookup has a place until the resolver answers, also when nobody waits for it any more, and
one stranger has few of them: as long as fewer than a handful are slow on purpose, another one's
name is looked up at once. Of one that asks for more the latest wait, and the oldest are dropped.
Keys cost nothing, so all at one network have half of the places at most, however many they are.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, auto

PLACES = 16
# Of one stranger: lookups that the resolver has, and that wait for one of these to end.
EACH_MAX = 4
NETWORK_MAX = PLACES // 2
EACH_WAITING_MAX = 8
WAITING_MAX = 64


class TurnState(Enum):
    """Where a lookup stands."""

    WAITING = auto()
    AT_WORK = auto()
    # Others had to have its place in the queue.
    DROPPED = auto()


@dataclass(slots=True, eq=False)
class Turn:
    """One lookup of one stranger, who is called from some network."""

    asker: Hashable
    network: Hashable
    state: TurnState = TurnState.WAITING


@dataclass(slots=True)
class LookupTurns:
    """The lookups that are at work and that wait, bounded in all and for each stranger."""

    _at_work: Counter[Hashable] = field(default_factory=Counter)
    _of_networks: Counter[Hashable] = field(default_factory=Counter)
    _waiting: list[Turn] = field(default_factory=list)

    def ask(self, asker: Hashable, network: Hashable) -> Turn:
        """A turn for another lookup, which may be at work at once, or have another one dropped."""
        turn = Turn(asker, network)
        self._waiting.append(turn)
        mine = [it for it in self._waiting if it.asker == asker]
        if len(mine) > EACH_WAITING_MAX:
            self._drop(mine[0])
        elif len(self._waiting) > WAITING_MAX:
            of_one = Counter(it.asker for it in self._waiting)
            of_network = Counter(it.network for it in self._waiting)
            self._drop(
                max(self._waiting, key=lambda it: (of_network[it.network], of_one[it.asker]))
            )
        self._go_on()
        return turn

    def leave(self, turn: Turn) -> None:
        """Nobody waits for a lookup any more, and the resolver was not asked yet."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.state is TurnState.AT_WORK:
            self.answered(turn)

    def answered(self, turn: Turn) -> None:
        """The resolver gave back a place."""
        for counts, of in ((self._at_work, turn.asker), (self._of_networks, turn.network)):
            counts[of] -= 1
            if not counts[of]:
                del counts[of]
        self._go_on()

    def _drop(self, turn: Turn) -> None:
        turn.state = TurnState.DROPPED
        self._waiting.remove(turn)

    def _go_on(self) -> None:
        """Give what is free to who has the least, and of those to who came first."""
        while self._at_work.total() < PLACES:
            able = [it for it in self._waiting if self._may_begin(it)]
            if not able:
                return
            turn = min(
                able, key=lambda it: (self._of_networks[it.network], self._at_work[it.asker])
            )
            turn.state = TurnState.AT_WORK
            self._waiting.remove(turn)
            self._at_work[turn.asker] += 1
            self._of_networks[turn.network] += 1

    def _may_begin(self, turn: Turn) -> bool:
        few = self._at_work[turn.asker] < EACH_MAX
        return few and self._of_networks[turn.network] < NETWORK_MAX
