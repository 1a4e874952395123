"""Keys of apps at another peer's gateway: taken, counted, revoked, and refused when in doubt."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import httpx
import pytest
import trio
from trio.testing import MockClock

from node.apps.app_keys import LIST_S_MAX, AppKeys, digest_of, owner_of
from node.apps.own_apps import (
    OwnApp,
    OwnKey,
    add_app,
    add_app_key,
    apps_file,
    read_apps,
    revoke_key,
)
from node.apps.shares_book import GATEWAYS_MAX, SharesBook
from node.gateway.keys import add_key, keys_file
from node.gateway.server import open_gateway
from node.gateway_config import GatewayConfig
from node.peer import Node
from p2p.typed_call import TypedCall
from store import open_memory_store
from tests.node.network import START_S, I, Network, S, open_network
from wire.app import (
    AppKey,
    AppKeyTold,
    AppMode,
    AppPolicy,
    AskAppKey,
    AskRevokedKeys,
    RevokedKeys,
    RevokedKeysTold,
    joined,
    list_digest,
)
from wire.content import PeerId
from wire.errors import BatonError, InputError, Malformed, Refused, StoreUnusable, Unreachable
from wire.kinds import RefusalCode
from wire.message import Message
from wire.signed import sign
from wire.signing import SigningKey

DAY_S = 24 * 3600.0
UNTIL_S = int(START_S + 30 * DAY_S)


def key_of(app: str, label: str = "ada", **fields: object) -> OwnKey:
    known: dict[str, object] = {
        "app": app,
        "label": label,
        "sha256": "",
        "budget": 0,
        "until_wall_s": UNTIL_S,
        "per_minute": 60,
        **fields,
    }
    return OwnKey(**known)  # type: ignore[arg-type]


def made(node: Node, app: OwnApp, **fields: object) -> str:
    """A new app of this peer, and a key of it."""
    file = apps_file(node.config.state)
    add_app(file, app, START_S)
    key = key_of(app.name, **fields)
    return add_app_key(file, key, node.peers.me, Random(app.name).randbytes, START_S)


@dataclass(frozen=True, slots=True)
class Lent:
    """An owner of apps, and a gateway of another peer that takes their keys."""

    network: Network
    owner: Node
    gateway: Node
    keys: AppKeys


@asynccontextmanager
async def lent(folder: Path) -> AsyncIterator[Lent]:
    async with open_network(folder) as network:
        owner, gateway = await network.add(S), await network.add(I, S)
        yield Lent(network, owner, gateway, AppKeys(gateway.peers))


async def refusal(keys: AppKeys, secret: str) -> BatonError | None:
    """Why a key does not come in; None if it does."""
    try:
        await keys.learn(secret)
    except BatonError as error:
        return error
    return None


async def test_a_key_is_known_by_its_owners_word_and_refused_once_it_is_revoked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found:
        secret = made(found.owner, OwnApp(name="reader", mode="open"))
        known = await found.keys.learn(secret)
        assert (known.policy.mode, known.owner) == (AppMode.OPEN, found.owner.peers.me)
        asked = found.keys.at_hand(digest_of(secret), trio.current_time())
        assert asked is known
        revoke_key(apps_file(found.owner.config.state), "reader", "ada", START_S)
        revoked_at_s = trio.current_time()
        while await refusal(found.keys, secret) is None:
            await trio.sleep(1)
        assert trio.current_time() <= revoked_at_s + 60
        with pytest.raises(Refused, match="revoked"):
            await found.keys.learn(secret)
        # For good, and at a gateway that never saw it.
        with pytest.raises(Refused, match="revoked"):
            await AppKeys(found.gateway.peers).learn(secret)


async def test_a_gateway_that_is_cut_off_lets_nobody_in_after_a_minute(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found:
        secret = made(found.owner, OwnApp(name="reader", mode="open"))
        await found.keys.learn(secret)

        async def silent(call: TypedCall, message: Message) -> None:
            await trio.sleep_forever()

        found.owner.peers.handlers[AskRevokedKeys] = silent
        since_at_s = trio.current_time()
        await trio.sleep(LIST_S_MAX - 1)
        assert await found.keys.learn(secret)
        await trio.sleep(2)
        refused = await refusal(found.keys, secret)
        assert isinstance(refused, Unreachable), refused
        assert f"its list of revoked keys is {LIST_S_MAX + 1:.0f} s old" in refused.message
        # Nobody waits for long who comes after the first.
        ended_at_s = trio.current_time()
        assert ended_at_s <= since_at_s + LIST_S_MAX + 10
        assert isinstance(await refusal(found.keys, secret), Unreachable)
        assert trio.current_time() == ended_at_s


async def test_who_uses_a_list_has_it_renewed_without_waiting(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found, trio.open_nursery() as nursery:
        secret = made(found.owner, OwnApp(name="reader", mode="open"))
        await found.keys.learn(secret)
        nursery.start_soon(found.keys.run)
        for _ in range(200):
            await trio.sleep(1)
            assert found.keys.at_hand(digest_of(secret), trio.current_time()) is not None
        nursery.cancel_scope.cancel()


async def test_one_budget_is_spent_once_at_two_gateways(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found:
        app = OwnApp(name="writer", mode="call", price=1000)
        secret = made(found.owner, app, budget=10_000)
        other = AppKeys((await found.network.add(S)).peers)
        shares = []
        for keys in (found.keys, other, found.keys, other):
            known = await keys.learn(secret)
            assert known.key.share <= known.key.budget
            shares.append(await keys.more(known, 6000))
        # The second gets what is left, and asking again gives nothing more.
        assert shares == [6000, 4000, 6000, 4000]
        found.keys.used(known := await found.keys.learn(secret), 3000)
        await found.keys.more(known, 0)
        (row,) = (await found.owner.app_owner.usage())["keys"]
        assert row["gateways"][str(found.gateway.peers.me)] == {
            "share": 6000,
            "spent": 3000,
            "calls": 1,
            "promised": 0,
            "paid": 0,
        }


async def test_a_key_has_a_bounded_number_of_gateways(tmp_path: Path) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        book = SharesBook(store)
        for number in range(GATEWAYS_MAX):
            gateway = PeerId(number.to_bytes(32, "big"))
            assert (await book.give(bytes(32), 100, gateway, 1, 0, 1)).calls == 1
        with pytest.raises(Refused, match="64 gateways"):
            await book.give(bytes(32), 100, PeerId(b"x" * 32), 1, 0, 0)
        assert sum(it.share for it in book.of(bytes(32)).values()) == 100
        # What a gateway tells is bounded, and takes nothing back.
        told = await book.give(bytes(32), 100, PeerId(bytes(32)), 0, 2**62, 2**62)
        assert await book.give(bytes(32), 100, PeerId(bytes(32)), 0, 0, 2**62) == told


def answers(owner: SigningKey, digest: bytes, asker: PeerId, odd: dict[str, object]) -> AppKeyTold:
    """What an owner tells of a key, with some of it odd."""
    policy = AppPolicy(network="baton", app="reader", mode=AppMode.OPEN, price=0, hold=0)
    key = AppKey(
        network="baton",
        app="reader",
        key=digest,
        gateway=asker,
        until_wall_s=UNTIL_S,
        per_minute=60,
        budget=0,
        share=0,
        account=None,
    )
    stranger = SigningKey(bytes(range(32)))
    policy_signer = stranger if odd.pop("policy_of_stranger", False) else owner
    key_signer = stranger if odd.pop("key_of_stranger", False) else owner
    altered = bool(odd.pop("altered", False))
    signed = sign(replace(key, **odd), key_signer).raw  # type: ignore[arg-type]
    if altered:
        signed = signed[:-1] + bytes([signed[-1] ^ 1])
    return AppKeyTold(policy=sign(policy, policy_signer).raw, key=signed)


@pytest.mark.parametrize(
    "odd",
    [
        {"policy_of_stranger": True},
        {"key_of_stranger": True},
        {"altered": True},
        {"key": bytes(32)},
        {"gateway": PeerId(bytes(32))},
        {"network": "another"},
        {"app": "other"},
    ],
    ids=str,
)
async def test_what_an_owner_must_not_tell_lets_nobody_in(
    autojump_clock: MockClock, tmp_path: Path, odd: dict[str, object]
) -> None:
    async with lent(tmp_path) as found:
        secret = made(found.owner, OwnApp(name="reader", mode="open"))

        async def lie(call: TypedCall, message: Message) -> None:
            await call.send(answers(found.owner.peers.key, digest_of(secret), call.peer, dict(odd)))

        found.owner.peers.handlers[AskAppKey] = lie
        with pytest.raises(BatonError):
            await found.keys.learn(secret)
        assert found.keys.of(digest_of(secret)) is None


async def test_a_list_that_goes_back_or_is_not_the_signed_one_is_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found:
        secret = made(found.owner, OwnApp(name="reader", mode="open"))
        await found.keys.learn(secret)
        honest = found.owner.peers.handlers[AskRevokedKeys]
        told: list[RevokedKeysTold] = []

        async def lie(call: TypedCall, message: Message) -> None:
            await call.send(told[-1])

        def telling(sequence: int, hashes: bytes | None, digest: bytes) -> RevokedKeysTold:
            head = RevokedKeys(network="baton", sequence=sequence, told_at_ms=0, digest=digest)
            return RevokedKeysTold(head=sign(head, found.owner.peers.key).raw, hashes=hashes)

        found.owner.peers.handlers[AskRevokedKeys] = lie
        late = int(START_S * 1000) + 10**9
        for bad in (
            telling(1, b"", list_digest(b"")),
            telling(late, None, list_digest(b"")),
            telling(late, bytes(32), list_digest(b"")),
        ):
            told.append(bad)
            await trio.sleep(60)
            with pytest.raises(Malformed):
                await found.keys.learn(secret)
        # A clock that is a day off changes nothing.
        hashes = joined([digest_of(secret)])
        told.append(telling(late, hashes, list_digest(hashes)))
        await trio.sleep(60)
        with pytest.raises(Refused, match="revoked"):
            await found.keys.learn(secret)
        found.owner.peers.handlers[AskRevokedKeys] = honest
        await trio.sleep(60)
        with pytest.raises(Malformed, match="went back"):
            await found.keys.learn(secret)


async def test_unknown_keys_and_owners_that_are_not_there_cost_little(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found:
        nobody = SigningKey(bytes(32)).peer
        away = f"sk-baton-app-{nobody}-{'0' * 64}"
        with pytest.raises(BatonError):
            await found.keys.learn(away)
        since_at_s = trio.current_time()
        with pytest.raises(Unreachable):
            await found.keys.learn(away.replace("0" * 64, "1" * 64))
        assert trio.current_time() == since_at_s
        unknown = f"sk-baton-app-{found.owner.peers.me}-{'0' * 64}"
        asked = []
        honest = found.owner.peers.handlers[AskAppKey]

        async def noting(call: TypedCall, message: Message) -> None:
            asked.append(message)
            await honest(call, message)

        found.owner.peers.handlers[AskAppKey] = noting
        for _ in range(5):
            with pytest.raises(Refused, match="no app of this peer has this key"):
                await found.keys.learn(unknown)
        assert len(asked) == 1
        for text in ("sk-baton-app-", f"sk-baton-app-{nobody}-", "sk-baton-app-x-" + "0" * 64):
            with pytest.raises(Refused, match="no key of an app"):
                owner_of(text)


async def test_an_owner_answers_each_gateway_so_often_and_no_more(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found:
        refused = 0
        for _ in range(100):
            async with found.gateway.peers.call(found.owner.peers.me, deadline_s=5) as call:
                await call.send(AskAppKey(key=bytes(32), share=0, spent=0, calls=0))
                try:
                    await call.expect(AppKeyTold)
                except Refused as error:
                    refused += error.code is RefusalCode.BUSY
        assert refused >= 30


def test_apps_and_keys_that_make_no_sense_are_refused_with_words(tmp_path: Path) -> None:
    file = apps_file(tmp_path)
    me, entropy = SigningKey(bytes(32)).peer, Random(1).randbytes
    for app, words in (
        (OwnApp(name="A b", mode="open"), "no name for an app"),
        (OwnApp(name="a", mode="subscription", price=1), "needs one"),
        (OwnApp(name="a", mode="subscription", period_s=1), "a price is for the modes call"),
        (OwnApp(name="a", mode="open", period_s=1), "a period is for the mode subscription"),
        (OwnApp(name="a", mode="open", price=1), "a price is for the modes call"),
        (OwnApp(name="a", mode="call"), "a price is for the modes call"),
        (OwnApp(name="a", mode="hold"), "to be held"),
        (OwnApp(name="a", mode="open", pays=1), "within the budgets of keys"),
    ):
        with pytest.raises(InputError, match=words):
            add_app(file, app, START_S)
    for app in (
        OwnApp(name="reader", mode="open"),
        OwnApp(name="writer", mode="call", price=1),
        OwnApp(name="club", mode="hold", hold=1),
    ):
        add_app(file, app, START_S)
    for key, words in (
        (key_of("reader", budget=1), "a budget is for"),
        (key_of("writer"), "takes its price"),
        (key_of("club"), "to whose key is not said"),
        (key_of("reader", account=str(me)), "an account is for"),
        (key_of("reader", until_wall_s=int(START_S)), "ended already"),
        (key_of("nothing"), "there is no app"),
        (key_of("reader", per_minute=0), "times a minute"),
        (key_of("reader", label=""), "a label has"),
    ):
        with pytest.raises(InputError, match=words):
            add_app_key(file, key, me, entropy, START_S)
    secret = add_app_key(file, key_of("reader"), me, entropy, START_S)
    assert secret not in file.read_text()
    assert hashlib.sha256(secret.encode()).hexdigest() in file.read_text()
    with pytest.raises(InputError, match="has a key"):
        add_app_key(file, key_of("reader"), me, entropy, START_S)
    before = read_apps(file).sequence
    revoke_key(file, "reader", "ada", START_S - DAY_S)
    assert read_apps(file).sequence > before
    with pytest.raises(InputError, match="has no key"):
        revoke_key(file, "reader", "ada", START_S)
    for odd in ("{", "[]", '{"apps": [{}], "keys": [], "sequence": 1}'):
        file.write_text(odd)
        with pytest.raises(StoreUnusable):
            read_apps(file)


async def test_a_user_chats_through_another_peers_gateway(tmp_path: Path) -> None:
    """Over a real socket: the gateway's owner lets keys of apps in, and the budget ends."""
    async with open_network(tmp_path) as network:
        owner, gateway = await network.add(S), await network.add(I, S)
        await network.settled()
        secret = made(owner, OwnApp(name="writer", mode="call", price=1000), budget=2000)
        add_key(keys_file(gateway.config.state), "own", 60, Random(1).randbytes, 0.0)
        asked = {"model": "hash", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
        headers = {"authorization": f"Bearer {secret}"}

        def ask(url: str, path: str = "/v1/chat/completions") -> httpx.Response:
            return httpx.post(url + path, json=asked, headers=headers, timeout=60)

        async with open_gateway(gateway, GatewayConfig(port=0, deadline_s=60)) as url:
            closed = await trio.to_thread.run_sync(ask, url)
            assert (closed.status_code, closed.json()["error"]["code"]) == (403, "apps_not_taken")
        async with open_gateway(gateway, GatewayConfig(port=0, deadline_s=60, apps=True)) as url:
            found = [await trio.to_thread.run_sync(ask, url) for _ in range(3)]
            assert [it.status_code for it in found] == [200, 200, 402], found[-1].text
            assert "0.002" in found[-1].text
            batches = await trio.to_thread.run_sync(ask, url, "/v1/batches")
            assert batches.json()["error"]["code"] == "not_for_apps"
            headers["authorization"] = f"Bearer {secret[:-1]}{'1' if secret[-1] == '0' else '0'}"
            assert (await trio.to_thread.run_sync(ask, url)).status_code == 401
