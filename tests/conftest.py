"""What every test shares: its clock, hypothesis without a deadline, which tests take their time."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from trio.testing import MockClock

from node.commands.running import collect_seldom
from node.devnet.virtual_time import virtual_time
from node.engines.host.launch import default_device
from tests.repeats import with_soak

# A busy machine is no reason for a property to fail, neither as an example runs nor as it is made;
# pytest's timeout ends what hangs.
settings.register_profile("baton", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("baton")
# Left to itself, tinygrad takes the first device that it finds, and a machine with an OpenCL driver
# has more than its processor. What a test starts runs where the expected numbers were made.
os.environ["DEV"] = default_device()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also the proofs that take their time")


def pytest_configure(config: pytest.Config) -> None:
    with_soak(bool(config.getoption("--soak")))
    config.addinivalue_line("markers", "soak: a proof that takes its time; runs with --soak")
    config.addinivalue_line("markers", "on_opencl: runs models on OpenCL always, not with --soak")
    config.addinivalue_line("markers", "own_device: about one device, or chooses devices itself")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="takes its time; runs with --soak"))


def pytest_collection_finish() -> None:
    # A fifth of the processor's time went into looking at what stays, as in a peer without this.
    collect_seldom()


@pytest.fixture
def autojump_clock() -> Iterator[MockClock]:
    """trio's virtual clock, which stands while a thread works for the loop."""
    with virtual_time() as clock:
        yield clock
