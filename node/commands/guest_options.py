"""What `join` may be told of the machine it is a guest on."""

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
            click.option("--gpu", help="NVIDIA GPUs to use, as 0,1; else the CPU."),
            click.option("--vram", help="What models may take of each GPU's memory, as 8GB."),
            click.option("--memory", help="What models may take of memory, as 8GB; else 4GB."),
            click.option("--cpu", default="100%", show_default=True, help="Of a core, at work."),
            click.option("--pause-when-busy", is_flag=True, help="Yield to the machine's owner."),
            click.option("--schedule", help="Local time to work in, as 22:00-08:00."),
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
