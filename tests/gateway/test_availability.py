"""A gateway's first moments, when it knows nobody yet, and its last ones: no request is lost."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from node.asking.answers import Answered
from node.engines.hash_engine import hash_manifest
from node.gateway import availability
from node.gateway.metrics import GenerationMetrics
from node.gateway.server import open_gateway
from node.gateway.task_service import TaskService, Terms
from node.gateway_config import GatewayConfig
from node.task.events import ignore_event
from node.task.levels import terms_of_numbers
from tests.node.network import I, S, V, open_network
from wire.kinds import Role
from wire.payload import Texts
from wire.task import Stage

CONFIG = GatewayConfig(port=0, needed=1, verifiers=1)
ASKED = {"model": "hash", "prompt": "a", "max_tokens": 3}


async def test_what_is_asked_before_anybody_is_known_is_answered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may take longer to start two peers than requests are held.
    monkeypatch.setattr(availability, "STARTING_S", 600.0)
    async with open_network(tmp_path) as network:
        await network.add(S)
        gateway = await network.add(S)
        async with (
            open_gateway(gateway, CONFIG) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as http,
            trio.open_nursery() as nursery,
        ):
            answers: dict[str, httpx.Response] = {}

            async def ask(method: str, path: str) -> None:
                body = ASKED if method == "POST" else None
                answers[path] = await http.request(method, path, json=body)

            for method, path in (("POST", "/v1/completions"), ("GET", "/v1/models")):
                nursery.start_soon(ask, method, path)
            unready = await http.get("/ready")
            assert unready.status_code == 503
            assert "retry-after" in unready.headers
            assert (await http.get("/health")).status_code == 200
            await network.start(I)
            # A model can be run, but nobody could check what the gateway promises to have checked.
            await until_unready(http, "0 peers are known that check")
            assert answers == {}
            await network.start(V)
            with trio.fail_after(20):
                while len(answers) < 2:
                    await trio.sleep(0.05)
            assert {it.status_code for it in answers.values()} == {200}, answers
            assert [it["id"] for it in answers["/v1/models"].json()["data"]] == ["hash"]
            assert (await http.get("/ready")).status_code == 200


async def test_what_nobody_could_check_is_refused_at_once_and_done_once_somebody_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.gateway.checkable.SETTLED_S", 0.5)
    monkeypatch.setattr("node.gateway.checkable.SEEK_S", 0.5)
    async with open_network(tmp_path) as network:
        gateway = await network.add(S)
        await network.start(I, V)
        await network.settled()
        async with (
            open_gateway(gateway, CONFIG) as url,
            httpx.AsyncClient(base_url=url, timeout=120) as http,
        ):
            # The only verifier made the answer itself, and a task would wait for its whole time.
            for path, body in (
                ("/v1/completions", ASKED),
                ("/v1/tasks", {"model": "hash", "operation": "embed", "texts": ["a"]}),
            ):
                began_at_s = trio.current_time()
                refused = await http.post(path, json=body)
                assert trio.current_time() - began_at_s < 5
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
                error = refused.json()["error"]
                assert error["code"] == "too_few_verifiers"
                assert error["type"] == "service_unavailable_error"
                assert "0 peers could check an answer of hash" in error["message"]
                assert "0/0" in error["message"]
            assert gateway.tasks.statistics().accepted == 0
            unchecked = {"x-baton-verdicts": "0/0"}
            done = await http.post("/v1/completions", json=ASKED, headers=unchecked)
            assert done.status_code == 200, done.text
            # One that makes nothing can check it, and is sought before anybody is told no: for as
            # long as a busy machine takes to find it.
            monkeypatch.setattr("node.gateway.checkable.SEEK_S", 60.0)
            await network.start(V)
            done = await http.post("/v1/completions", json=ASKED)
            assert done.status_code == 200, done.text


async def test_a_gateway_that_has_just_begun_waits_for_verifiers_to_tell_of_themselves(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await trio.sleep(3)
        tasks = TaskService(asker, CONFIG, lambda: True, GenerationMetrics(CollectorRegistry()))
        stage = Stage(role=Role.INFER, operation="embed", model=hash_manifest().id, parameters={})
        terms = Terms(check_terms=terms_of_numbers(1, 1), deadline_s=60, owner=b"")
        ended: list[Answered] = []

        async def ask() -> None:
            request = terms.request(stage, Texts(texts=("a",)).to_bytes())
            ended.append(await tasks.done(request, ignore_event, lambda _: None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            # Longer than verifiers are sought for at any other time.
            await trio.sleep(5)
            await network.start(V, S)
        assert len(ended[0].answer.record.verdicts) == 1


async def until_unready(http: httpx.AsyncClient, why: str) -> None:
    with trio.fail_after(20):
        while why not in (await http.get("/ready")).text:
            await trio.sleep(0.05)


async def test_many_held_requests_cost_as_much_as_one(autojump_clock: MockClock) -> None:
    looks = 0

    def rows() -> list[Any]:
        nonlocal looks
        looks += 1
        return []

    neighbours = SimpleNamespace(bootstraps=("a",), swaps=1)
    node: Any = SimpleNamespace(peers=SimpleNamespace(neighbours=neighbours))
    catalogue: Any = SimpleNamespace(rows=rows)
    held = availability.Availability(node, CONFIG, catalogue)
    asked: Any = SimpleNamespace(method="POST", target=b"/v1/completions")
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(held.until_begun, asked)
            await trio.sleep(number / 10_000)
    assert 0 < looks <= availability.STARTING_S / availability.LOOK_S


async def test_after_its_first_moments_a_gateway_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "STARTING_S", 0.3)
    async with open_network(tmp_path) as network:
        await network.add(S)
        gateway = await network.add(S)
        async with (
            open_gateway(gateway, CONFIG) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as http,
        ):
            answer = await http.post("/v1/completions", json={**ASKED, "model": "none"})
            assert answer.status_code == 404, answer.text


async def test_the_first_of_a_network_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever waited would do so for longer than the client has patience.
    monkeypatch.setattr(availability, "STARTING_S", 600.0)
    async with open_network(tmp_path) as network:
        gateway = await network.add(S)
        async with (
            open_gateway(gateway, CONFIG) as url,
            httpx.AsyncClient(base_url=url, timeout=60) as http,
        ):
            answer = await http.post("/v1/completions", json={**ASKED, "model": "none"})
            assert answer.status_code == 404, answer.text


async def test_a_gateway_that_is_stopped_sends_everybody_away_politely(tmp_path: Path) -> None:
    async with open_network(tmp_path) as network, httpx.AsyncClient(timeout=30) as http:
        gateway = await network.add(S)
        gateway.config = replace(gateway.config, leave_s=5)
        async with open_gateway(gateway, CONFIG) as url:
            assert (await http.get(f"{url}/health")).status_code == 200
            # The connection is kept, and what is asked on it next comes while the gateway ends.
            stopped = trio.Event()

            async def ask() -> None:
                await trio.sleep(0.2)
                answer = await http.get(f"{url}/ready")
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "10"
                assert answer.headers["connection"] == "close"
                assert answer.json()["error"]["code"] == "leaving"
                stopped.set()

            assert network.nursery is not None
            network.nursery.start_soon(ask)
        with trio.fail_after(20):
            await stopped.wait()
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{url}/ready")
