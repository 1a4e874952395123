"""Prices as candles: bars of equal length, oldest or newest first, with nothing left unsaid. Pure.

The rule, which no setting changes: a bar begins at a whole multiple of its length, counted from
1970-01-01 00:00 UTC. Rows are put in order of their times. A row whose time and cells stand there
already is `doubled` and counted once; one that stands after a later one is `late`. A bar without a
row is a gap. The last bar is that of the latest row, whether it is over or not.
"""

import datetime as dt
import itertools
import math
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.ingest.parsing import Cell
from node.ingest.table import DataTable
from wire.errors import Malformed, Oversize

COUNT_MAX = 10_000
MINUTES_MAX = 7 * 24 * 60
TYPES = ("time", "open", "high", "low", "close", "volume", "rows", "doubled", "late")
# Above this a time is in milliseconds: in seconds it would be the year 5138.
_MILLISECONDS_FROM = 1e11
_YEAR_MAX_S = 253_402_300_800


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleTerms:
    """What is asked for. `gaps` is repeat (the close before, no volume), empty, or refuse.

    `time`, `price` and `volume` name columns, where `volume` may be empty: the column of this name
    is taken if there is one. A table that has open, high, low and close is read
    by these instead of `price`. `zone` is that of times that are written without one.
    """

    base: str
    quote: str
    count: int
    minutes: int
    order: str
    types: tuple[str, ...]
    gaps: str
    time: str
    price: str
    volume: str
    zone: str


@dataclass(slots=True)
class _Bar:
    open: float
    high: float
    low: float
    close: float
    volumes: list[float] = field(default_factory=list)
    rows: int = 0
    doubled: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    time_s: float
    prices: tuple[float, ...]
    volume: float
    late: bool


def candles_of(table: DataTable, terms: CandleTerms) -> DataTable:
    """The last `count` candles; Malformed names the row that cannot be read, or the gap."""
    rows = _rows_of(table, terms)
    if not rows:
        raise Malformed(f"no candles of {terms.base}/{terms.quote}: the table has no rows")
    length_s = terms.minutes * 60
    bars = _bars_of(rows, length_s)
    last = max(bars)
    # As many as are wanted, but none before the first row: there was no price yet.
    first = max(min(bars), last - (terms.count - 1) * length_s)
    found: list[list[Cell]] = []
    before = max((it for it in bars if it < first), default=None)
    close = None if before is None else bars[before].close
    for start_s in range(first, last + 1, length_s):
        bar = bars.get(start_s)
        if bar is None:
            if terms.gaps == "refuse":
                raise Malformed(f"{_when(start_s)}: no price of {terms.base}/{terms.quote}")
            found.append(_gap(start_s, close if terms.gaps == "repeat" else None))
        else:
            close = bar.close
            found.append(_full(start_s, bar))
    if terms.order == "newest":
        found.reverse()
    places = [TYPES.index(it) for it in terms.types]
    return DataTable(terms.types, tuple(tuple(row[it] for it in places) for row in found))


def _full(start_s: int, bar: _Bar) -> list[Cell]:
    volume = math.fsum(bar.volumes)
    prices: list[Cell] = [bar.open, bar.high, bar.low, bar.close]
    return [start_s, *prices, volume, bar.rows, bar.doubled, bar.late]


def _gap(start_s: int, close: float | None) -> list[Cell]:
    return [start_s, close, close, close, close, 0.0, 0, 0, 0]


def _bars_of(rows: Sequence[_Row], length_s: int) -> dict[int, _Bar]:
    """The bars by their begin; rows at one time stay in the order of the table."""
    bars: dict[int, _Bar] = {}
    seen: set[tuple[float, tuple[float, ...], float]] = set()
    for row in sorted(rows, key=lambda it: it.time_s):
        start_s = math.floor(row.time_s / length_s) * length_s
        opened, high, low, close = row.prices
        bar = bars.get(start_s)
        if bar is None:
            bar = bars[start_s] = _Bar(opened, high, low, close)
        bar.late += row.late
        said = (row.time_s, row.prices, row.volume)
        if said in seen:
            bar.doubled += 1
            continue
        seen.add(said)
        bar.high, bar.low, bar.close = max(bar.high, high), min(bar.low, low), close
        bar.volumes.append(row.volume)
        bar.rows += 1
    span = (max(bars) - min(bars)) // length_s
    if span > COUNT_MAX * 1000:
        raise Oversize(f"rows over {span} candles: a time among them is wrong")
    return bars


