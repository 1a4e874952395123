"""Faults: what may go wrong, how a command line names it, and which peers it strikes when.

Pure. `parse` reads `kill=0.3,loss=0.05@10+20`; `plan` draws, from a seed, a record for every fault
that is going to happen. The same seed and the same words give the same records.
"""

import math
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from wire.errors import InputError
from wire.kinds import Role

# No fault may begin later than this after the start of a run.
MOMENT_S_MAX = 24 * 3600.0
# Fewer keys are no circle.
COUNT_MIN = 3


class FaultScope(Enum):
    """What a fault strikes."""

    # A share of the peers, at one moment.
    EVENT = auto()
    # A share of the peers, which behave differently for a while or for good.
    ADVERSARY = auto()
    # A share of the data peers, whose fetches go wrong for a while or for good.
    SOURCE = auto()
    # A share of the relays, which carry calls otherwise than they should for a while or for good.
    RELAY = auto()
    # A share of all packets on the links.
    LINK = auto()
    # A share of the peers, again and again.
    RATE = auto()
    # A share of the ledger's members, once in each epoch.
    MEMBERS = auto()


# What a fault strikes, in words.
STRUCK = {
    FaultScope.EVENT: "machines and their connections",
    FaultScope.ADVERSARY: "peers that misbehave",
    FaultScope.SOURCE: "data peers",
    FaultScope.RELAY: "relays",
    FaultScope.LINK: "links",
    FaultScope.RATE: "machines and their connections",
    FaultScope.MEMBERS: "the ledger's members",
}
# What a peer does for a while or for good; no peer is two of these.
MISBEHAVING = (FaultScope.ADVERSARY, FaultScope.SOURCE, FaultScope.RELAY)


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault. `for_s` is how long it lasts if the command line does not say."""

    scope: FaultScope
    what: str
    for_s: float = math.inf
    # Whether it is one of a network with credits alone; see `economy_plan`.
    economic: bool = False
    # Set if the amount is no share but a number, up to this one.
    count_max: int = 0


KINDS: dict[str, FaultKind] = {
    "kill": FaultKind(
        FaultScope.EVENT, "the process ends without a good-bye; its kernel closes its connections"
    ),
    "relay_kill": FaultKind(
        FaultScope.EVENT, "the same, for peers that pass calls on to those behind routers"
    ),
    "vanish": FaultKind(FaultScope.EVENT, "the machine is gone; its connections stay half open"),
    "freeze": FaultKind(
        FaultScope.EVENT, "the process stops; what it sent, and what is sent to it, waits", 20.0
    ),
    "leave": FaultKind(FaultScope.EVENT, "the peer finishes its work and leaves"),
    "restart": FaultKind(
        FaultScope.EVENT, "the process is killed, and started again with its key and its store", 5.0
    ),
    "restart_asker": FaultKind(
        FaultScope.EVENT, "the same, for peers whose own tasks are under way", 5.0
    ),
    "oneway": FaultKind(FaultScope.EVENT, "the peer is heard, but hears nobody", 30.0),
    "partition": FaultKind(
        FaultScope.EVENT, "these peers are cut off from all others, and later connected again", 30.0
    ),
    "full_disk": FaultKind(FaultScope.EVENT, "the store has no room left", 30.0),
    "slow": FaultKind(FaultScope.ADVERSARY, "the peer is ten times slower than it says"),
    "clock_skew": FaultKind(FaultScope.ADVERSARY, "the peer's clock is up to four minutes wrong"),
    "liar": FaultKind(
        FaultScope.ADVERSARY, "the peer signs wrong answers, and confirms those of other liars"
    ),
    "lazy_verifier": FaultKind(
        FaultScope.ADVERSARY, "the peer agrees with every answer without checking it"
    ),
    "copying_verifier": FaultKind(
        FaultScope.ADVERSARY,
        "the peer has another verifier look and gives its verdict as its own, or agrees blindly",
    ),
    "naysaying_verifier": FaultKind(
        FaultScope.ADVERSARY, "the peer calls a row of every answer wrong, each time another one"
    ),
    "seldom_liar": FaultKind(
        FaultScope.ADVERSARY, "the peer signs wrong answers as a liar does, but one of twenty only"
    ),
    "garbage": FaultKind(FaultScope.ADVERSARY, "the peer answers every message with nonsense"),
    "flooder": FaultKind(
        FaultScope.ADVERSARY, "the peer floods the network with adverts of invented keys"
    ),
    "refuser": FaultKind(FaultScope.ADVERSARY, "the peer refuses every leg"),
    "silent": FaultKind(FaultScope.ADVERSARY, "the peer accepts every leg and never answers"),
    "truncator": FaultKind(FaultScope.ADVERSARY, "the peer cuts every leg's stream in the middle"),
    "source_down": FaultKind(FaultScope.SOURCE, "the server does not answer this data peer"),
    "source_slow": FaultKind(FaultScope.SOURCE, "the server takes 40 s for this data peer"),
    "source_lies": FaultKind(FaultScope.SOURCE, "the data peer signs prices of its own"),
    "source_colludes": FaultKind(
        FaultScope.SOURCE, "the data peer signs the same wrong prices as the others of this kind"
    ),
    "relay_lies": FaultKind(FaultScope.RELAY, "the relay gives leases to all, and keeps nobody"),
    "relay_delays": FaultKind(FaultScope.RELAY, "the relay holds all it carries back, up to 0.5 s"),
    "relay_drops": FaultKind(FaultScope.RELAY, "the relay ends lines in the middle"),
    "relay_meters": FaultKind(
        FaultScope.RELAY, "the relay meters ten times too much, and keeps to no bound of its own"
    ),
    "loss": FaultKind(FaultScope.LINK, "packets are lost and sent again after 200 ms, 400 ms, ..."),
    "delay": FaultKind(FaultScope.LINK, "packets take up to half a second longer"),
    "duplicate": FaultKind(FaultScope.LINK, "packets arrive twice; the stream drops the second"),
    "reorder": FaultKind(FaultScope.LINK, "packets change their order; the stream waits for them"),
    "churn": FaultKind(
        FaultScope.RATE, "this share of the peers is killed each minute, and as many new ones join"
    ),
    "member": FaultKind(
        FaultScope.MEMBERS,
        "in each epoch members of the ledger are killed and started again, some with an empty disk",
        economic=True,
    ),
    "equivocator": FaultKind(
        FaultScope.ADVERSARY, "the owner signs two orders with one number", economic=True
    ),
    "nonpayer": FaultKind(
        FaultScope.ADVERSARY,
        "the asker pays each peer once, asks on, and never pays again",
        economic=True,
    ),
    "thief": FaultKind(
        FaultScope.ADVERSARY,
        "the peer keeps what was paid ahead, and refuses, cuts the answer, or makes it nonsense",
        economic=True,
    ),
    "whale": FaultKind(
        FaultScope.ADVERSARY,
        "a verifier has this share of what is staked, and agrees without checking",
        economic=True,
    ),
    "ring": FaultKind(
        FaultScope.ADVERSARY,
        "the peer's owner has so many keys besides, which pay each other in a circle",
        economic=True,
        count_max=512,
    ),
}

# What checks are there to find, and the role that it can be done in.
FOUND_BY_CHECKS = {
    "liar": Role.INFER,
    "seldom_liar": Role.INFER,
    "lazy_verifier": Role.VERIFY,
    "copying_verifier": Role.VERIFY,
    "naysaying_verifier": Role.VERIFY,
    "whale": Role.VERIFY,
}

# They strike the peers that pass calls on to others.
NEED_ROUTERS = frozenset(
    ("relay_kill", *(k for k, v in KINDS.items() if v.scope is FaultScope.RELAY))
)

_WORD = re.compile(
    r"(?P<name>[a-z_]+)=(?P<amount>\d*\.?\d+)(?P<rate>/min)?"
    r"(?:@(?P<at>\d*\.?\d+))?(?:\+(?P<for>\d*\.?\d+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRequest:
    """A fault as typed: a share, from when, for how long. None: the default of its kind."""

    name: str
    amount: float
    at_s: float | None = None
    for_s: float | None = None

    def __str__(self) -> str:
        rate = "/min" if KINDS[self.name].scope is FaultScope.RATE else ""
        at = "" if self.at_s is None else f"@{self.at_s:g}"
        lasting = "" if self.for_s is None else f"+{self.for_s:g}"
        return f"{self.name}={self.amount:g}{rate}{at}{lasting}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault that happens: from `at_s` after the start, for `for_s`, to these peers by number.

    Each fault has its own `seed`: adding a fault changes none of the others.
    """

    name: str
    amount: float
    at_s: float
    for_s: float
    peers: tuple[int, ...]
    seed: str

    @property
    def scope(self) -> FaultScope:
        return KINDS[self.name].scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One word as typed: a known name, and numbers that are not yet checked."""

    text: str
    name: str
    amount: float
    is_rate: bool
    at_s: float | None
    for_s: float | None


def words_of(text: str, names: Container[str], known: str) -> Iterator[Word]:
    """The words of `kill=0.3,loss=0.05@10+20`; InputError lists the known names."""
    for word in filter(None, (it.strip() for it in text.split(","))):
        match = _WORD.fullmatch(word)
        if match is None and word.partition("=")[0] in names:
            raise InputError(
                f"{word[:60]!r} has no readable share",
                todo="write NAME=SHARE[@SECOND][+SECONDS], with commas: kill=0.3@20,loss=0.05",
            )
        if match is None or match["name"] not in names:
            raise InputError(
                f"{word[:60]!r} is not a fault",
                todo=f"use NAME=SHARE[@SECOND][+SECONDS], with {known}",
            )
        at_s, for_s = (None if match[it] is None else float(match[it]) for it in ("at", "for"))
        yield Word(
            text=word,
            name=match["name"],
            amount=float(match["amount"]),
            is_rate=bool(match["rate"]),
            at_s=at_s,
            for_s=for_s,
        )


def parse(text: str) -> tuple[FaultRequest, ...]:
    """Read `kill=0.3,loss=0.05@10+20,churn=0.1/min`; InputError lists the known faults."""
    wanted = [_checked(word) for word in words_of(text, KINDS, ", ".join(KINDS))]
    names = [it.name for it in wanted]
    twice = {it for it in names if names.count(it) > 1 and KINDS[it].scope is not FaultScope.EVENT}
    if twice:
        raise InputError(f"{min(twice)} is given twice", todo="give it once, with one share")
    return tuple(wanted)


def _checked(typed: Word) -> FaultRequest:
    name, amount, word = typed.name, typed.amount, typed.text
    at_s, for_s = typed.at_s, typed.for_s
    is_rate = KINDS[name].scope is FaultScope.RATE
    if is_rate != typed.is_rate:
        todo = f"{name}=0.1/min" if is_rate else f"{name}=0.1"
        raise InputError(f"{word!r} is not an amount for {name}", todo=f"for example {todo}")
    _check_amount(word, amount, KINDS[name])
    if max(at_s or 0.0, for_s or 0.0) > MOMENT_S_MAX:
        raise InputError(f"{word!r} begins after the first day", todo="give seconds after @")
    if (
        for_s is not None
        and KINDS[name].scope is FaultScope.EVENT
        and KINDS[name].for_s == math.inf
    ):
        raise InputError(
            f"{word!r}: {name} has no end, so it takes no +SECONDS",
            todo="leave +SECONDS out, or use restart, freeze, ...",
        )
    return FaultRequest(name=name, amount=amount, at_s=at_s, for_s=for_s)


def _check_amount(word: str, amount: float, kind: FaultKind) -> None:
    if most_count := kind.count_max:
        if not COUNT_MIN <= amount <= most_count or amount != int(amount):
            raise InputError(
                f"{word!r}: {amount:g} is not a number of keys",
                todo=f"give {COUNT_MIN} to {most_count}",
            )
        return
    most = 0.9 if kind.scope is FaultScope.LINK else 1.0
    if not 0 < amount <= most:
        raise InputError(f"{word!r}: {amount:g} is not a share", todo=f"give 0.01 to {most:g}")


def plan(
    wanted: Sequence[FaultRequest],
    seed: int,
    seconds: float,
    strikable: Sequence[int],
    askers: Sequence[int],
    data: Sequence[int] = (),
    relays: Sequence[int] = (),
) -> tuple[Fault, ...]:
    """Every fault of a run, ordered by time. `strikable` are the peers that may be struck.

    Faults of sources strike the `data` peers alone, and those of relays the `relays`.

    No peer is two kinds of adversary, as long as there are enough peers.
    """
    faults: list[Fault] = []
    adversaries: set[int] = set()
    for place, one in enumerate(wanted):
        own = f"{seed}:{place}:{one.name}"
        random = Random(own)
        kind = KINDS[one.name]
        for_s = kind.for_s if one.for_s is None else one.for_s
        if kind.scope is FaultScope.RATE:
            faults += _churn(one, own, seconds, strikable)
            continue
        peers: tuple[int, ...] = ()
        if kind.scope is not FaultScope.LINK:
            among = askers if one.name == "restart_asker" else strikable
            if kind.scope is FaultScope.SOURCE:
                among = data or strikable
            if one.name in NEED_ROUTERS:
                among = relays or strikable
            peers = _drawn(
                random,
                among,
                one.amount,
                adversaries if kind.scope in MISBEHAVING else set(),
            )
        if kind.scope in MISBEHAVING:
            adversaries.update(peers)
        # By default events happen half way; adversaries and links misbehave from the start.
        at_s = one.at_s
        if at_s is None:
            at_s = seconds / 2 if kind.scope is FaultScope.EVENT else 0.0
        faults.append(
            Fault(name=one.name, amount=one.amount, at_s=at_s, for_s=for_s, peers=peers, seed=own)
        )
    return tuple(sorted(faults, key=lambda it: it.at_s))


def _drawn(
    random: Random, among: Sequence[int], share: float, without: set[int]
) -> tuple[int, ...]:
    count = min(len(among), max(1, round(share * len(among))))
    order = random.sample(list(among), len(among))
    # The sort is stable: peers that are adversaries already come last.
    order.sort(key=lambda it: it in without)
    return tuple(sorted(order[:count]))


def _churn(one: FaultRequest, own: str, seconds: float, strikable: Sequence[int]) -> list[Fault]:
    """One record for each killed peer; no peer is killed twice before all were killed once."""
    random = Random(own)
    first_s = one.at_s or 0.0
    lasts_s = seconds - first_s if one.for_s is None else min(one.for_s, seconds - first_s)
    count = round(one.amount * len(strikable) * max(0.0, lasts_s) / 60)
    moments = sorted(first_s + random.random() * lasts_s for _ in range(count))
    order: list[int] = []
    while len(order) < count:
        order += random.sample(list(strikable), len(strikable))
    return [
        Fault(name="churn", amount=one.amount, at_s=at_s, for_s=0.0, peers=(victim,), seed=own)
        for at_s, victim in zip(moments, order, strict=False)
    ]
