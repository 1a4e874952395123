"""The credits of a devnet: its genesis, who keeps the ledger, what peers ask for, and its faults.

Pure. Every peer owns the same at the beginning, askers far more than they spend. Members of the
ledger are drawn from those that work for others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from node.devnet.faults import KINDS, MISBEHAVING, Fault, FaultRequest
from node.devnet.plan import PeerPlan, key_of, manifests
from node.devnet.stake_plan import plan_stakes, ring_keys
from node.ledger.committee import Committee
from node.paying_config import DATA, RELAY, TypedPrice, TypedPrices
from wire.amount import CREDIT
from wire.content import PeerId
from wire.errors import InputError
from wire.kinds import Role
from wire.ledger import Genesis, Grant, Member
from wire.signing import SigningKey
from wire.stake import StakePart
from wire.tariff import UNITS

EPOCHS_DEFAULT, EPOCHS_MAX = 10, 1000
EPOCH_S_MIN, EPOCH_S_DEFAULT, EPOCH_S_MAX = 5, 10, 3600
# A network of fewer peers has four members, one of more seven: the cost of an order grows with it.
MEMBERS_FEW, MEMBERS_MANY, MANY_PEERS = 4, 7, 50
# A genesis names so many accounts at most; newcomers have the last of them.
PEERS_MAX, NEWCOMERS = 1000, 8
GRANT = 1000 * CREDIT
FUND = 10_000 * CREDIT
ACCOUNT_MIN = 1000
# In millionths: for a leg, for a token, for a passage that is fetched, for a verdict.
LEG, TOKEN, PASSAGE, VERDICT = 1000, 20, 50, 100
# For a million KiB that a relay passes on: little moves in a run.
RELAYED = 10 * CREDIT
PRICE_MAX = CREDIT // 10
# Of an epoch: when members are cut apart before its end, and for how long.
CUT_BEFORE, CUT_FOR = 0.25, 0.75
# A member that is killed is away for a part of an epoch, up to this one.
AWAY_MAX = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomyConfig:
    """A network with credits that runs for so many epochs."""

    epochs: int = EPOCHS_DEFAULT
    epoch_s: int = EPOCH_S_DEFAULT

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= EPOCHS_MAX:
            raise InputError(f"a run of {self.epochs} epochs", todo=f"give 1 to {EPOCHS_MAX}")
        if not EPOCH_S_MIN <= self.epoch_s <= EPOCH_S_MAX:
            raise InputError(
                f"an epoch of {self.epoch_s} seconds", todo=f"give {EPOCH_S_MIN} to {EPOCH_S_MAX}"
            )

    @property
    def seconds(self) -> float:
        """How long tasks are sent."""
        return float(self.epochs * self.epoch_s)

    def check_peers(self, peers: int, keys: int = 0) -> None:
        """InputError if there are more than a genesis has room for; `keys` are those of a ring."""
        if peers + keys > PEERS_MAX:
            of_ring = f" and {keys} keys of a ring" if keys else ""
            raise InputError(
                f"{peers} peers with credits{of_ring} are more than a genesis names",
                todo=f"give --peers {PEERS_MAX - keys} or fewer",
            )

    def typed(self) -> str:
        """As the command line has it."""
        return f"--economy --epochs {self.epochs} --epoch {self.epoch_s}"

    def to_document(self) -> dict[str, Any]:
        """As a report has it."""
        return {"epochs": self.epochs, "epoch_s": self.epoch_s}


def economy_of(document: object) -> EconomyConfig | None:
    """What `to_document` gave; KeyError, TypeError or ValueError for anything else."""
    if document is None:
        return None
    if not isinstance(document, dict):
        raise TypeError("the economy of a run is no table")
    return EconomyConfig(epochs=int(document["epochs"]), epoch_s=int(document["epoch_s"]))


@dataclass(frozen=True, slots=True)
class EconomyPlan:
    """What all peers of a run with credits share."""

    config: EconomyConfig
    genesis: Genesis
    # The peers that keep the ledger, by number.
    members: tuple[int, ...]
    numbers: Mapping[PeerId, int] = field(default_factory=dict)
    # What each worker stakes, by its number, for each role; nothing where nobody is to be slashed.
    stakes: Mapping[int, tuple[StakePart, ...]] = field(default_factory=dict)
    # Who has far more staked than others; and the keys of a ring.
    whale: int | None = None
    ring: tuple[SigningKey, ...] = ()

    @property
    def tolerates(self) -> int:
        """How many members may be bad at once."""
        return Committee(self.genesis.members).tolerates

    def roles_of(self, plan: PeerPlan) -> frozenset[Role]:
        """A peer's roles; members keep the ledger besides."""
        return plan.roles | {Role.LEDGER} if plan.number in self.members else plan.roles


def prices_of(plan: PeerPlan, *, relays: bool = False) -> TypedPrices:
    """What a peer asks for; of one that only asks nothing but what it passes on if it `relays`."""
    models: dict[str, TypedPrice] = {RELAY: TypedPrice(0, RELAYED, 0)} if relays else {}
    if plan.asks or not plan.roles & {Role.DATA, Role.INFER, Role.VERIFY}:
        return TypedPrices(models)
    if Role.INFER in plan.roles:
        by_name = manifests()
        price = TypedPrice(LEG, 0, TOKEN * UNITS)
        models |= {str(by_name[it].id): price for it in plan.models}
    if Role.DATA in plan.roles:
        models[DATA] = TypedPrice(0, PASSAGE * UNITS, 0)
    return TypedPrices(models, VERDICT if Role.VERIFY in plan.roles else 0)


