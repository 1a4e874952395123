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
    for payer, payee in transfers:
        key = _KEY.pack(USE, week, payer, payee)
        if key not in rows:
            found.setdefault(key, _PAID.pack(0))
    oldest = _KEY.pack(USE, max(0, week - WEEKS + 1), bytes(32), bytes(32))
    found |= {key: None for key in rows if key[:1] == USE and key < oldest}
    return found


def weights_of(rows: Rows) -> dict[bytes, int]:
    """What each account paid to others than its owner in these weeks, in millionths."""
    numbers: dict[bytes, int] = {}
    pairs: list[tuple[int, int, int]] = []
    for key, value in rows.items():
        if key[:1] != USE:
            continue
        _, _, payer, payee = _KEY.unpack(key)
        source = numbers.setdefault(payer, len(numbers))
        target = numbers.setdefault(payee, len(numbers))
        pairs.append((source, target, _PAID.unpack(value)[0]))
    owners = owners_of(len(numbers), ((source, target) for source, target, _ in pairs))
    names = list(numbers)
    weights: dict[bytes, int] = {}
    for source, target, paid in pairs:
        if paid and owners[source] != owners[target]:
            weights[names[source]] = weights.get(names[source], 0) + paid
    return weights


def strangers_in(rows: Rows, lines: Iterable[UseLine]) -> list[UseLine]:
    """Those of an epoch's lines between accounts that are not taken for one owner's."""
    numbers: dict[bytes, int] = {}
    edges = []
    for key in rows:
        if key[:1] == USE:
            _, _, payer, payee = _KEY.unpack(key)
            source = numbers.setdefault(payer, len(numbers))
            edges.append((source, numbers.setdefault(payee, len(numbers))))
    owners = owners_of(len(numbers), edges)
    return [it for it in lines if owners[numbers[it.payer]] != owners[numbers[it.payee]]]
