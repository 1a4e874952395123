"""One small network of real processes, shared by every test of this folder that only asks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.command_line import Peer, commands_running, joined


@pytest.fixture(scope="session", autouse=True)
def commands() -> Iterator[None]:
    with commands_running():
        yield


@pytest.fixture(scope="session")
def network(commands: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Peer]]:
    """A first peer that asks, one that runs the model `hash`, two that check it."""
    # Short: a socket's path has a bound.
    folder = tmp_path_factory.mktemp("n")
    with ExitStack() as stack, ThreadPoolExecutor() as starting:

        def peer(name: str, *arguments: str) -> Peer:
            return stack.enter_context(joined(folder / name, *arguments))

        def hashing(name: str) -> Peer:
            role = "infer" if name == "i" else "verify"
            return peer(name, first.address, "--role", role, "--model", "hash")

        first = peer("a", "--role", "store")
        infer, *verifiers = starting.map(hashing, ("i", "v", "w"))
        yield {"asker": first, "infer": infer, "verify": verifiers[0]}


@pytest.fixture
def asker(network: dict[str, Peer]) -> Peer:
    return network["asker"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "s"
