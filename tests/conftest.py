"""What every test shares: hypothesis without its own deadline, and which tests take their time."""

import pytest
from hypothesis import settings

# A busy machine is no reason for a property to fail; pytest's timeout ends what hangs.
settings.register_profile("baton", deadline=None)
settings.load_profile("baton")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also the proofs that take their time")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: a proof that takes its time; runs with --soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="takes its time; runs with --soak"))
