"""A peer is a guest on its owner's machine: when the peer works, and how much it takes. Pure.

What these rules know of the machine and of the time comes from `node.local.guest_watch`.
"""

import re
from dataclasses import dataclass
from typing import Self

from wire.errors import InputError

MINUTES_A_DAY = 24 * 60
# The owner is busy from these shares on: of all cores, and of a GPU, used by other programs.
BUSY_CPU = 0.5
BUSY_GPU = 0.1
# The owner has to be busy for so long before we pause, and at rest for so long before we go on.
BUSY_S = 4.0
CALM_S = 30.0
GPUS_MAX = 16
# Who was too hot goes on once it is so much cooler.
COOLER_CELSIUS = 5.0
MONTH_BYTES_MIN = 1_000_000_000
# With less, the pings of a connection would wait too long behind what is under way.
RATE_BYTES_MIN = 128_000
# What models can run on, by the names that people give; the driver numbers the last three.
PROCESSOR = "cpu"
DEVICES = (PROCESSOR, "cuda", "amd", "metal", "cl", "webgpu")
# Of these a system has one: its driver offers no others.
SINGLE = frozenset((PROCESSOR, "metal", "webgpu"))
_SCHEDULE = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-4]):([0-5]\d)")
_CELSIUS = re.compile(r"(\d{1,3}(?:\.\d)?) ?°?C?", re.IGNORECASE)
_SHARE = re.compile(r"(\d{1,3})%?")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A part of each day in local time, in minutes from midnight; it may go over midnight."""

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`22:00-08:00`; InputError for anything else."""
        match = _SCHEDULE.fullmatch(text.strip())
        if match is not None:
            first, second, third, fourth = (int(it) for it in match.groups())
            begin, end = first * 60 + second, third * 60 + fourth
            if end <= MINUTES_A_DAY and begin != end:
                return cls(begin, end)
        raise InputError(
            f"{text[:40]!r} is not a part of the day", todo="for example --schedule 22:00-08:00"
        )

    def __contains__(self, minute: int) -> bool:
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end

    def __str__(self) -> str:
        ends = (self.begin, self.end)
        return "-".join(f"{it // 60:02}:{it % 60:02}" for it in ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """What the owner of a machine allows.

    `device` is one of DEVICES, or empty where the machine's GPU is meant if `gpus` names one, and
    the processor if not. `vram_bytes` limits each GPU, `memory_bytes` all models together, and
    `cpu_share` the one core that a worker uses.
    """

    device: str = ""
    gpus: tuple[int, ...] = ()
    vram_bytes: int | None = None
    memory_bytes: int | None = None
    cpu_share: float = 1.0
    pause_when_busy: bool = False
    schedule: Schedule | None = None
    # What the machine itself tells of: it pauses on its battery, from so hot on, where it is
    # metered, and once so many bytes moved in a month.
    pause_on_battery: bool = False
    celsius_max: float | None = None
    pause_when_metered: bool = False
    month_bytes_max: int | None = None
    # What connections to other peers may take of the network, all together.
    up_bytes_per_s: int | None = None
    down_bytes_per_s: int | None = None

    def __post_init__(self) -> None:
        if not 0.01 <= self.cpu_share <= 1:
            raise InputError(
                "the CPU limit must be between 1% and 100%", todo="for example --cpu 50%"
            )
        if len(set(self.gpus)) != len(self.gpus) or len(self.gpus) > GPUS_MAX:
            raise InputError(
                "each GPU may be named once, and at most 16 may be", todo="for example --gpu 0,1"
            )
        if self.device in SINGLE and any(self.gpus):
            raise InputError(
                f"{self.device} has no device {max(self.gpus)}: there is one, without a number",
                todo=f"--device {self.device} alone",
            )
        if self.device == PROCESSOR and self.gpus:
            raise InputError(
                "--gpu names a GPU, and --device the processor", todo="leave out one of the two"
            )
        self._check_vram()
        if self.celsius_max is not None and not 40 <= self.celsius_max <= 110:
            raise InputError(
                f"{self.celsius_max:g} °C is no limit that a processor keeps to",
                todo="for example --max-temp 85C",
            )
        for option, rate in (("--up", self.up_bytes_per_s), ("--down", self.down_bytes_per_s)):
            if rate is not None and rate < RATE_BYTES_MIN:
                raise InputError(
                    f"with {rate} bytes/s {option} leaves too little to stay connected",
                    todo=f"give at least {RATE_BYTES_MIN // 1000}KB/s, or none",
                )
        if self.month_bytes_max is not None and self.month_bytes_max < MONTH_BYTES_MIN:
            raise InputError(
                f"{self.month_bytes_max} bytes a month are used up by staying connected",
                todo="for example --per-month 50GB",
            )

    def _check_vram(self) -> None:
        if self.vram_bytes is not None and not self.on_gpu:
            raise InputError(
                "--vram limits the memory of a GPU, and no GPU is used",
                todo="name one with --gpu 0, or with --device",
            )
        if self.gpus and not self.device and self.vram_bytes is None:
            raise InputError(
                "the limit for the GPU's memory is missing",
                todo="for example --vram 8GB",
            )

    @property
    def on_gpu(self) -> bool:
        """Whether models run on anything but the processor."""
        return bool(self.gpus) if not self.device else self.device != PROCESSOR

    @property
    def watched_gpus(self) -> tuple[int, ...]:
        """The GPUs of which their drivers tell how busy they are, by these numbers."""
        return self.gpus if self.device in ("", "cuda", "amd") else ()

    @property
    def pauses(self) -> bool:
        """Whether the peer may have to pause at all."""
        return bool(
            self.pause_when_busy
            or self.schedule is not None
            or self.needs_sensors
            or self.month_bytes_max
        )

    @property
    def needs_sensors(self) -> bool:
        """Whether a rule asks how hot the machine is, or what it runs on."""
        return self.pause_on_battery or self.pause_when_metered or self.celsius_max is not None


def share_of(text: str) -> float:
    """`50%` as 0.5; InputError for anything else."""
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text[:20]!r} is not a percentage", todo="for example --cpu 50%")
    return int(match[1]) / 100


