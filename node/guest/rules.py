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
# What models can run on, by the names that people give; the driver numbers the last three.
PROCESSOR = "cpu"
DEVICES = (PROCESSOR, "cuda", "amd", "metal", "cl", "webgpu")
# Of these a system has one: its driver offers no others.
SINGLE = frozenset((PROCESSOR, "metal", "webgpu"))
_SCHEDULE = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-4]):([0-5]\d)")
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
        return self.pause_when_busy or self.schedule is not None


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


@dataclass(slots=True)
class OwnerPolicy:
    """Whether to work for others now. Pure: callers pass the time in."""

    config: GuestConfig
    _busy: str = ""
    # Since when the machine has been other than `_busy` says.
    _turned_at_s: float | None = None

    def decide(self, seen: Seen, now_at_s: float) -> str:
        """Why to pause, in words for other peers; empty to go on."""
        schedule = self.config.schedule
        if schedule is not None and seen.minute not in schedule:
            return f"it works from {schedule} only"
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


def _busy(seen: Seen) -> str:
    if seen.gpu_share is not None and seen.gpu_share >= BUSY_GPU:
        return "its owner uses the GPU"
    if seen.cpu_share is not None and seen.cpu_share >= BUSY_CPU:
        return "its owner uses the machine"
    return ""
