"""The use of the last four weeks as the ledger keeps it, so that users can vote by it. Pure.

A row is one pair of accounts in one week: what the first paid the second for tasks, or nothing if
credits moved between them otherwise alone.
"""

import struct
from collections.abc import Iterable, Mapping

from node.usage.history import WEEK_S, epochs_in_week
from node.usage.owners import owners_of
from wire.content import PeerId
from wire.usage import UseLine

USE = b"u"
WEEKS = 4
_KEY = struct.Struct(">1sQ32s32s")
_WEEK = struct.Struct(">1sQ")
# Transfers cost nothing, so the pairs that only moved credits in a week are bounded. A ring that
# hides behind a flood of them votes as one does whose credits come back outside of the ledger.
PLAIN_MAX = 100_000
_PAID = struct.Struct(">Q")

Rows = Mapping[bytes, bytes]


def week_of(epoch: int, epoch_s: int) -> int:
    """The week in which an epoch lies."""
    return epoch // epochs_in_week(WEEK_S, epoch_s)


def noted(
    rows: Rows, week: int, lines: Iterable[UseLine], transfers: Iterable[tuple[PeerId, PeerId]]
) -> dict[bytes, bytes | None]:
    """What an epoch changes in the rows: its use is added, and weeks that are too old go."""
    found: dict[bytes, bytes | None] = {}
    for line in lines:
        key = _KEY.pack(USE, week, line.payer, line.payee)
        before = found.get(key) or rows.get(key)
        paid = _PAID.unpack(before)[0] if before else 0
        found[key] = _PAID.pack(paid + line.paid)
    now = _WEEK.pack(USE, week)
    plain = sum(key[:9] == now and not paid_in(value) for key, value in rows.items())
    for payer, payee in sorted(set(transfers)):
        key = _KEY.pack(USE, week, payer, payee)
        if plain < PLAIN_MAX and key not in rows and key not in found:
            plain += 1
            found[key] = _PAID.pack(0)
    oldest = _KEY.pack(USE, max(0, week - WEEKS + 1), bytes(32), bytes(32))
    found |= {key: None for key in rows if key[:1] == USE and key < oldest}
    return found


def paid_in(value: bytes) -> int:
    """What a row says was paid for tasks, in millionths."""
    found: int = _PAID.unpack(value)[0]
    return found


def payer_of(key: bytes, value: bytes | None) -> bytes | None:
    """Who paid for tasks by this row; None if it is no such row."""
    return key[9:41] if key[:1] == USE and value is not None and paid_in(value) else None


def owners_in(rows: Rows) -> dict[bytes, int]:
    """The owner of each account that the rows name, as a number."""
    numbers: dict[bytes, int] = {}
    edges = []
    for key in rows:
        if key[:1] == USE:
            _, _, payer, payee = _KEY.unpack(key)
            source = numbers.setdefault(payer, len(numbers))
            target = numbers.setdefault(payee, len(numbers))
            edges.append((source, target))
    owners = owners_of(len(numbers), edges)
    return {name: owners[number] for name, number in numbers.items()}


def weights_of(rows: Rows) -> dict[bytes, int]:
    """What each account paid to others than its owner in these weeks, in millionths."""
    owners = owners_in(rows)
    weights: dict[bytes, int] = {}
    for key, value in rows.items():
        if payer_of(key, value) is not None:
            _, _, payer, payee = _KEY.unpack(key)
            if owners[payer] != owners[payee]:
                weights[payer] = weights.get(payer, 0) + paid_in(value)
    return weights


def earned_of(rows: Rows) -> dict[bytes, int]:
    """What each account was paid by others than its owner in these weeks, in millionths."""
    owners = owners_in(rows)
    earned: dict[bytes, int] = {}
    for key, value in rows.items():
        if payer_of(key, value) is not None:
            _, _, payer, payee = _KEY.unpack(key)
            if owners[payer] != owners[payee]:
                earned[payee] = earned.get(payee, 0) + paid_in(value)
    return earned


def strangers_in(rows: Rows, lines: Iterable[UseLine]) -> list[UseLine]:
    """Those of an epoch's lines between accounts that are not taken for one owner's."""
    owners = owners_in(rows)
    return [it for it in lines if owners[it.payer] != owners[it.payee]]