def gpus_of(text: str) -> tuple[int, ...]:
    """`0,1` as the numbers of GPUs; InputError for anything else."""
    parts = text.split(",")
    if not all(it.strip().isdecimal() and len(it) < 4 for it in parts):
        raise InputError(f"{text[:40]!r} is not a list of GPUs", todo="for example --gpu 0,1")
    return tuple(int(it) for it in parts)


def device_of(text: str) -> tuple[str, tuple[int, ...]]:
    """`cuda:1` as the name of a device and its number, if there is one; InputError."""
    name, colon, number = text.strip().lower().partition(":")
    if name not in DEVICES:
        raise InputError(
            f"there is no device {text[:40]!r}", todo=f"use one of {', '.join(DEVICES)}"
        )
    numbers = gpus_of(number) if colon else ()
    # Where there is one alone it may be called the first.
    return name, () if name in SINGLE and numbers == (0,) else numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The machine at one moment. Shares exclude our own use; None where the share is unknown."""

    minute: int
    cpu_share: float | None = None
    gpu_share: float | None = None
    celsius: float | None = None
    on_battery: bool | None = None
    metered: bool | None = None
    month_bytes: int = 0


@dataclass(slots=True)
class OwnerPolicy:
    """Whether to work for others now. Pure: callers pass the time in."""

    config: GuestConfig
    _busy: str = ""
    # Since when the machine has been other than `_busy` says.
    _turned_at_s: float | None = None
    _hot: bool = False

    def decide(self, seen: Seen, now_at_s: float) -> str:
        """Why to pause, in words for other peers; empty to go on."""
        schedule = self.config.schedule
        if schedule is not None and seen.minute not in schedule:
            return f"it works from {schedule} only"
        if found := self._by_machine(seen):
            return found
        if not self.config.pause_when_busy:
            return ""
        found = _busy(seen)
        if bool(found) is bool(self._busy):
            self._turned_at_s = None
            self._busy = found
        elif self._turned_at_s is None:
            self._turned_at_s = now_at_s
        elif now_at_s - self._turned_at_s >= (BUSY_S if found else CALM_S):
            self._turned_at_s = None
            self._busy = found
        return self._busy

    def _by_machine(self, seen: Seen) -> str:
        """What the machine's battery, heat and network say; what it does not tell is no reason."""
        config = self.config
        if config.pause_on_battery and seen.on_battery:
            return "its machine runs on its battery"
        if config.celsius_max is not None and seen.celsius is not None:
            # Once it is hot it cools down for a while: else it would begin again at once.
            limit = config.celsius_max - (COOLER_CELSIUS if self._hot else 0.0)
            self._hot = seen.celsius >= limit
            if self._hot:
                return f"its machine is hotter than {config.celsius_max:g} °C"
        if config.pause_when_metered and seen.metered:
            return "its machine pays for its network by the byte"
        if config.month_bytes_max is not None and seen.month_bytes >= config.month_bytes_max:
            return "what its owner gives of the network in a month is used up"
        return ""

    def untold(self, seen: Seen) -> list[str]:
        """The rules about which this machine does not tell, in words for its owner.

        One without a battery runs on mains: of that rule there is nothing to tell.
        """
        config = self.config
        found = []
        if config.celsius_max is not None and seen.celsius is None:
            found.append("--max-temp: no sensor of this machine can be read")
        if config.pause_when_metered and seen.metered is None:
            found.append("--metered pause: no NetworkManager says whether the network is metered")
        return found


def celsius_of(text: str) -> float:
    """`85C` as 85.0; InputError for anything else."""
    match = _CELSIUS.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text[:20]!r} is no temperature", todo="for example --max-temp 85C")
    return float(match[1])


def _busy(seen: Seen) -> str:
    if seen.gpu_share is not None and seen.gpu_share >= BUSY_GPU:
        return "its owner uses the GPU"
    if seen.cpu_share is not None and seen.cpu_share >= BUSY_CPU:
        return "its owner uses the machine"
    return ""
