"""What a machine tells of itself: heat, power, its battery, and whether its way out is metered.

Everything is read below `root`, so that a test shows a machine of its own making. What a machine
does not tell is None: nothing is guessed.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

LOOK_DEADLINE_S = 3.0
# Whom a command has to be started for is asked less often.
ASK_EVERY_S = 30.0
# What NetworkManager says of the way out: yes, no, and its guesses.
_METERED = {"1": True, "2": False, "3": True, "4": False}
_ASK_METERED = (
    "busctl",
    "get-property",
    "org.freedesktop.NetworkManager",
    "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager",
    "Metered",
)
# Sensors that are broken, or not connected, show such figures.
_CELSIUS_MIN, _CELSIUS_MAX = 1.0, 150.0
_DIGITS_MAX = 18


def said_by(words: Sequence[str]) -> str | None:
    """What a command prints; None if it is not there, fails, or takes too long."""
    program = shutil.which(words[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOOK_DEADLINE_S,
            check=True,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorReading:
    """One look. `watts` is what the processors take, or what comes out of the battery."""

    celsius: float | None = None
    watts: float | None = None
    on_battery: bool | None = None
    # From 0 to 1.
    battery_share: float | None = None
    metered: bool | None = None

    def as_map(self) -> dict[str, float | bool | None]:
        """For `status`."""
        return asdict(self)


@dataclass(slots=True)
class Sensors:
    """The sensors of one machine. `read` waits for files and, now and then, for a command."""

    root: Path = Path("/")
    output_of: Callable[[Sequence[str]], str | None] = said_by
    monotonic_s: Callable[[], float] = time.monotonic
    _energy: tuple[float, int] | None = None
    _metered: bool | None = None
    _asked_at_s: float = field(default=float("-inf"))

    def read(self) -> SensorReading:
        """All that can be told now."""
        return SensorReading(
            celsius=max(self.temperatures(), default=None),
            watts=self._watts(),
            on_battery=self.on_battery(),
            battery_share=self._battery_share(),
            metered=self.is_metered(),
        )

    def temperatures(self) -> list[float]:
        """Of every sensor of the machine's board and processors, in degrees Celsius."""
        found = [
            number / 1000
            for pattern in ("class/thermal/thermal_zone*/temp", "class/hwmon/hwmon*/temp*_input")
            for number in self._numbers(pattern)
        ]
        return [it for it in found if _CELSIUS_MIN < it < _CELSIUS_MAX]

    def on_battery(self) -> bool | None:
        """Whether no mains is connected; None without a battery."""
        kinds: dict[str, list[Path]] = {}
        for supply in self._supplies():
            kinds.setdefault(_text(supply / "type"), []).append(supply)
        if not any(_powers_machine(it) for it in kinds.get("Battery", ())):
            return None
        mains = kinds.get("Mains", []) + kinds.get("USB", [])
        return not any(_text(it / "online") == "1" for it in mains)

    def _battery_share(self) -> float | None:
        shares = [
            int(text) / 100
            for it in self._supplies()
            if _text(it / "type") == "Battery" and _powers_machine(it)
            if (text := _text(it / "capacity")[:_DIGITS_MAX]).isdecimal()
        ]
        return min(shares, default=None)

    def _supplies(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from sorted((self.root / "sys/class/power_supply").iterdir())

    def _watts(self) -> float | None:
        """By the processors' own counters, where this user may read them, else by the battery's."""
        now_at_s = self.monotonic_s()
        # Packages alone: what is below them is counted in them.
        microjoules = list(self._numbers("class/powercap/intel-rapl:?/energy_uj"))
        if microjoules:
            before, self._energy = self._energy, (now_at_s, sum(microjoules))
            if before is None or now_at_s <= before[0] or self._energy[1] < before[1]:
                return None
            return (self._energy[1] - before[1]) / 1e6 / (now_at_s - before[0])
        drawn = [
            int(text) / 1e6
            for it in self._supplies()
            if _text(it / "status") == "Discharging"
            if (text := _text(it / "power_now")[:_DIGITS_MAX]).isdecimal()
        ]
        return sum(drawn) if drawn else None

    def is_metered(self) -> bool | None:
        """Whether the way out is paid by the byte; None where nobody says."""
        now_at_s = self.monotonic_s()
        if now_at_s - self._asked_at_s >= ASK_EVERY_S:
            self._asked_at_s = now_at_s
            said = self.output_of(_ASK_METERED)
            self._metered = None if said is None else _METERED.get(said.strip().removeprefix("u "))
        return self._metered

    def _numbers(self, pattern: str) -> Iterator[int]:
        with suppress(OSError):
            for file in sorted((self.root / "sys").glob(pattern)):
                text = _text(file)
                if len(text) <= _DIGITS_MAX and text.removeprefix("-").isdecimal():
                    yield int(text)


def _powers_machine(supply: Path) -> bool:
    """Whether it is the machine's own battery, and not that of a mouse."""
    return _text(supply / "scope") != "Device"


def _text(file: Path) -> str:
    """What a small file holds; "" where it cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as source:
            return source.read(4096).strip()
    except OSError:
        return ""
