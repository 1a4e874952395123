"""Options of `join`, `bench` and `run` that say what Baton takes of the machine."""

from dataclasses import replace
from typing import Any

import click

from node.commands.command import together
from node.commands.options import bytes_of
from node.guest.rules import (
    DEVICES,
    GuestConfig,
    Schedule,
    celsius_of,
    device_of,
    gpus_of,
    share_of,
)
from wire.errors import InputError

PAUSE = "pause"
PAUSE_OR_RUN = click.Choice((PAUSE, "run"))
# What models run on.
device_options = together(
    click.option(
        "--device",
        help=f"What models run on: {', '.join(DEVICES)}; cuda, amd and cl with a number"
        " (cuda:1) where there are several. cl is OpenCL. Default: cpu.",
    ),
    click.option(
        "--gpu", help="The numbers of the machine's GPUs to use, as 0,1. Default: the CPU."
    ),
    click.option(
        "--vram",
        help="How much memory of each GPU models may take at most, as 8GB. Default with"
        " --device: 4GB.",
    ),
)
# How much of the machine models take.
machine_options = together(
    device_options,
    click.option("--memory", help="How much memory models may take at most, as 8GB. Default: 4GB."),
    click.option(
        "--cpu",
        default="100%",
        show_default=True,
        help="CPU limit while a model runs, as a share of one core.",
    ),
)
# When a peer takes no new work, and what it takes of the network.
manners_options = together(
    click.option(
        "--pause-when-busy",
        is_flag=True,
        help="Take no new work while other programs need the machine.",
    ),
    click.option("--schedule", help="Take work only between these local times, as 22:00-08:00."),
    click.option(
        "--on-battery",
        type=PAUSE_OR_RUN,
        default="run",
        show_default=True,
        help="What to do while the machine runs on its battery.",
    ),
    click.option(
        "--max-temp",
        help="Take no new work while the machine's hottest sensor shows more, as 85C.",
    ),
    click.option(
        "--metered",
        type=PAUSE_OR_RUN,
        default="run",
        show_default=True,
        help="What to do while NetworkManager says that the network is paid by the byte.",
    ),
    click.option(
        "--up", help="How much may be sent to other peers at most, as 2MB/s. Default: none."
    ),
    click.option("--down", help="How much may be received at most, as 10MB/s. Default: none."),
    click.option(
        "--per-month",
        help="Take no new work once so much was sent and received in a month, as 50GB.",
    ),
)


def chosen_device(device: str | None, gpu: str | None) -> tuple[str, tuple[int, ...]]:
    """The device's name, empty where none is given, and its numbers; InputError."""
    name, numbers = ("", ()) if device is None else device_of(device)
    if gpu is None:
        return name, numbers
    if numbers:
        raise InputError(
            "--device and --gpu both give a number", todo=f"leave out one: --device {name} --gpu 0"
        )
    return name, gpus_of(gpu)


def guest_of(
    *,
    device: str | None,
    gpu: str | None,
    vram: str | None,
    memory: str | None = None,
    cpu: str = "100%",
    **manners: Any,
) -> GuestConfig:
    """What the options say; InputError if they make no sense."""
    name, numbers = chosen_device(device, gpu)
    return replace(
        _manners_of(**manners),
        device=name,
        gpus=numbers,
        vram_bytes=None if vram is None else bytes_of(vram),
        memory_bytes=None if memory is None else bytes_of(memory),
        cpu_share=share_of(cpu),
    )


def _manners_of(
    *,
    pause_when_busy: bool = False,
    schedule: str | None = None,
    on_battery: str = "run",
    max_temp: str | None = None,
    metered: str = "run",
    up: str | None = None,
    down: str | None = None,
    per_month: str | None = None,
) -> GuestConfig:
    """When a peer pauses, and what it takes of the network."""
    return GuestConfig(
        pause_when_busy=pause_when_busy,
        schedule=None if schedule is None else Schedule.parse(schedule),
        pause_on_battery=on_battery == PAUSE,
        celsius_max=None if max_temp is None else celsius_of(max_temp),
        pause_when_metered=metered == PAUSE,
        up_bytes_per_s=None if up is None else _rate_of(up),
        down_bytes_per_s=None if down is None else _rate_of(down),
        month_bytes_max=None if per_month is None else bytes_of(per_month),
    )


def _rate_of(text: str) -> int:
    """`2MB/s` in bytes a second; InputError for anything else."""
    return bytes_of(text.strip().removesuffix("/s"))
