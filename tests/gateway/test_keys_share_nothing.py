"""Two keys of one gateway: what is one's the other cannot see, cancel, or crowd out."""

import base64
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from node.asking.answers import Answers
from node.gateway.keys import Keyring, add_key, keys_file, remove_key
from node.peer import Node
from tests.gateway.conftest import QUICK, Served, serving
from tests.gateway.engine import SLOW
from tests.gateway.test_door import until
from wire.content import ContentId
from wire.generation import Generation

EMBED = {"model": "hash", "operation": "embed", "texts": ["one", "two"]}
KEYS = ("ada", "bob")
UNATTENDED = 4
REQUESTS = 8


def day_long() -> dict[str, Any]:
    asked = Generation(prompt=SLOW, messages="", tools="", schema="", stop=())
    return {
        "model": "hash",
        "operation": "generate",
        "parameters": {"tokens": 4000, "temperature": 1.0, "seed": 5},
        "input_base64": base64.b64encode(asked.to_bytes()).decode(),
        "deadline_s": 86_400,
    }


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    secrets: dict[str, str] = {}

    def before(node: Node) -> None:
        file = keys_file(node.config.state)
        for name in KEYS:
            secrets[name] = add_key(file, name, 100_000, Random(name).randbytes, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.gateway.task_service.UNATTENDED_MAX", UNATTENDED)
        config = replace(QUICK, requests_max=REQUESTS)
        with serving(tmp_path_factory.mktemp("keyed"), config, before) as served:
            yield served, secrets


@pytest.fixture
def ada(keyed: tuple[Served, dict[str, str]]) -> Iterator[httpx.Client]:
    yield from _client(keyed, "ada")


@pytest.fixture
def bob(keyed: tuple[Served, dict[str, str]]) -> Iterator[httpx.Client]:
    yield from _client(keyed, "bob")


def _client(keyed: tuple[Served, dict[str, str]], name: str) -> Iterator[httpx.Client]:
    served, secrets = keyed
    headers = {"authorization": f"Bearer {secrets[name]}"}
    with httpx.Client(base_url=served.url, timeout=60, headers=headers) as found:
        yield found


def answered(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(client.get(f"/v1/tasks/{task}").json())
        return bool(found["status"] == "answered")

    task = client.post("/v1/tasks", json=EMBED).json()["id"]
    until(there)
    return found


def without_ids(answer: httpx.Response, *ids: str) -> tuple[int, str]:
    text = answer.text
    for one in ids:
        text = text.replace(one, "ID")
    return answer.status_code, text


def test_another_keys_task_result_and_receipt_are_as_if_they_were_not(
    ada: httpx.Client, bob: httpx.Client
) -> None:
    mine = answered(ada)
    nothing = str(ContentId.of(b"never was"))
    for kind, own in (("tasks", mine["id"]), ("receipts", mine["receipt"])):
        assert ada.get(f"/v1/{kind}/{own}").status_code == 200
        found = bob.get(f"/v1/{kind}/{own}")
        assert found.status_code == 404
        # Not even whether there is such a one is told.
        assert without_ids(found, own) == without_ids(bob.get(f"/v1/{kind}/{nothing}"), nothing)
    raw = {"accept": "application/octet-stream"}
    assert bob.get(f"/v1/receipts/{mine['receipt']}", headers=raw).status_code == 404
    assert bob.get(f"/v1/tasks/{mine['id']}/events").status_code == 404
    assert ada.get(f"/v1/tasks/{mine['id']}/events").status_code == 200


def test_what_an_endpoint_answered_belongs_to_its_key_too(
    ada: httpx.Client, bob: httpx.Client
) -> None:
    body = {"model": "hash", "prompt": "SAY:hello", "max_tokens": 3}
    found = ada.post("/v1/completions", json=body)
    task, receipt = found.headers["x-baton-task"], found.headers["x-baton-receipt"]
    assert [ada.get(f"/v1/tasks/{task}").status_code, bob.get(f"/v1/tasks/{task}").status_code] == [
        200,
        404,
    ]
    assert bob.get(f"/v1/receipts/{receipt}").status_code == 404


def test_another_key_cannot_cancel(
    ada: httpx.Client, bob: httpx.Client, keyed: tuple[Served, dict[str, str]]
) -> None:
    task = ada.post("/v1/tasks", json=day_long()).json()["id"]
    assert bob.delete(f"/v1/tasks/{task}").status_code == 404
    assert bob.get(f"/v1/tasks/{task}").status_code == 404
    assert ada.get(f"/v1/tasks/{task}").json()["status"] == "running"
    assert ada.delete(f"/v1/tasks/{task}").json()["status"] == "failed"


def test_whose_a_task_was_is_known_after_a_restart(
    ada: httpx.Client, keyed: tuple[Served, dict[str, str]]
) -> None:
    served, secrets = keyed
    task = ContentId.parse(answered(ada)["id"])
    # Read by a peer that has nothing in memory.
    kept = Answers(served.node.dependencies.store)
    assert kept.owner_of(task) == hashlib.sha256(secrets["ada"].encode()).digest()
    assert kept.owner_of(ContentId.of(b"never was")) is None


def test_one_key_cannot_take_all_unattended_tasks(ada: httpx.Client, bob: httpx.Client) -> None:
    left = []
    while (found := ada.post("/v1/tasks", json=day_long())).status_code == 202:
        left.append(found.json()["id"])
        assert len(left) < UNATTENDED
    assert found.json()["error"]["code"] == "busy"
    assert "of yours" in found.json()["error"]["message"]
    assert len(left) == UNATTENDED // 2
    mine = bob.post("/v1/tasks", json=day_long())
    assert mine.status_code == 202
    assert bob.delete(f"/v1/tasks/{mine.json()['id']}").status_code == 200
    for task in left:
        ada.delete(f"/v1/tasks/{task}")
    again = ada.post("/v1/tasks", json=day_long())
    assert again.status_code == 202
    ada.delete(f"/v1/tasks/{again.json()['id']}")


def test_one_key_cannot_take_all_places_of_requests(ada: httpx.Client, bob: httpx.Client) -> None:
    task = ada.post("/v1/tasks", json=day_long()).json()["id"]
    with ExitStack() as stack:
        watching = [
            stack.enter_context(ada.stream("GET", f"/v1/tasks/{task}/events"))
            for _ in range(REQUESTS)
        ]
        half = REQUESTS // 2
        assert [it.status_code for it in watching] == [200] * half + [503] * half
        refused = ada.get("/v1/models")
        assert refused.status_code == 503
        assert "of yours" in refused.json()["error"]["message"]
        assert bob.get("/v1/models").status_code == 200
        own = bob.post("/v1/tasks", json=day_long()).json()["id"]
        streams = stack.enter_context(bob.stream("GET", f"/v1/tasks/{own}/events"))
        assert streams.status_code == 200
        assert bob.delete(f"/v1/tasks/{own}").status_code == 200
    until(lambda: ada.get("/v1/models").status_code == 200)
    assert ada.delete(f"/v1/tasks/{task}").status_code == 200


def test_without_keys_the_tasks_of_a_key_that_was_removed_stay_hidden(tmp_path: Path) -> None:
    with serving(tmp_path) as served, httpx.Client(base_url=served.url, timeout=60) as nobody:
        anonymous = answered(nobody)
        file = keys_file(served.node.config.state)
        secret = add_key(file, "ada", 1000, Random(3).randbytes, 0.0)
        until(lambda: nobody.get("/v1/models").status_code == 401)
        headers = {"authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=served.url, timeout=60, headers=headers) as ada:
            mine = answered(ada)
            assert ada.get(f"/v1/tasks/{anonymous['id']}").status_code == 404
        remove_key(file, "ada")
        until(lambda: nobody.get("/v1/models").status_code == 200)
        assert nobody.get(f"/v1/tasks/{anonymous['id']}").status_code == 200
        assert nobody.get(f"/v1/tasks/{mine['id']}").status_code == 404
        assert nobody.get(f"/v1/receipts/{mine['receipt']}").status_code == 404


def test_a_key_is_compared_with_the_same_effort_whether_there_is_one_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = keys_file(tmp_path)
    random = Random(5)
    secrets = [add_key(file, f"key {it}", 60, random.randbytes, 0.0) for it in range(40)]
    keyring = Keyring(file)
    compared: list[tuple[int, int]] = []
    compare_digest = hmac.compare_digest

    def counted(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    monkeypatch.setattr("node.gateway.keys.hmac.compare_digest", counted)
    tried = [secrets[0], secrets[-1], secrets[7][:-1], "", "sk-baton-", "\ud800", "x" * 9000]
    found = [keyring.holder(it, 0.0) for it in tried]
    assert [it.name if it else None for it in found[:3]] == ["key 0", "key 39", None]
    assert found[3:] == [None] * 4
    assert compared == [(64, 64)] * len(tried)
