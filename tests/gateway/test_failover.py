"""A peer dies in mid-stream: the client of the gateway sees one whole stream all the same."""

import json
from pathlib import Path

import httpx
import trio

from node.engines.hash_engine import HashEngine
from node.gateway.server import open_gateway
from tests.gateway.conftest import QUICK
from tests.node.network import I, S, open_network

TOKENS = 40
ASKED = {
    "model": "hash",
    "messages": [{"role": "user", "content": "tell me a long story"}],
    "max_tokens": TOKENS,
    "seed": 7,
}


async def test_a_stream_whose_peer_dies_goes_on_where_it_broke(tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=HashEngine(unit_s=0.02)) for _ in range(2)]
        await network.settled()
        async with (
            open_gateway(asker, QUICK) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as http,
        ):
            text, killed, ends = "", False, []
            place = "/v1/chat/completions"
            with trio.fail_after(30):
                async with http.stream("POST", place, json={**ASKED, "stream": True}) as found:
                    async for line in found.aiter_lines():
                        if not line.startswith("data: {"):
                            continue
                        choice = json.loads(line.removeprefix("data: "))["choices"][0]
                        text += choice["delta"].get("content", "")
                        ends.append(choice["finish_reason"])
                        if text.count(" ") >= TOKENS // 4 and not killed:
                            killed = True
                            network.kill(next(it for it in workers if it.leg_server.under_way))
                whole = (await http.post(place, json=ASKED)).json()
            assert killed
            assert ends[-1] == "length"
            assert text.count(" ") == TOKENS
            assert text == whole["choices"][0]["message"]["content"]
