"""The gateway of `tests/gateway`, asked by our own client."""

from collections.abc import Iterator

import pytest

from tests.gateway.conftest import Served, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("client")) as found:
        yield found


@pytest.fixture(scope="session")
def url(served: Served) -> str:
    return served.url
