"""Who stakes how much in a devnet with credits, and whose keys a ring's are, drawn from the seed.

Pure. Only a run with a fault that costs its doer stake has any stakes: workers stake all alike, but
for the whale.
"""

from collections.abc import Mapping, Sequence
from random import Random

from node.devnet.faults import FOUND_BY_CHECKS, FaultRequest
from node.devnet.plan import PeerPlan, key_of
from wire.amount import CREDIT
from wire.kinds import Role
from wire.signing import SigningKey
from wire.stake import StakePart

STAKE = 50 * CREDIT
STAKED_ROLES = (Role.INFER, Role.VERIFY)
# A whale has at most so large a share: the rest is too little to be drawn at all.
WHALE_SHARE_MAX = 0.9
# The keys of a ring are numbered from here on: no peer has so high a number.
RING_FIRST = 1 << 20


def _amount_of(wanted: Sequence[FaultRequest], name: str) -> float:
    return next((it.amount for it in wanted if it.name == name), 0.0)


def plan_stakes(
    wanted: Sequence[FaultRequest], seed: int, peers: Sequence[PeerPlan]
) -> tuple[Mapping[int, tuple[StakePart, ...]], int | None]:
    """What each worker stakes for its roles, by number, and who is the whale, if one is wanted."""
    if not any(it.name in FOUND_BY_CHECKS for it in wanted):
        return {}, None
    stakes = {
        it.number: tuple(
            StakePart(role=role, amount=STAKE) for role in STAKED_ROLES if role in it.roles
        )
        for it in peers
        if not it.asks and not it.roles.isdisjoint(STAKED_ROLES)
    }
    share = min(WHALE_SHARE_MAX, _amount_of(wanted, "whale"))
    verifiers = [it for it in peers if it.number in stakes and Role.VERIFY in it.roles]
    # One that only checks: what it stakes is all for that.
    only = [it.number for it in verifiers if Role.INFER not in it.roles]
    if not share or not only:
        return stakes, None
    whale = Random(f"{seed}:whale").choice(only)
    amount = int((len(verifiers) - 1) * STAKE * share / (1 - share))
    stakes[whale] = (StakePart(role=Role.VERIFY, amount=amount),)
    return stakes, whale


def ring_keys(wanted: Sequence[FaultRequest], seed: int) -> tuple[SigningKey, ...]:
    """The keys that one owner has besides, to pay itself in a circle."""
    count = int(_amount_of(wanted, "ring"))
    return tuple(key_of(seed, RING_FIRST + at) for at in range(count))
