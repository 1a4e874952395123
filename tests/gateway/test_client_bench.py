"""The bench of real clients: what it writes down of a request, and how it tells its cells."""

import json
from pathlib import Path

import httpx

from tests.bench._recorder import HOST, recording
from tests.bench.clients import CLIENTS, PROGRAMS, table_of
from tests.gateway.conftest import Served

BODY = b'{"model": "hash",  "messages": [{"role": "user", "content": "h\xc3\xa9"}]}'


def test_a_request_is_written_down_byte_for_byte_once_of_its_kind(
    served: Served, tmp_path: Path
) -> None:
    file = tmp_path / "client.jsonl"
    with recording(served.url, file) as url:
        for body in (BODY, BODY.replace(b"h\xc3\xa9", b"other"), b'{"model": "hash"}'):
            # The gateway is asked for a model that the tests' network does not have.
            answer = httpx.post(
                f"{url}/v1/chat/completions",
                content=body,
                headers={"content-type": "application/json", "x-mine": "7"},
                timeout=60,
            )
            assert answer.status_code >= 400
    first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert first["first"] == "POST /v1/chat/completions HTTP/1.1"
    assert first["body"].encode() == BODY
    told = {name.lower(): value for name, value in first["headers"]}
    assert (told["host"], told["x-mine"]) == (HOST, "7")
    assert second["body"] == '{"model": "hash"}'


def test_cells_are_a_table_in_the_order_of_its_features() -> None:
    works, refused = {"state": "works", "why": ""}, {"state": "refused", "why": "x"}
    fails = {"state": "fails", "why": "y"}
    found = {
        "one": {"versions": {"one": "1.0"}, "cells": {"errors": fails, "chat": works}},
        "two": {"versions": {}, "cells": {"program": fails, "logprobs": refused}},
    }
    assert table_of(found).splitlines() == [
        "| client | chat | logprobs | errors | program |",
        "|---|---|---|---|---|",
        "| one 1.0 | ✓ | - | **fails** | - |",
        "| two  | - | refused | - | **fails** |",
    ]


def test_every_client_is_pinned_and_has_its_program() -> None:
    for client in CLIENTS:
        assert (PROGRAMS / client.program).exists()
        assert all("@" in it[1:] or "==" in it for it in client.packages)
    assert len({it.folder_name for it in CLIENTS}) == len(CLIENTS)
