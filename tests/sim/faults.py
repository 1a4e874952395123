"""Faults of the simulated swarm: how they are written, which peers they strike, and when.

Faults have the devnet's names where they mean the same. Here messages are really lost, doubled or
overtaken: below the simulation there is no stream that would repair this.
"""

import math
from dataclasses import dataclass
from random import Random

from node.devnet.faults import words_of
from wire.errors import InputError

# Before the first fault the network is measured without faults.
EARLIEST_S = 40.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `for_s` is how long it lasts by default."""

    what: str
    # Whether the fault strikes peers; otherwise it strikes messages.
    strikes: bool
    # Whether the fault begins half way through the run by default; otherwise at its start.
    is_event: bool
    for_s: float = math.inf


KINDS = {
    "kill": Kind("the process is gone, its connections close", True, True),
    "leave": Kind("leaves, and says so to its neighbours", True, True),
    "restart": Kind("is killed, and comes back with the same key", True, True, 5.0),
    "freeze": Kind("sleeps: what is sent to it waits", True, True, 600.0),
    "oneway": Kind("is heard, and hears nobody", True, True, 120.0),
    "partition": Kind("cut off together from all the others, then healed", True, True, 300.0),
    "clock_skew": Kind("its wall clock is up to four minutes wrong", True, False),
    "flooder": Kind("tells its neighbours of keys that it made up", True, False),
    "sybil": Kind("keeps up keys that it made up, ten for each honest peer", True, False),
    "loss": Kind("messages are lost", False, False),
    "delay": Kind("messages take up to two seconds more", False, False),
    "duplicate": Kind("messages come twice", False, False),
    "reorder": Kind(
        "messages are held back, and overtaken, for up to twenty seconds", False, False
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A share of all peers, or of all messages, from `at_s` on for `for_s`. None: the default."""

    name: str
    share: float
    at_s: float | None = None
    for_s: float | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    def begins_s(self, seconds: float) -> float:
        if self.at_s is not None:
            return self.at_s
        return seconds / 2 if self.kind.is_event else 0.0

    def ends_s(self, seconds: float) -> float:
        return self.begins_s(seconds) + (self.kind.for_s if self.for_s is None else self.for_s)

    def __str__(self) -> str:
        at = "" if self.at_s is None else f"@{self.at_s:g}"
        lasting = "" if self.for_s is None else f"+{self.for_s:g}"
        return f"{self.name}={self.share:g}{at}{lasting}"


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults of one run, and the seed that decides which peers they strike."""

    seed: int
    all: tuple[Fault, ...] = ()

    def struck(self, fault: Fault, peers: int) -> tuple[int, ...]:
        """The numbers of the peers that `fault` strikes; each fault draws its own."""
        random = Random(f"{self.seed}:{self.all.index(fault)}:{fault}")
        return tuple(sorted(random.sample(range(peers), max(1, round(fault.share * peers)))))

    def __str__(self) -> str:
        return ",".join(map(str, self.all))


def parse(text: str) -> tuple[Fault, ...]:
    """Read `kill=0.3@600,loss=0.05`; InputError, in one line, lists the known faults."""
    found = []
    for word in words_of(text, KINDS, ", ".join(KINDS)):
        if not 0 < word.amount <= 0.95 or word.is_rate:
            raise InputError(f"{word.text[:60]!r} is not a share", todo="give 0.01 to 0.95")
        if word.at_s is not None and word.at_s < EARLIEST_S:
            raise InputError(
                f"{word.text[:60]!r} begins before the first measurement",
                todo=f"give {EARLIEST_S:.0f} seconds or more",
            )
        found.append(Fault(word.name, word.amount, word.at_s, word.for_s))
    if len(set(found)) != len(found):
        raise InputError("a fault is given twice", todo="give it once")
    return tuple(found)
