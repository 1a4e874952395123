"""A gateway's first moments, when it knows nobody yet, and its last ones: no request is lost."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from node.gateway import availability
from node.gateway.server import open_gateway
from node.gateway_config import GatewayConfig
from tests.node.network import I, S, V, open_network

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