def plan_economy(
    config: EconomyConfig,
    seed: int,
    peers: Sequence[PeerPlan],
    wanted: Sequence[FaultRequest] = (),
) -> EconomyPlan:
    """The genesis of a run, who keeps its ledger, and who stakes what, for the faults `wanted`."""
    workers = [it.number for it in peers if not it.asks]
    count = MEMBERS_MANY if len(peers) >= MANY_PEERS else MEMBERS_FEW
    members = tuple(sorted(Random(f"{seed}:members").sample(workers, count)))
    keys = {number: key_of(seed, number).peer for number in range(len(peers) + NEWCOMERS)}
    stakes, whale = plan_stakes(wanted, seed, peers)
    ring = ring_keys(wanted, seed)
    amounts = dict.fromkeys((*keys.values(), *(it.peer for it in ring)), GRANT)
    if whale is not None:
        amounts[keys[whale]] += sum(it.amount for it in stakes[whale])
    genesis = Genesis(
        version=1,
        name="devnet",
        nonce=Random(f"{seed}:genesis").randbytes(16),
        epoch_s=config.epoch_s,
        account_min=ACCOUNT_MIN,
        fund=FUND,
        grants=tuple(Grant(account=it, amount=amounts[it]) for it in sorted(amounts)),
        members=tuple(Member(key=it, weight=1) for it in sorted(keys[it] for it in members)),
    )
    numbers = {key: at for at, key in keys.items()}
    return EconomyPlan(config, genesis, members, numbers, stakes, whale, ring)


@dataclass(frozen=True, slots=True)
class Struck:
    """Whom faults may strike, by number."""

    workers: Sequence[int]
    askers: Sequence[int]
    members: Sequence[int]
    # Peers that misbehave in another way already.
    bad: frozenset[int] = frozenset()
    whale: int | None = None


def plan_faults(
    wanted: Sequence[FaultRequest], seed: int, config: EconomyConfig, struck: Struck
) -> tuple[Fault, ...]:
    """The faults of a network with credits: those that it has besides others, and `partition`."""
    faults: list[Fault] = []
    bad = set(struck.bad)
    for place, one in enumerate(wanted):
        own = f"{seed}:economy:{place}:{one.name}"
        if one.name == "member":
            faults += _restarts(one, own, config, struck)
        elif one.name == "partition":
            faults.append(_cut(one, own, config, struck))
        else:
            faults.append(_misbehaving(one, own, struck, bad))
            bad.update(faults[-1].peers)
    return tuple(faults)


def _share(random: Random, among: Sequence[int], share: float) -> list[int]:
    count = min(len(among), max(1, round(share * len(among))))
    return random.sample(list(among), count)


def _misbehaving(one: FaultRequest, own: str, struck: Struck, bad: set[int]) -> Fault:
    """Askers that do not pay, or workers: as long as there are enough, no peer is bad twice."""
    random = Random(own)
    among = struck.askers if one.name == "nonpayer" else struck.workers
    if one.name == "whale" and struck.whale is not None:
        among = (struck.whale,)
    # One asker is left whose tasks have to be answered.
    most = len(among) - (one.name == "nonpayer")
    share = 0.0 if KINDS[one.name].count_max else one.amount
    count = min(most, max(1, round(share * len(among))))
    order = random.sample(list(among), len(among))
    order.sort(key=lambda it: it in bad)
    return Fault(
        name=one.name,
        amount=one.amount,
        at_s=one.at_s or 0.0,
        for_s=math.inf if one.for_s is None else one.for_s,
        peers=tuple(sorted(order[:count])),
        seed=own,
    )


def _restarts(one: FaultRequest, own: str, config: EconomyConfig, struck: Struck) -> list[Fault]:
    """Once in each epoch, at a drawn moment, for a drawn time."""
    random = Random(own)
    faults = []
    for epoch in range(config.epochs):
        at_s = (epoch + random.random() * 0.9) * config.epoch_s
        if at_s < (one.at_s or 0.0):
            continue
        away_s = random.uniform(0.1, AWAY_MAX) * config.epoch_s
        faults.append(
            Fault(
                name=one.name,
                amount=one.amount,
                at_s=at_s,
                for_s=away_s if one.for_s is None else one.for_s,
                peers=tuple(sorted(_share(random, struck.members, one.amount))),
                seed=f"{own}:{epoch}",
            )
        )
    return faults


def _cut(one: FaultRequest, own: str, config: EconomyConfig, struck: Struck) -> Fault:
    """A share of the workers, and half of the members: no part of these is a quorum."""
    random = Random(own)
    members = random.sample(list(struck.members), len(struck.members) // 2)
    others = [it for it in struck.workers if it not in struck.members]
    lacking = round(one.amount * len(struck.workers)) - len(members)
    cut = members + random.sample(others, max(0, min(len(others), lacking)))
    return Fault(
        name=one.name,
        amount=one.amount,
        at_s=config.seconds / 2 if one.at_s is None else one.at_s,
        for_s=CUT_FOR * config.epoch_s if one.for_s is None else one.for_s,
        peers=tuple(sorted(cut)),
        seed=own,
    )


def is_of_economy(one: FaultRequest | Fault) -> bool:
    """Whether `plan_faults` plans it in a network with credits."""
    return KINDS[one.name].economic or one.name == "partition"


def honest(numbers: Sequence[int], faults: Sequence[Fault]) -> list[int]:
    """Those that no fault makes misbehave."""
    bad = {it for fault in faults if fault.scope in MISBEHAVING for it in fault.peers}
    return [it for it in numbers if it not in bad]
