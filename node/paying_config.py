"""The prices of a peer as its owner types them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wire.amount import AMOUNT_MAX, read_credits, show_credits
from wire.errors import InputError
from wire.tariff import UNITS

_PER = {"1k": 1000, "1m": 1_000_000}
# Of nothing the unit may be left out.
_PRICE = re.compile(r"([0-9.]+)/(1k|1m)(?::(0|[0-9.]+(?=/))(?:/(1k|1m))?)?(?:\+([0-9.]+))?")
# What is no model and has a price: passages that are fetched, KiB that are kept for others, KiB
# that are passed on between others.
DATA, STORE, RELAY = "data", "store", "relay"
SERVICES = (DATA, STORE, RELAY)
_EXAMPLE = "for example --price smollm2=0.3/1k:0.6/1k"


@dataclass(frozen=True, slots=True)
class TypedPrice:
    """What one model or service costs, in millionths for UNITS units; `base` for each task."""

    base: int
    given: int
    made: int


@dataclass(frozen=True, slots=True)
class TypedPrices:
    """What an owner asks for: models by the names that were typed, SERVICES, and each check."""

    models: Mapping[str, TypedPrice] = field(default_factory=dict)
    check: int = 0

    def __bool__(self) -> bool:
        return bool(self.models) or self.check > 0


def read_prices(typed: Iterable[str], check: str | None) -> TypedPrices:
    """`MODEL=IN:OUT` as 0.3/1k:0.6/1k, each with a base after a +; InputError for anything else."""
    models: dict[str, TypedPrice] = {}
    for text in typed:
        name, found, price = text.rpartition("=")
        match = _PRICE.fullmatch(price.strip().lower())
        is_model = name.strip() not in SERVICES
        if match is not None and (match[3] is not None) is not is_model:
            match = None
        if not found or not name.strip() or match is None:
            raise InputError(
                f"{text[:80]!r} is no price",
                todo=_todo(name.strip() if found else text.strip()),
            )
        if name.strip() == RELAY and match[5] is not None:
            raise InputError(
                f"{text[:80]!r}: a relay asks for bytes alone, and nothing for a line",
                todo="leave out what is behind the +, as in --price relay=0.01/1m",
            )
        if name.strip() in models:
            raise InputError(f"two prices for {name.strip()!r}", todo="give one")
        given, per_given, made, per_made, base = match.groups()
        models[name.strip()] = TypedPrice(
            _amount(base or "0"),
            _for_units(given, per_given),
            _for_units(made or "0", per_made or "1k"),
        )
    return TypedPrices(models, _amount(check or "0"))


def _todo(name: str) -> str:
    """What to give, with an example for what was named."""
    if name in SERVICES:
        per = "1m" if name == RELAY else "1k"
        return f"give {name}=CREDITS/1k or {name}=CREDITS/1m, for example --price {name}=0.01/{per}"
    return (
        "give MODEL=IN:OUT in credits for 1k or 1m units, or data=IN for passages, or"
        f" store=IN for KiB, or relay=IN for KiB passed on, {_EXAMPLE}"
    )


def read_price(text: str) -> TypedPrice:
    """`IN:OUT` as 0.3/1k:0.6/1k, with a base after a +, for any model; InputError otherwise."""
    try:
        return read_prices([f"any={text}"], None).models["any"]
    except InputError as error:
        raise InputError(
            f"{text[:80]!r} is no price",
            todo="give IN:OUT in credits for 1k or 1m units, as in 0.3/1k:0.6/1k+0.001",
        ) from error


def read_relay_pay_max(text: str | None) -> int:
    """What is paid for UNITS KiB that a relay passes on, at most, in millionths; None: nothing."""
    return _amount(text or "0")


def _for_units(text: str, per: str) -> int:
    amount = _amount(text) * (UNITS // _PER[per])
    if amount > AMOUNT_MAX:
        raise InputError(f"{text[:40]} credits are too many for {per} units", todo=_EXAMPLE)
    return amount


def _amount(text: str) -> int:
    return 0 if re.fullmatch(r"0+(\.0*)?", text.strip()) else read_credits(text)


SPONSOR_EACH_DEFAULT = "0.5"
# So many keys at most are given credits in an epoch: what is remembered of each epoch is bounded.
SPONSORED_MAX = 1000


@dataclass(frozen=True, slots=True)
class Sponsoring:
    """What a peer gives to newcomers, in millionths: in each epoch, and to each key once.

    `puzzle`: to whoever does some work for it, from whatever address.
    """

    per_epoch: int
    each: int
    puzzle: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.each <= self.per_epoch:
            raise InputError(
                f"{show_credits(self.each)} credits for each key are more than"
                f" {show_credits(self.per_epoch)} in an epoch",
                todo="give --sponsor 100 --sponsor-each 0.5, or amounts like these",
            )
        if self.per_epoch // self.each > SPONSORED_MAX:
            raise InputError(
                f"that would be {self.per_epoch // self.each} keys in an epoch, at most"
                f" {SPONSORED_MAX} are given credits",
                todo="give each key more with --sponsor-each, or less in an epoch with --sponsor",
            )

    def check_opens(self, account_min: int) -> None:
        """InputError if what each key is given opens no account."""
        if self.each < account_min:
            raise InputError(
                f"an account is opened with at least {show_credits(account_min)} credits",
                todo=f"give --sponsor-each {show_credits(account_min)} or more",
            )


def read_sponsoring(
    per_epoch: str | None, each: str | None, *, puzzle: bool = False
) -> Sponsoring | None:
    """What was typed for --sponsor and what goes with it; None if this peer gives nothing."""
    if per_epoch is None:
        if each is not None or puzzle:
            alone = "--sponsor-puzzle" if each is None else "--sponsor-each"
            raise InputError(
                f"{alone} alone gives nothing", todo="add --sponsor 100, for each epoch"
            )
        return None
    return Sponsoring(read_credits(per_epoch), read_credits(each or SPONSOR_EACH_DEFAULT), puzzle)
