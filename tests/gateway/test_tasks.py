"""Tasks as the network knows them, watched and fetched; receipts that hold offline."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.checking.audit import audit
from tests.gateway.conftest import Served, serving
from tests.gateway.engine import SLOW
from wire.generation import Generation
from wire.payload import Vectors

EMBED = {"model": "hash", "operation": "embed", "texts": ["one", "two"]}


def generation(prompt: str) -> str:
    asked = Generation(prompt=prompt, messages="", tools="", schema="", stop=())
    return base64.b64encode(asked.to_bytes()).decode()


def submitted(http: httpx.Client, body: dict[str, Any]) -> str:
    found = http.post("/v1/tasks", json=body)
    assert found.status_code == 202, found.text
    task: str = found.json()["id"]
    assert found.headers["x-baton-task"] == task
    return task


def events_of(http: httpx.Client, task: str) -> Iterator[dict[str, Any]]:
    with http.stream("GET", f"/v1/tasks/{task}/events") as found:
        assert found.status_code == 200
        for line in found.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def test_parameters_that_are_too_long_together_are_that_requests_error(http: httpx.Client) -> None:
    long = {f"p{it}": "x" * 1020 for it in range(16)}
    found = http.post("/v1/tasks", json={**EMBED, "parameters": long})
    assert found.status_code == 400
    assert "at most 16384" in found.json()["error"]["message"]
    assert http.get("/healthz").status_code == 200
    submitted(http, EMBED)


def test_a_task_is_submitted_watched_and_fetched(http: httpx.Client) -> None:
    task = submitted(http, {**EMBED, "verdicts": "1/2"})
    events = list(events_of(http, task))
    kinds = [it["event"] for it in events]
    assert kinds[0] == "accepted"
    assert {"offered", "leg", "verdict", "kept"} <= set(kinds)
    assert (kinds[-1], events[-1]["status"]) == ("end", "answered")
    found = http.get(f"/v1/tasks/{task}").json()
    assert found["status"] == "answered"
    assert found["verified"] is True
    assert found["receipt"] == events[-1]["receipt"]
    assert Vectors.from_bytes(base64.b64decode(found["output_base64"])).rows == 2


def test_a_receipt_fetched_holds_offline(http: httpx.Client) -> None:
    task = submitted(http, EMBED)
    receipt = list(events_of(http, task))[-1]["receipt"]
    raw = http.get(f"/v1/receipts/{receipt}", headers={"accept": "application/octet-stream"})
    told = http.get(f"/v1/receipts/{receipt}").json()
    assert told["id"] == receipt
    assert told["task"] == task
    assert base64.b64decode(told["receipt_base64"]) == raw.content
    assert audit(raw.content, lambda _: None).holds


@pytest.mark.parametrize("path", ["tasks", "receipts"])
def test_ids_of_nothing_are_not_found(http: httpx.Client, path: str) -> None:
    task = submitted(http, EMBED)
    output = list(events_of(http, task))[-1]["route"][0]["output"]
    # Content that is kept here, and is neither a task nor a receipt.
    for name in ("nonsense", "%00", output):
        found = http.get(f"/v1/{path}/{name}")
        assert found.status_code == 404, found.text
        assert found.json()["error"]["type"] == "not_found_error"
    assert http.get(f"/v1/tasks/{output}/events").status_code == 404


def test_a_task_is_cancelled(http: httpx.Client, served: Served) -> None:
    body = {
        "model": "hash",
        "operation": "generate",
        "parameters": {"tokens": 4000, "temperature": 1.0, "seed": 5},
        "input_base64": generation(SLOW),
    }
    task = submitted(http, body)
    assert http.get(f"/v1/tasks/{task}").json()["status"] == "running"
    events = events_of(http, task)
    assert any(it["event"] == "piece" and it["data_base64"] for it in events)
    found = http.delete(f"/v1/tasks/{task}").json()
    assert found["status"] == "failed"
    assert "cancelled" in found["error"]["message"]
    assert (list(events) or [{}])[-1].get("status") == "failed"
    freed_by_s = time.monotonic() + 60
    while served.engine.under_way:
        assert time.monotonic() < freed_by_s
        time.sleep(0.02)


@pytest.mark.parametrize(
    "changed",
    [
        {"texts": None},
        {"text": "both"},
        {"operation": "fly"},
        {"operation": ""},
        {"verdicts": "two"},
        {"verdicts": "9/2"},
        {"deadline_s": 0},
        {"parameters": {"a": [1]}},
        {"parameters": {"a": 2**70}},
        {"texts": None, "input_base64": "?"},
    ],
    ids=str,
)
def test_a_task_that_makes_no_sense_is_refused(http: httpx.Client, changed: dict[str, Any]) -> None:
    found = http.post("/v1/tasks", json={**EMBED, **changed})
    assert found.status_code == 400, found.text


def test_verdicts_that_cannot_come_are_refused_at_once(http: httpx.Client) -> None:
    found = http.post("/v1/tasks", json={**EMBED, "verdicts": "15/16"})
    assert found.status_code == 503, found.text
    assert found.json()["error"]["code"] == "too_few_verifiers"
    assert "15 have to agree" in found.json()["error"]["message"]


def test_tasks_that_are_left_alone_leave_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.gateway.task_service.UNATTENDED_MAX", 2)
    body = {"model": "hash", "operation": "generate", "input_base64": generation(SLOW)}
    with serving(tmp_path) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        left = [submitted(http, body) for _ in range(2)]
        assert http.post("/v1/tasks", json=body).status_code == 503
        assert http.post("/v1/embeddings", json={"model": "hash", "input": "x"}).status_code == 200
        for task in left:
            http.delete(f"/v1/tasks/{task}")
        http.delete(f"/v1/tasks/{submitted(http, body)}")
