"""Options of `join` and `bench` that limit what Baton takes of the machine."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from node.commands.options import bytes_of
from node.guest.rules import GuestConfig, Schedule, gpus_of, share_of

F = TypeVar("F", bound=Callable[..., Any])


def guest_options(function: F) -> F:
    """The options, in the order in which they are shown."""
    for option in reversed(
        (
            click.option(
                "--gpu", help="The numbers of the NVIDIA GPUs to use, as 0,1. Default: the CPU."
            ),
            click.option(
                "--vram", help="How much memory of each GPU models may take at most, as 8GB."
            ),
            click.option(
                "--memory", help="How much memory models may take at most, as 8GB. Default: 4GB."
            ),
            click.option(
                "--cpu",
                default="100%",
                show_default=True,
                help="CPU limit while a model runs, as a share of one core.",
            ),
            click.option(
                "--pause-when-busy",
                is_flag=True,
                help="Take no new work while other programs need the machine.",
            ),
            click.option(
                "--schedule", help="Take work only between these local times, as 22:00-08:00."
            ),
        )
    ):
        function = option(function)
    return function


def guest_of(
    *,
    gpu: str | None,
    vram: str | None,
    memory: str | None,
    cpu: str,
    pause_when_busy: bool,
    schedule: str | None,
) -> GuestConfig:
    """What the options say; InputError if they make no sense."""
    return GuestConfig(
        gpus=() if gpu is None else gpus_of(gpu),
        vram_bytes=None if vram is None else bytes_of(vram),
        memory_bytes=None if memory is None else bytes_of(memory),
        cpu_share=share_of(cpu),
        pause_when_busy=pause_when_busy,
        schedule=None if schedule is None else Schedule.parse(schedule),
    )
