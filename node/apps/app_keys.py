"""Keys of apps as a gateway knows them: what their owners say of them, and which are revoked.

A key that is known costs a look into two tables. The owner's list of revoked keys is asked for
again while it is in use, and is never older than a minute when it lets a key in: its age is counted
by this machine's own clock from when it was asked for, so no clock of another matters.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from node.apps.known_keys import NEVER, KnownKey, KnownOwner
from node.apps.own_apps import PREFIX
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire import limits
from wire.app import (
    DRAWN_MAX,
    AppDrawn,
    AppKey,
    AppKeyTold,
    AppMode,
    AppPayment,
    AppPolicy,
    AskAppKey,
    AskRevokedKeys,
    RevokedKeys,
    RevokedKeysTold,
    list_digest,
    split,
)
from wire.content import PeerId
from wire.errors import (
    BatonError,
    Malformed,
    Refused,
    RemoteProtocolError,
    TransportError,
    Unreachable,
    WireError,
)
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.message import Message
from wire.signed import open_signed

KEYS_MAX = 100_000
OWNERS_MAX = 1024
REFUSED_MAX = 4096
# An owner may take a second to see that its file has changed: in all that stays below a minute.
LIST_S_MAX = 55.0
# A list that is older than this is asked for again while it is in use.
LIST_AGAIN_S = 25.0
# What a key may do is asked for again.
KEY_AGAIN_S = 300.0
ASK_DEADLINE_S = 5.0
# The first voucher waits until the owner's ledger has opened a channel.
PAY_DEADLINE_S = 20.0
# What failed is not tried again for so long.
FAILED_S = 5.0
# Questions under way, and of one owner.
ASKS_MAX = 256
ASKS_EACH_MAX = 32
# How often owners are told what their keys did, and of how many keys at most each time.
REPORT_S = 30.0
REPORTS_MAX = 64
LOOK_S = 1.0
_SECRET = re.compile(r"[0-9a-f]{64}")

M = TypeVar("M", bound=Message)
T = TypeVar("T")


def is_app_key(secret: str) -> bool:
    """Whether this is the key of an app, whosever."""
    return secret.startswith(PREFIX)


@dataclass(slots=True)
class AppKeys:
    """The keys that were shown here lately. `run` renews lists, and tells owners of use."""

    peers: Peers
    _known: Latest[bytes, KnownKey] = field(default_factory=lambda: Latest(KEYS_MAX))
    _owners: Latest[PeerId, KnownOwner] = field(default_factory=lambda: Latest(OWNERS_MAX))
    # What owners refused, and until when that is not asked again.
    _refused: Latest[bytes, tuple[float, Refused]] = field(
        default_factory=lambda: Latest(REFUSED_MAX)
    )
    # Those with calls that their owners were not told of.
    _untold: dict[bytes, KnownKey] = field(default_factory=dict)
    _renew: dict[PeerId, KnownOwner] = field(default_factory=dict)
    _asks: int = 0

    def of(self, digest: bytes) -> KnownKey | None:
        """The key with this hash, if it was shown here lately."""
        return self._known.get(digest)

    def at_hand(self, digest: bytes, now_at_s: float) -> KnownKey | None:
        """The key with this hash, if it may come in without a question to anybody; else None.

        Refused if it is revoked, or has ended.
        """
        known = self._known.get(digest)
        if known is None or now_at_s - known.asked_at_s > KEY_AGAIN_S or self._lapsed(known):
            return None
        owner = self._owners.get(known.owner)
        if owner is None or (age_s := owner.age_s(now_at_s)) > LIST_S_MAX:
            return None
        if age_s > LIST_AGAIN_S:
            self._renew[owner.peer] = owner
        self._check(known, owner)
        return known

    def _lapsed(self, known: KnownKey) -> bool:
        """Whether the time of a subscription is over that may have been paid for again."""
        is_over = known.key.until_wall_s <= self.peers.environment.wall_s()
        return is_over and known.policy.mode is AppMode.SUBSCRIPTION

    def _check(self, known: KnownKey, owner: KnownOwner) -> None:
        if known.digest in owner.revoked:
            raise Refused("this key is revoked by its app's owner", code=RefusalCode.NOT_FOUND)
        if known.key.until_wall_s <= self.peers.environment.wall_s():
            raise Refused(
                "this key has ended: its app's owner can give another", code=RefusalCode.NOT_FOUND
            )

    async def learn(self, secret: str) -> KnownKey:
        """The key that this is; its owner is asked what is not known here, or not lately.

        Refused if it lets nobody in, or too much is asked at once; another BatonError if the owner
        is not reached or says what it must not.
        """
        digest, now_at_s = digest_of(secret), trio.current_time()
        if (known := self.at_hand(digest, now_at_s)) is not None:
            return known
        refused = self._refused.get(digest)
        if refused is not None and refused[0] > now_at_s:
            raise refused[1]
        owner = self._owner(owner_of(secret))
        with self._place(owner):
            await self._renewed(owner, LIST_S_MAX)
            known = await self._asked(owner, digest)
        self._check(known, owner)
        return known

    async def more(self, known: KnownKey, need: int) -> int:
        """Have the owner share out `need` millionths of a key's budget in all; the share now."""
        owner = self._owner(known.owner)
        with self._place(owner):
            await self._ask_key(owner, known.digest, need)
        return known.key.share

    async def voucher(self, known: KnownKey, payment: AppPayment) -> tuple[bytes, bytes]:
        """Have the owner pay for one request: its voucher, and what shows its channel.

        Refused says why the owner does not.
        """
        owner = self._owner(known.owner)
        with self._place(owner):
            deadline_s = stretched(ASK_DEADLINE_S)
            version = await self.peers.neighbours.version_of(owner.peer, deadline_s=deadline_s)
            told = None
            if version >= limits.OWNER_PAYS_VERSION:
                told = await self._ask_key(owner, known.digest, known.key.share, (payment,))
        if told is None or not told.voucher:
            raise Refused(
                "the peer of this key's owner is of an older release, which pays for no calls",
                code=RefusalCode.NOT_WILLING,
            )
        return told.voucher, told.settlement

    def drew(self, known: KnownKey, request: bytes, amount: int) -> None:
        """Note what a request came to that the owner has paid for: it is told soon."""
        # What is not told counts for all that it might have come to.
        known.drawn = [*known.drawn[-DRAWN_MAX + 1 :], AppDrawn(request=request, amount=amount)]

    def used(self, known: KnownKey, spent: int) -> None:
        """Note a call of a key, and what it has spent here in all."""
        known.spent, known.calls = spent, known.calls + 1
        if len(self._untold) < KEYS_MAX:
            self._untold[known.digest] = known

    async def run(self) -> None:
        """For ever: renew the lists that are in use, and tell owners what their keys did."""
        report_at_s = trio.current_time() + REPORT_S
        while True:
            await trio.sleep(LOOK_S)
            renew, self._renew = list(self._renew.values()), {}
            for owner in renew[:ASKS_EACH_MAX]:
                await self._quietly(owner, partial(self._renewed, owner, LIST_AGAIN_S))
            if trio.current_time() >= report_at_s:
                report_at_s = trio.current_time() + REPORT_S
                for known in list(self._untold.values())[:REPORTS_MAX]:
                    self._untold.pop(known.digest, None)
                    owner = self._owner(known.owner)
                    ask = partial(self._ask_key, owner, known.digest, known.key.share)
                    if not await self._quietly(owner, ask):
                        self._untold[known.digest] = known

    def statistics(self) -> dict[str, int]:
        """How many keys and owners are known, and how many questions to owners are under way."""
        return {"keys": len(self._known), "owners": len(self._owners), "asks": self._asks}

    async def _quietly(self, owner: KnownOwner, ask: Callable[[], Awaitable[object]]) -> bool:
        """Whether a question was answered, that no client waits for."""
        try:
            with self._place(owner):
                await ask()
        except Refused as error:
            # What was revoked meanwhile is told no more.
            return error.code is RefusalCode.NOT_FOUND
        except BatonError:
            return False
        return True

    def _owner(self, peer: PeerId) -> KnownOwner:
        found = self._owners.get(peer)
        if found is None:
            found = self._owners[peer] = KnownOwner(peer)
        return found

    @contextmanager
    def _place(self, owner: KnownOwner) -> Iterator[None]:
        """Refused where too many questions are under way."""
        if self._asks >= ASKS_MAX or owner.waiting >= ASKS_EACH_MAX:
            raise Refused("too many owners of apps are asked at once here", retry_after_s=1.0)
        self._asks += 1
        owner.waiting += 1
        try:
            yield
        finally:
            self._asks -= 1
            owner.waiting -= 1

    async def _renewed(self, owner: KnownOwner, age_s_max: float) -> None:
        """See that the owner's list is no older than that."""
        async with owner.listing:
            if (asked_at_s := trio.current_time()) - owner.asked_at_s <= age_s_max:
                return
            ask = AskRevokedKeys(sequence=owner.sequence)
            try:
                await self._call(owner, ask, RevokedKeysTold, partial(self._take_list, owner))
            except TransportError as error:
                if owner.asked_at_s == NEVER:
                    raise
                raise Unreachable(
                    f"{error.message}; its list of revoked keys is {owner.age_s(asked_at_s):.0f} s"
                    " old here, and one of more than a minute lets nobody in"
                ) from error
            # Counted from the question: what was revoked after it may be missing.
            owner.asked_at_s = asked_at_s

    def _take_list(self, owner: KnownOwner, told: RevokedKeysTold) -> None:
        head = open_signed(told.head, RevokedKeys)
        said = head.record
        if head.signer != owner.peer or said.network != self.peers.config.network:
            raise Malformed("a list of revoked keys of another owner, or of another network")
        if said.sequence < owner.sequence:
            raise Malformed(
                f"its list of revoked keys went back, from number {owner.sequence} to"
                f" {said.sequence}"
            )
        if told.hashes is None:
            if said.sequence != owner.sequence:
                raise Malformed("its list of revoked keys is another, and it does not show it")
            return
        if list_digest(told.hashes) != said.digest:
            raise Malformed("its list of revoked keys is not the one that it signed")
        # One swap: nobody sees a part of it.
        owner.revoked, owner.sequence = split(told.hashes), said.sequence

    async def _asked(self, owner: KnownOwner, digest: bytes) -> KnownKey:
        """A key, asked for unless it was lately."""
        async with owner.asking:
            known = self._known.get(digest)
            late_s = 0.0 if known is None else trio.current_time() - known.asked_at_s
            if known is not None and late_s <= KEY_AGAIN_S and not self._lapsed(known):
                return known
            try:
                share = 0 if known is None else known.key.share
                await self._ask_key(owner, digest, share)
                return self._known[digest]
            except TransportError:
                if known is None:
                    raise
                # The list of its owner is fresh enough, and says whether it is revoked.
                return known

    async def _ask_key(
        self, owner: KnownOwner, digest: bytes, share: int, pay: tuple[AppPayment, ...] = ()
    ) -> AppKeyTold:
        known, now_at_s = self._known.get(digest), trio.current_time()
        spent, calls = (0, 0) if known is None else (known.spent, known.calls)
        drawn = () if known is None else tuple(known.drawn)
        ask = AskAppKey(key=digest, share=share, spent=spent, calls=calls, pay=pay, drawn=drawn)
        deadline_s = PAY_DEADLINE_S if pay else ASK_DEADLINE_S
        try:
            told, policy, key = await self._call(
                owner, ask, AppKeyTold, partial(self._read_key, owner, digest), deadline_s
            )
        except Refused as error:
            if error.code is RefusalCode.NOT_FOUND:
                self._known.pop(digest, None)
            is_of_key = not pay and error.code is RefusalCode.NOT_PAID
            if is_of_key or error.code is RefusalCode.NOT_FOUND:
                self._refused[digest] = (now_at_s + FAILED_S, error)
            raise
        if known is None:
            known = KnownKey(digest, owner.peer, policy, key, now_at_s)
            self._known[digest] = known
        known.policy, known.key, known.asked_at_s = policy, key, now_at_s
        known.calls -= calls
        known.drawn = [it for it in known.drawn if it not in drawn]
        if not known.calls:
            self._untold.pop(digest, None)
        return told

    def _read_key(
        self, owner: KnownOwner, digest: bytes, told: AppKeyTold
    ) -> tuple[AppKeyTold, AppPolicy, AppKey]:
        policy, key = open_signed(told.policy, AppPolicy), open_signed(told.key, AppKey)
        if {policy.signer, key.signer} != {owner.peer}:
            raise Malformed("what an app's key may do is signed by its owner")
        networks = {policy.record.network, key.record.network}
        if networks != {self.peers.config.network} or policy.record.app != key.record.app:
            raise Malformed("a key of another network, or a policy of another app")
        if key.record.key != digest or key.record.gateway != self.peers.me:
            raise Malformed("another key than was asked for, or for another gateway")
        return told, policy.record, key.record

    async def _call(
        self,
        owner: KnownOwner,
        ask: Message,
        kind: type[M],
        read: Callable[[M], T],
        deadline_s: float = ASK_DEADLINE_S,
    ) -> T:
        """What an owner's answer says; the BatonError of it, or of the last call that failed."""
        if trio.current_time() < owner.failed_at_s + FAILED_S:
            raise Unreachable(owner.problem)
        try:
            async with self.peers.call(owner.peer, deadline_s=stretched(deadline_s)) as call:
                await call.send(ask)
                return read(await call.expect(kind))
        except (TransportError, WireError, RemoteProtocolError) as error:
            owner.problem, owner.failed_at_s = error.message, trio.current_time()
            raise


def digest_of(secret: str) -> bytes:
    """What a key is called between peers: the hash of its text."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def owner_of(secret: str) -> PeerId:
    """Whose app this key is of; Refused if it is no key of an app."""
    peer, _, rest = secret.removeprefix(PREFIX).partition("-")
    try:
        if _SECRET.fullmatch(rest) is None:
            raise Malformed("what follows the owner has 64 digits of 0-9 and a-f")
        return PeerId.parse(peer)
    except WireError as error:
        words = f"this is no key of an app: {error.message}"
        raise Refused(words, code=RefusalCode.NOT_FOUND) from error
