"""Genesis files: how a network with a ledger begins, written once and read by whoever joins it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.local.arguments import read_key
from wire import limits
from wire.amount import read_credits
from wire.content import PeerId
from wire.errors import InputError, WireError
from wire.ledger import Genesis, Grant, Member

VERSION = 1
# The least that an account is opened with: a thousandth of a credit.
ACCOUNT_MIN = 1000
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisRequest:
    """What a person wants the network to be; keys and amounts are as they typed them."""

    name: str
    members: Sequence[str]
    grants: Sequence[str]
    supply: str
    epoch: str
    own: PeerId


def make_genesis(wanted: GenesisRequest, entropy: Callable[[int], bytes]) -> Genesis:
    """The genesis; InputError for a key, an amount or a time that is none."""
    members = {read_key(it) for it in wanted.members} or {wanted.own}
    grants: dict[PeerId, int] = {}
    for text in wanted.grants:
        key, found, amount = text.partition("=")
        if not found:
            raise InputError(f"{text[:80]!r} is no grant", todo="give --grant KEY=AMOUNT")
        account = wanted.own if key == "me" else read_key(key)
        grants[account] = grants.get(account, 0) + read_credits(amount)
    supply = read_credits(wanted.supply)
    fund = supply - sum(grants.values())
    if fund < 0:
        raise InputError(
            "the grants are more than the supply", todo="grant less, or give a larger --supply"
        )
    try:
        return Genesis(
            version=VERSION,
            name=wanted.name,
            nonce=entropy(16),
            epoch_s=read_epoch_s(wanted.epoch),
            account_min=ACCOUNT_MIN,
            fund=fund,
            grants=tuple(Grant(account=it, amount=grants[it]) for it in sorted(grants)),
            members=tuple(Member(key=it, weight=1) for it in sorted(members)),
        )
    except WireError as error:
        raise InputError(f"there is no such network: {error.message}") from error


def read_epoch_s(text: str, example: str = "--epoch 1h or 90s") -> int:
    """`1h`, `90s`, `2d` in seconds; InputError for anything else."""
    unit = _UNITS_S.get(text[-1:])
    if unit is None or not text[:-1].isdecimal() or not text.isascii() or len(text) > 9:
        raise InputError(f"{text[:40]!r} is not a time", todo=f"for example {example}")
    return int(text[:-1]) * unit


def read_genesis(path: Path) -> Genesis:
    """The genesis in a file; InputError if there is none."""
    try:
        with path.open("rb") as source:
            raw = source.read(limits.GENESIS_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", todo="check what --genesis names"
        ) from error
    try:
        return Genesis.from_bytes(raw)
    except WireError as error:
        raise InputError(
            f"{path} is no genesis file: {error.message}",
            todo="get it from whoever began the network, or begin one: network new NAME",
        ) from error
