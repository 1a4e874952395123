"""What official clients sent is answered as it was when somebody looked at the answers."""

import json
from collections.abc import Iterator
from itertools import groupby

import pytest

from tests.gateway.conftest import Served
from tests.gateway.golden import Connection, Conversation, conversations

ALL = conversations()
CLIENTS = [(client, list(rows)) for client, rows in groupby(ALL, key=lambda it: it.client)]


@pytest.fixture(scope="module")
def connection(served: Served) -> Iterator[Connection]:
    served.engine.follows_schemas = True
    found = Connection(served.url)
    yield found
    found.close()
    served.engine.follows_schemas = False


def test_there_are_conversations_of_every_client_in_the_table() -> None:
    from tests.bench.clients import CLIENTS as REAL

    assert {it.program.partition(".")[0] for it in REAL} == {client for client, _ in CLIENTS}
    assert len(ALL) > 100


@pytest.mark.parametrize(("client", "rows"), CLIENTS, ids=[it for it, _ in CLIENTS])
def test_a_client_is_told_what_it_was_told(
    connection: Connection, client: str, rows: list[Conversation]
) -> None:
    for one in rows:
        found = connection.ask(one)
        assert found == one.answer, f"{one.name}: {one.first} {json.dumps(one.body)[:500]}"