def _rows_of(table: DataTable, terms: CandleTerms) -> list[_Row]:
    places = {name: number for number, name in enumerate(table.columns)}
    full = ("open", "high", "low", "close")
    names = full if all(it in places for it in full) else (terms.price,)
    own_volume = terms.volume or ("volume" if "volume" in places else "")
    for name in (terms.time, *names, *([own_volume] if own_volume else [])):
        if name not in places:
            raise Malformed(f"there is no column {name!r}; there are: {', '.join(places)[:200]}")
    zone = zone_of(terms.zone)
    rows = []
    latest_s = -math.inf
    for number, row in enumerate(table.rows, start=1):
        time_s = _time_of(row[places[terms.time]], zone, number)
        prices = [number_of(row[places[it]], number, it) for it in names]
        volume = 0.0
        if own_volume:
            volume = number_of(row[places[own_volume]], number, own_volume)
        rows.append(
            _Row(time_s, tuple(prices * (4 if len(prices) == 1 else 1)), volume, time_s < latest_s)
        )
        latest_s = max(latest_s, time_s)
    return rows


def number_of(cell: Cell, row: int, column: str) -> float:
    """A number, also one that is written as text; Malformed names its row and column."""
    if cell is not None and not isinstance(cell, bool):
        try:
            number = float(cell)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise Malformed(f"row {row}, column {column!r}: {str(cell)[:40]!r} is no number")


def zone_of(name: str) -> dt.tzinfo:
    """A time zone by its name; Malformed if there is none."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise Malformed(f"the time zone {name[:40]!r} is not known here") from error


def _time_of(cell: Cell, zone: dt.tzinfo, row: int) -> float:
    if isinstance(cell, str):
        try:
            written = dt.datetime.fromisoformat(cell.strip())
        except ValueError:
            return _seconds(number_of(cell, row, "time"), row)
        if written.tzinfo is None:
            # An hour that a clock shows twice is the first of the two.
            written = written.replace(tzinfo=zone)
        return _seconds(written.timestamp(), row)
    return _seconds(number_of(cell, row, "time"), row)


def _seconds(number: float, row: int) -> float:
    seconds = number / 1000 if abs(number) > _MILLISECONDS_FROM else number
    if not 0 <= seconds < _YEAR_MAX_S:
        raise Malformed(f"row {row}: {number} is no time")
    return seconds


def _when(start_s: int) -> str:
    return dt.datetime.fromtimestamp(start_s, dt.UTC).isoformat()


def terms_of(parameters: Mapping[str, object]) -> CandleTerms:
    """The terms as they stand in a step; Malformed for what no candles can be."""
    found = dict(parameters)
    types = tuple(str(found.pop("types")).split(","))
    terms = CandleTerms(types=types, **found)  # type: ignore[arg-type]
    for value, known in (
        (terms.order, ("oldest", "newest")),
        (terms.gaps, ("repeat", "empty", "refuse")),
        *((it, TYPES) for it in terms.types),
    ):
        if value not in known:
            raise Malformed(f"{value[:40]!r} is none of {', '.join(known)}")
    if not 1 <= terms.count <= COUNT_MAX or not 1 <= terms.minutes <= MINUTES_MAX:
        raise Malformed(f"count is 1 to {COUNT_MAX}, and minutes 1 to {MINUTES_MAX}")
    if any(one == other for one, other in itertools.pairwise(sorted(types))):
        raise Malformed("types names something twice")
    zone_of(terms.zone)
    return terms
