"""Asking all members at once, each as often as it says, until enough have answered."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from node.ledger.account_view import AccountView, agreed_view, likely_view
from node.ledger.committee import Committee, proof_of
from node.ledger.committees import Committees
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire.content import ContentId, PeerId
from wire.errors import Refused, RemoteProtocolError, TransportError, Unreachable, WireError
from wire.kinds import RefusalCode, Role
from wire.ledger import AccountOrder, Acknowledgement, Vote, order_digest
from wire.ledger_message import (
    AccountState,
    Acknowledged,
    AskAccount,
    Confirm,
    SubmitOrder,
    Voted,
)
from wire.signed import Signed, open_signed

CALL_DEADLINE_S = 10.0
AGAIN_S = 1.0
SEEK_DEADLINE_S = 5.0
_TROUBLES = (TransportError, WireError, RemoteProtocolError)

T = TypeVar("T")


@dataclass(slots=True)
class MemberReplies:
    """What members answered, by their places, and why others refused."""

    committee: Committee
    proofs: dict[int, bytes] = field(default_factory=dict)
    refusals: dict[int, Refused] = field(default_factory=dict)
    unheard: dict[int, str] = field(default_factory=dict)

    def note(self, place: int, answer: bytes | Refused) -> None:
        """Note what a member answered: its signature, or that it refuses."""
        if isinstance(answer, Refused):
            self.refusals[place] = answer
        else:
            self.refusals.pop(place, None)
            self.proofs[place] = answer

    @property
    def final(self) -> set[int]:
        """Who refused for good: the others are asked until they sign."""
        return {at for at, it in self.refusals.items() if it.retry_after_s is None}

    @property
    def is_quorum(self) -> bool:
        """Whether enough have signed."""
        return self.committee.is_quorum(self.proofs)

    @property
    def is_over(self) -> bool:
        """Whether a quorum has signed, or none can any more."""
        possible = set(range(len(self.committee.members))) - self.final
        return self.is_quorum or not self.committee.is_quorum(possible)

    def why(self) -> str:
        """The reason that most gave, in words."""
        words = [it.message for it in self.refusals.values()] + [*self.unheard.values()]
        return max(words, key=words.count) if words else "no member answered"


@dataclass(slots=True)
class CommitteeCalls:
    """Questions of an owner to all members of its network: to those of the epoch in question."""

    peers: Peers
    committees: Committees
    network: ContentId

    async def account(self, account: PeerId, *, deadline_s: float) -> AccountView:
        """How an account stands; Unreachable unless a quorum answers in time."""
        committee = self.committees.latest
        told: dict[int, AccountState] = {}
        found: list[AccountView] = []
        unheard: dict[int, str] = {}

        async def ask(place: int, member: PeerId, enough: trio.CancelScope) -> None:
            try:
                async with self.peers.call(member, deadline_s=deadline_s) as call:
                    await call.send(AskAccount(account=account))
                    told[place] = await call.expect(AccountState)
            except (*_TROUBLES, Refused) as error:
                unheard[place] = str(error)
                return
            if (view := agreed_view(committee, told)) is not None:
                found.append(view)
                enough.cancel()

        await self._all(committee, ask, deadline_s)
        view = found[0] if found else likely_view(committee, told)
        if view is None:
            why = next(iter(unheard.values()), "no time left")
            raise Unreachable(
                f"{len(told)} of {len(committee.members)} members of the ledger answered:"
                f" more than two thirds are needed ({why})",
                todo="check the connection, or ask the members' owners",
            )
        return view

    async def votes(self, order: Signed[AccountOrder], *, deadline_s: float) -> MemberReplies:
        """Votes for an order, until a quorum has voted or cannot any more."""
        vote = Vote.of(order)

        async def ask(member: PeerId) -> Signed[Vote]:
            async with self.peers.call(member, deadline_s=stretched(CALL_DEADLINE_S)) as call:
                await call.send(SubmitOrder(order=order.raw))
                return open_signed((await call.expect(Voted)).vote, Vote)

        return await self._signatures(vote, ask, deadline_s)

    async def acknowledgements(
        self, order: Signed[AccountOrder], certificate: bytes, *, deadline_s: float
    ) -> MemberReplies:
        """Acknowledgements of a certificate, until a quorum has given them or cannot any more."""
        record = Acknowledgement(
            network=self.network, epoch=order.record.epoch, order=order_digest(order)
        )

        async def ask(member: PeerId) -> Signed[Acknowledgement]:
            async with self.peers.call(member, deadline_s=stretched(CALL_DEADLINE_S)) as call:
                await call.send(Confirm(certificate=certificate))
                reply = await call.expect(Acknowledged)
                return open_signed(reply.acknowledgement, Acknowledgement)

        return await self._signatures(record, ask, deadline_s)

    async def _signatures(
        self,
        record: Vote | Acknowledgement,
        ask: Callable[[PeerId], Awaitable[Signed[Vote] | Signed[Acknowledgement]]],
        deadline_s: float,
    ) -> MemberReplies:
        """The members' signatures over exactly `record`."""
        answered = MemberReplies(self.committees.of(record.epoch))

        async def one(place: int, member: PeerId, enough: trio.CancelScope) -> None:
            while True:
                try:
                    signed = await ask(member)
                    if signed.signer != member or signed.record != record:
                        raise RemoteProtocolError(f"{member.short} signed something else")
                except Refused as error:
                    answered.note(place, error)
                    if error.retry_after_s is None:
                        break
                    await trio.sleep(min(error.retry_after_s, AGAIN_S))
                except _TROUBLES as error:
                    answered.unheard[place] = str(error)
                    await trio.sleep(AGAIN_S)
                else:
                    answered.note(place, proof_of(type(record), signed.raw))
                    break
            if answered.is_over:
                enough.cancel()

        await self._all(answered.committee, one, deadline_s)
        return answered

    async def _all(
        self,
        committee: Committee,
        ask: Callable[[int, PeerId, trio.CancelScope], Awaitable[None]],
        deadline_s: float,
    ) -> None:
        """Ask every member at once, until all have answered, it is enough, or it is late."""
        await self._find(committee)
        with trio.move_on_after(stretched(deadline_s)) as enough:
            async with trio.open_nursery() as nursery:
                for place, member in enumerate(committee.members):
                    nursery.start_soon(ask, place, member.key, enough)

    async def _find(self, committee: Committee) -> None:
        """Look further than the view if too few members are in it to make a quorum."""
        wall_s = self.peers.environment.wall_s()
        seen = {it.signer for it in self.peers.view.candidates(Role.LEDGER, None, wall_s)}
        seen |= {self.peers.me, *self.peers.connected()}
        known = [at for at, it in enumerate(committee.members) if it.key in seen]
        if not committee.is_quorum(known):
            await self.peers.seek(Role.LEDGER, None, deadline_s=SEEK_DEADLINE_S)


def epoch_is_over(answered: MemberReplies) -> bool:
    """Whether members refused because another epoch runs, for good."""
    return any(
        it.code is RefusalCode.OTHER_EPOCH and it.retry_after_s is None
        for it in answered.refusals.values()
    )
