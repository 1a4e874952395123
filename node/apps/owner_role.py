"""What the peer of an app's owner answers gateways: what a key may do, and which are revoked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from node.apps.own_apps import OwnApp, OwnApps, OwnKey, apps_file, read_apps
from node.apps.owner_pays import OwnerPays
from node.apps.shares_book import SharesBook
from node.apps.subscriptions import Subscriptions
from node.ledger.peer_ledger import PeerLedger
from p2p.peer_rpc import Handler
from p2p.peers import Peers
from p2p.token_bucket import TokenBuckets
from p2p.typed_call import TypedCall, refusal_of
from store import Store
from wire.amount import show_credits
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
from wire.errors import BatonError, Refused
from wire.kinds import RefusalCode
from wire.message import Message
from wire.signed import SignedRecord, sign, sign_many

# How often it is looked whether the file has changed.
LOOK_S = 1.0
# What one peer may ask: so many questions at once, and so many a second.
ASKS_AT_ONCE = 64
ASKS_PER_S = 16.0
# A list of revoked keys may have half a megabyte.
LISTS_AT_ONCE = 4
LISTS_PER_S = 0.2
ASKERS_KEPT = 1024


@dataclass(slots=True)
class AppOwner:
    """Answers for the apps in this peer's state folder."""

    peers: Peers
    store: Store
    state: Path
    given: SharesBook = field(init=False)
    subscriptions: Subscriptions = field(init=False)
    pays: OwnerPays = field(init=False)
    # None in a network without credits.
    ledger: PeerLedger | None = None
    problem: str = ""
    _apps: OwnApps = field(default_factory=OwnApps)
    _stamp: tuple[int, int] | None = None
    _looked_at_s: float = float("-inf")
    _looking: trio.Lock = field(default_factory=trio.Lock)
    _asks: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(ASKS_AT_ONCE, ASKS_PER_S, ASKERS_KEPT)
    )
    _lists: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(LISTS_AT_ONCE, LISTS_PER_S, ASKERS_KEPT)
    )

    def __post_init__(self) -> None:
        self.given = SharesBook(self.store)
        self.subscriptions = Subscriptions(self.store)
        self.pays = OwnerPays(self.given)

    def handlers(self) -> dict[type[Message], Handler]:
        """What answers each message."""
        return {AskAppKey: self.on_ask_key, AskRevokedKeys: self.on_ask_revoked}

    async def apps(self) -> OwnApps:
        """The apps as the file has them now; StoreUnusable if it is damaged."""
        async with self._looking:
            now_at_s = trio.current_time()
            if now_at_s - self._looked_at_s >= LOOK_S:
                self._looked_at_s = now_at_s
                file = apps_file(self.state)
                try:
                    found = file.stat()
                    stamp = (found.st_mtime_ns, found.st_ino)
                except FileNotFoundError:
                    stamp = None
                if stamp != self._stamp:
                    # With 100,000 keys that takes a while: the loop goes on meanwhile.
                    read = await trio.to_thread.run_sync(partial(read_apps, file))
                    # A copy of an old file brings no revoked key back while this peer runs.
                    if read.sequence < self._apps.sequence:
                        self.problem = "apps.json is older than the one before: it is not taken"
                    else:
                        self._apps, self._stamp, self.problem = read, stamp, ""
            return self._apps

    async def on_ask_key(self, call: TypedCall, message: Message) -> None:
        """Tell a gateway what a key may do there."""
        assert isinstance(message, AskAppKey)
        try:
            _spare(call.peer, self._asks)
            apps = await self.apps()
            key = apps.by_digest.get(message.key)
            if key is None:
                raise Refused("no app of this peer has this key", code=RefusalCode.NOT_FOUND)
            await self.pays.note_drawn(message.key, call.peer, message.drawn)
            self._check(key)
            use = await self.given.give(
                message.key, key.budget, call.peer, message.share, message.spent, message.calls
            )
            app = apps.app(key.app)
            until_wall_s = await self._until_wall_s(app, key)
            told = self._told(app, key, call.peer, min(use.share, key.budget), until_wall_s)
            for payment in message.pay:
                paid = await self.pays.sign(app, key, call.peer, payment)
                told = replace(told, voucher=paid.raw, settlement=paid.channel.settlement)
        except BatonError as error:
            await call.send(refusal_of(error))
            return
        await call.send(told)

    def _check(self, key: OwnKey) -> None:
        if key.revoked:
            raise Refused(f"the key {key.label!r} is revoked", code=RefusalCode.NOT_FOUND)
        if key.until_wall_s <= self.peers.environment.wall_s():
            raise Refused(f"the key {key.label!r} has ended", code=RefusalCode.NOT_FOUND)

    async def _until_wall_s(self, app: OwnApp, key: OwnKey) -> int:
        """When a key ends: a subscription with what was paid. Refused if it is over, or not known.

        Who is told so asks again after that, so that a payment is seen within an epoch.
        """
        if app.kind is not AppMode.SUBSCRIPTION or key.account is None:
            return key.until_wall_s
        ledger = self.ledger
        if ledger is None:
            raise Refused("this peer's network has no ledger: nobody can subscribe")
        ledger.follow()
        follower, epoch_s = ledger.follower, ledger.genesis.epoch_s
        if follower.problem:
            raise Refused(f"what was paid is not known: {follower.problem}", retry_after_s=5.0)
        account, epochs = PeerId.parse(key.account), -(-app.period_s // epoch_s)
        found = await self.subscriptions.of(
            account, key.digest, app.price, epochs, follower.received.total(account)
        )
        left = found.until + 1 - follower.replica.epoch
        if left <= 0:
            raise Refused(
                f"the subscription to {app.name!r} is not paid: {show_credits(app.price)} credits"
                f" from {account} to {self.peers.me} pay for {epochs} epochs",
                code=RefusalCode.NOT_PAID,
            )
        return min(key.until_wall_s, int(self.peers.environment.wall_s()) + left * epoch_s)

    def _told(
        self, app: OwnApp, key: OwnKey, gateway: PeerId, share: int, until_wall_s: int
    ) -> AppKeyTold:
        network = self.peers.config.network
        # A subscription costs nothing by the call.
        price = app.price if app.kind is AppMode.CALL else 0
        records: list[SignedRecord] = [
            AppPolicy(
                network=network,
                app=app.name,
                mode=app.kind,
                price=price,
                hold=app.hold,
                users_pay=app.users_pay,
            ),
            AppKey(
                network=network,
                app=app.name,
                key=key.digest,
                gateway=gateway,
                until_wall_s=until_wall_s,
                per_minute=key.per_minute,
                budget=key.budget,
                share=share,
                account=None if key.account is None else PeerId.parse(key.account),
            ),
        ]
        policy, signed = sign_many(records, self.peers.key)
        return AppKeyTold(policy=policy.raw, key=signed.raw)

    async def on_ask_revoked(self, call: TypedCall, message: Message) -> None:
        """Tell a gateway which keys are revoked."""
        assert isinstance(message, AskRevokedKeys)
        try:
            _spare(call.peer, self._asks)
            apps = await self.apps()
            if message.sequence != apps.sequence:
                _spare(call.peer, self._lists)
            wall_s = self.peers.environment.wall_s()
            hashes = joined(apps.revoked(wall_s))
            head = RevokedKeys(
                network=self.peers.config.network,
                sequence=apps.sequence,
                told_at_ms=int(wall_s * 1000),
                digest=list_digest(hashes),
            )
        except BatonError as error:
            await call.send(refusal_of(error))
            return
        has_it = message.sequence == apps.sequence
        signed = sign(head, self.peers.key)
        await call.send(RevokedKeysTold(head=signed.raw, hashes=None if has_it else hashes))

    async def usage(self) -> Mapping[str, Any]:
        """For `app usage`: the apps, and each key with what gateways have of it, by labels."""
        apps = await self.apps()
        rows = []
        for key in apps.keys:
            uses = self.given.of(key.digest)
            if uses:
                gateways = {
                    str(PeerId(peer)): {
                        "share": it.share,
                        "spent": it.spent,
                        "calls": it.calls,
                        "promised": it.promised,
                        "paid": it.paid,
                    }
                    for peer, it in uses.items()
                }
                rows.append({"app": key.app, "label": key.label, "gateways": gateways})
        return {
            "owner": str(self.peers.me),
            "apps": [{"app": it.name, "mode": it.mode} for it in apps.apps],
            "keys": rows,
            "problem": self.problem,
        }


def _spare(peer: PeerId, buckets: TokenBuckets) -> None:
    """Refused if this peer asks too often."""
    now_at_s, name = trio.current_time(), str(peer)
    if not buckets.take(name, now_at_s):
        raise Refused(
            "you ask too often about apps of this peer",
            retry_after_s=buckets.wait_s(name, now_at_s),
        )
