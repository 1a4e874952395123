"""By hand, as README has it: an app, its user at another person's gateway, use, a grant, votes.

Five people, each with a peer of their own: one keeps the ledger, one embeds texts for credits, one
runs a gateway, one builds an app, and one only has a key of it.
"""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.command_line import baton, joined
from tests.live.test_govern import GRANT, until


@pytest.mark.soak
def test_a_builder_finds_users_and_is_paid_by_a_vote(tmp_path: Path) -> None:
    genesis, motion_file = tmp_path / "home.genesis", tmp_path / "grant.toml"
    states = [tmp_path / it for it in ("keeper", "worker", "host", "builder")]
    typed = ("--state", states[0], "--out", genesis, "--epoch", "3s", "--grant", "me=100")
    baton("network", "new", "home", *typed, "--json")
    role = ("--genesis", genesis, "--role")
    worker_role = (*role, "infer", "--model", "minilm", "--price", "minilm=0.3/1k:0.6/1k+0.01")
    gateway = ("--http", "127.0.0.1:0", "--http-apps")
    host_role = (*role, "infer", "--role", "gateway", "--model", "hash", *gateway)
    with (
        joined(states[0], *role, "store") as keeper,
        joined(states[1], keeper.address, *worker_role) as worker,
        joined(states[2], keeper.address, *host_role) as host,
        joined(states[3], keeper.address, *role, "store") as builder,
    ):
        for peer in (host, builder):
            keeper.ask("wallet", "pay", peer.id, "10", "--json")
        # An app, and a key for its user, who has nothing else.
        builder.ask("app", "new", "reader", "--mode", "open", "--json")
        key = builder.ask("app", "key", "add", "ada", "--app", "reader", "--json").document["key"]
        question = {"model": "hash", "messages": [{"role": "user", "content": "hello"}]}

        def chatted() -> Any:
            found = httpx.post(
                f"{host.url}/v1/chat/completions",
                json=question | {"max_tokens": 4},
                headers={"authorization": f"Bearer {key}"},
                timeout=60,
            )
            return found.json() if found.status_code == 200 else None

        assert until(chatted)["choices"][0]["message"]["content"]

        def told() -> Any:
            return builder.ask("app", "usage", "--json").document["keys"]

        (row,) = until(told)
        assert (row["label"], row["gateways"][host.id]["calls"]) == ("ada", 1)
        (app,) = builder.ask("usage", "--by", "app", "--json").document["by_app"]
        named = (app["app"], app["owner"], app["keys"], app["calls"])
        assert named == ("reader", builder.id, 1, 1)
        assert "reader" in builder.ask("usage", "--by", "app").out
        # Those who will vote use the network too: what they pay is their vote's weight.
        asked = ("ask", "minilm", "a question", "--pay-max", "0.5", "--verdicts", "0/0", "--json")
        for peer in (builder, keeper, keeper, host, host):
            until(lambda peer=peer: peer.ask(*asked).code == 0)

        def used() -> Any:
            worker.ask("earnings", "--redeem", "--json")
            found = builder.ask("usage", "--week", "3s", "--cohorts", "--json").document
            # A cohort is told of once its week has ended.
            return found if found["accounts"] >= 3 and found["cohorts"] else None

        assert until(used)
        motion_file.write_text(GRANT.format(to=builder.id))
        before = builder.ask("wallet", "--json").document["balance"]
        motion = builder.ask("fund", "apply", motion_file, "--json").document["motion"]
        for voter in (keeper, host):
            until(lambda voter=voter: voter.ask("govern", "vote", motion, "yes").code == 0)

        def decided() -> Any:
            found = builder.ask("govern", "show", motion, "--json").document
            return found if found["state"] != "open" else None

        found = until(decided)
        assert (found["state"], found["grant"]["paid"]) == ("passed", 1)
        assert builder.ask("wallet", "--json").document["balance"] >= before + 99_000_000
