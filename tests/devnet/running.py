"""A small devnet for the tests, opened as in a user's own experiment."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from node.devnet import homes
from node.devnet.config import DevnetConfig
from node.devnet.faults import parse
from node.devnet.machine import Machine
from node.devnet.net import Devnet, open_devnet
from node.devnet.report import DevnetReport, report_of


def machine(free_bytes: int = 8 << 30) -> Machine:
    return Machine(
        monotonic_s=time.monotonic,
        cpu_s=time.process_time,
        used_bytes=lambda: 1,
        free_bytes=lambda: free_bytes,
        collect_seldom=lambda: None,
    )


def config(
    faults: str = "",
    *,
    peers: int = 12,
    seconds: float = 10,
    rate: float = 2,
    deadline_s: int = 30,
    nat: str = "",
) -> DevnetConfig:
    return DevnetConfig(
        peers=peers,
        seconds=seconds,
        rate=rate,
        faults=parse(faults),
        deadline_s=deadline_s,
        nat=homes.parse(nat),
    )


@asynccontextmanager
async def opened(folder: Path, wanted: DevnetConfig) -> AsyncIterator[Devnet]:
    async with open_devnet(wanted, machine(), folder=folder) as net:
        yield net


async def ran(folder: Path, wanted: DevnetConfig) -> tuple[Devnet, DevnetReport]:
    """Run a devnet to its end; returns the closed network and its report."""
    async with opened(folder, wanted) as net:
        await net.run()
        report = report_of(net)
    return net, report.closed(net)
