"""API keys with a budget: spent by what was asked for, refused when used up, kept over a crash."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import httpx
import pytest
import trio
from trio.testing import MockClock

from node.gateway.errors import HttpError
from node.gateway.key_budgets import KeyBudgets
from node.gateway.keys import Keyring, add_key, allow_more, keys_file, read_keys
from node.gateway.prices import HttpPrices, TaskPrice
from node.paying_config import read_price
from store import open_memory_store
from tests.gateway.conftest import QUICK, Served, serving
from tests.node.asking import request
from wire.amount import show_credits
from wire.errors import InputError, StoreUnusable

CHAT = {"model": "hash", "messages": [{"role": "user", "content": "SAY:hello"}], "max_tokens": 20}
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Budgeted:
    served: Served
    file: Path
    secret: str
    http: httpx.Client

    def spent(self) -> dict[str, int]:
        return dict(self.served.node.status_sources["keys"]()["ada"])


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Budgeted]:
    price = read_price("0.01/1k:0.6/1k+0.001")
    with serving(tmp_path_factory.mktemp("keys"), replace(QUICK, price=price)) as served:
        file = keys_file(served.node.config.state)
        secret = add_key(file, "ada", 600, Random(1).randbytes, 0.0, 50_000)
        headers = {"authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=served.url, timeout=60, headers=headers) as http:
            yield Budgeted(served, file, secret, http)


def test_a_key_spends_what_its_answers_cost_and_no_more(budgeted: Budgeted) -> None:
    found = budgeted.http.post(PATH, json=CHAT)
    assert found.status_code == 200, found.text
    usage = found.json()["usage"]
    cost = 1000 + usage["prompt_tokens"] * 10 + usage["completion_tokens"] * 600
    assert budgeted.spent() == {"credits": 50_000, "spent": cost, "held": 0}
    refused = budgeted.http.post(PATH, json=CHAT | {"max_tokens": 400})
    assert refused.status_code == 402
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert f"{show_credits(50_000 - cost)} of this key's 0.05 are left" in refused.text
    streamed = budgeted.http.post(PATH, json=CHAT | {"stream": True})
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert budgeted.spent()["spent"] == 2 * cost
    while (found := budgeted.http.post(PATH, json=CHAT)).status_code == 200:
        pass
    assert found.status_code == 402
    left = 50_000 - budgeted.spent()["spent"]
    assert 0 <= left < 1000 + 20 * 600 + 2000
    # An endpoint that no connection waits at spends the same budget.
    task = {"model": "hash", "operation": "complete", "text": "x", "parameters": {"tokens": 4000}}
    assert budgeted.http.post("/v1/tasks", json=task).status_code == 402
    allow_more(budgeted.file, "ada", 50_000)
    end_s = time.monotonic() + 60
    while budgeted.http.post(PATH, json=CHAT).status_code != 200:
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_budgets_are_kept_with_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "ada", 60, Random(1).randbytes, 0.0, 7)
    add_key(file, "bob", 60, Random(2).randbytes, 0.0)
    assert [it.credits for it in read_keys(file)] == [7, None]
    assert allow_more(file, "ada", 3).credits == 10
    for name in ("bob", "eve"):
        with pytest.raises(InputError):
            allow_more(file, name, 3)
    # Files from before there were budgets are read, and odd ones are not.
    text = file.read_text()
    file.write_text(text.replace('"credits": 10', '"credits": -1'))
    with pytest.raises(StoreUnusable):
        read_keys(file)
    file.write_text(text.replace(',\n   "credits": 10', ""))
    assert [it.credits for it in read_keys(file)] == [None, None]


class Fixed(HttpPrices):
    """Prices of a peer that is not there."""

    async def most(self, request: object) -> TaskPrice:
        await trio.sleep(0.01)
        return TaskPrice(10, 0)


async def test_tasks_at_once_and_a_crash_spend_no_credit_twice(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "ada", 60, Random(1).randbytes, 0.0, 35)
    keyring = Keyring(file)
    keyring.keys(0.0)
    owner = keyring.kept[0].owner
    begun, refused = [], []
    async with open_memory_store(quota_bytes=1 << 30) as store:
        budgets = KeyBudgets(keyring, store, Fixed(None))  # type: ignore[arg-type]

        async def ask() -> None:
            purse = budgets.of(owner)
            assert purse is not None
            try:
                begun.append(await purse.begin(request()))
            except HttpError as error:
                refused.append(error.fault.code)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert (len(begun), set(refused)) == (3, {"insufficient_quota"})
        # As if the process were gone: what was under way counts, for it goes on.
        again = KeyBudgets(keyring, store, Fixed(None)).of(owner)  # type: ignore[arg-type]
        assert again is not None
        assert (again.spent, again.left) == (30, 5)
        assert budgets.of(b"\0" * 32) is None
