"""`wallet` and `ledger` in the running peer: an account, payments, and the whole ledger."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import trio

from node.ledger.exporting import export_ledger
from node.ledger.faucet import ask_credits
from node.ledger.peer_ledger import PeerLedger
from node.ledger.redeemed import redeemed_by
from node.local.arguments import read_key, read_number, read_path, read_text
from node.local.control import Command, Emit
from node.local.offer_payments import pay_offer
from node.local.stake_commands import stake_map
from node.paying.own_tariff import SERVICE_IDS
from node.peer import Node
from p2p.timeouts import stretched
from wire.amount import AMOUNT_MAX
from wire.content import ContentId
from wire.errors import InputError, Refused, Unreachable
from wire.ledger import growth_of

LOG_SHOWN = 200
# So long the log waits for what ended epochs say; it shows what is known then.
CATCH_UP_S = 10.0
SPONSORS_ASKED_MAX = 8
# So long after a sponsor said that it paid the account is looked at.
SEEN_S = 10.0


@dataclass(slots=True)
class LedgerCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "wallet": self.wallet,
            "pay": self.pay,
            "pay_offer": self.pay_offer,
            "wallet_log": self.log,
            "faucet": self.faucet,
            "earnings": self.earnings,
            "ledger_export": self.export,
        }

    @property
    def _ledger(self) -> PeerLedger:
        if self.node.ledger is None:
            raise InputError(
                "this network has no ledger: everything in it is free",
                todo="begin one with: python -m node network new NAME",
            )
        return self.node.ledger

    async def wallet(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """How the account `account` stands, this peer's own if none is named."""
        ledger = self._ledger
        named = arguments.get("account")
        account = self.node.peers.me if named is None else read_key(str(named))
        view = await ledger.wallet.look(account)
        mine = account == self.node.peers.me
        unsettled = [it.to_map() for it in ledger.wallet.log(1) if mine and it.unsettled]
        return {
            "account": str(account),
            "network": str(ledger.genesis.id),
            "name": ledger.genesis.name,
            **asdict(view),
            **stake_map(view),
            "members": len(ledger.genesis.members),
            "unsettled": unsettled,
            **(self._channels() if mine else {"paying": [], "earning": []}),
        }

    def _channels(self) -> dict[str, Any]:
        """The channels that this peer pays from, and those it is paid from."""
        paying = self.node.paying
        if paying is None:
            return {"paying": [], "earning": []}
        return {
            "paying": paying.payer.channels.rows(),
            "earning": paying.till.channels.rows(),
        }

    async def earnings(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Who was charged what for which model, what is not redeemed, and what was lost to whom."""
        self._ledger  # noqa: B018 - says that there is no ledger
        assert self.node.paying is not None
        channels = self.node.paying.till.channels
        if arguments.get("redeem"):
            await channels.redeem()
        rows = channels.rows()
        return {
            "account": str(self.node.peers.me),
            "sums": self.earned(),
            "channels": rows,
            "charged": sum(it["charged"] for it in rows),
            # Of what was worked for; what is promised or redeemed ahead of work stands by itself.
            "redeemed": sum(min(it["redeemed"], it["charged"]) for it in rows),
            "redeemed_whole": sum(it["redeemed"] for it in rows),
            "unredeemed": sum(
                max(0, min(it["promised"], it["charged"]) - it["redeemed"]) for it in rows
            ),
            "ahead": sum(it["ahead"] for it in rows),
            "to_fund": sum(growth_of(it["redeemed"]) for it in rows),
            "lost": sum(it["lost"] for it in rows),
            # Of the channels that are open, what others were paid, and of it relays.
            "paid": {
                name: sum(it[name] for it in self.node.paying.payer.channels.rows())
                for name in ("charged", "relayed")
            },
        }

    def earned(self) -> list[dict[str, Any]]:
        """What each payer was charged, and what for: a model, verdicts, data, store or relay."""
        assert self.node.paying is not None
        kinds = {None: "verdicts"} | {str(it): name for name, it in SERVICE_IDS.items()}
        own = self.node.paying.own
        names = {str(own.resolve(it)): it for it in own.typed.models}
        return [
            it
            | {
                "for": kinds.get(it["model"], "model"),
                "name": names.get(it["model"]) or self._named(it["model"]),
            }
            for it in self.node.paying.till.channels.sums.rows()
        ]

    def _named(self, model: str | None) -> str:
        """The name of a model that this peer did not price itself, as a gateway asks others."""
        if model is None or model in map(str, SERVICE_IDS.values()):
            return ""
        return self.node.models.name_of(ContentId.parse(model))

    async def pay(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Pay `amount` millionths to the account `to`, and wait until it is settled."""
        amount = read_number(arguments, "amount", 0)
        if not 1 <= amount <= AMOUNT_MAX:
            raise InputError(f"{amount} millionths cannot be paid", todo="give a positive amount")
        to = read_key(read_text(arguments, "to"))
        return (await self._ledger.wallet.pay(to, amount, emit)).to_map()

    async def pay_offer(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Pay what a gateway offers, at most `most` millionths: what shows that it is paid."""
        return await pay_offer(self._ledger.wallet, self.node.paying, arguments, emit)

    async def log(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """This account's own orders, and what others paid it in epochs that ended; latest first.

        The first call has the whole ledger read; `received_before` is the epoch up to which it is.
        """
        ledger = self._ledger
        follower = ledger.follower
        ledger.follow()
        with trio.move_on_after(stretched(CATCH_UP_S)) as waited, suppress(Unreachable):
            await follower.catch_up()
        late = "the ledger is still being read: ask again" if waited.cancelled_caught else ""
        orders = ledger.wallet.log(LOG_SHOWN + 1)
        taken = redeemed_by(reversed(orders))
        received = [it.to_map() for it in reversed(follower.received.latest)]
        return {
            "account": str(self.node.peers.me),
            "orders": [
                it.to_map() | {"taken": taken.get(it.order.record.sequence)}
                for it in orders[:LOG_SHOWN]
            ],
            "received": received[:LOG_SHOWN],
            "authored": [it.to_map() for it in reversed(follower.received.income)][:LOG_SHOWN],
            "received_before": follower.replica.epoch,
            "received_problem": late or follower.problem,
        }

    async def faucet(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Ask the peer `sponsor` for credits; without one, members and peers that are connected."""
        ledger, peers = self._ledger, self.node.peers
        if (named := arguments.get("sponsor")) is not None:
            sponsors = [read_key(str(named))]
            if sponsors == [peers.me]:
                raise InputError("a peer gives itself nothing", todo="name another key")
        else:
            members = [it.key for it in ledger.wallet.committees.latest.members]
            near = [it for it in (*members, *sorted(peers.connected())) if it != peers.me]
            sponsors = list(dict.fromkeys(near))[:SPONSORS_ASKED_MAX]
        before = (await ledger.wallet.look()).balance
        sponsor, given = await ask_credits(ledger.wallet, sponsors)
        balance = before
        with trio.move_on_after(stretched(SEEN_S)):
            while (balance := (await ledger.wallet.look()).balance) <= before:
                await trio.sleep(1.0)
        if balance <= before:
            raise Refused(
                f"{sponsor.short} says that it paid, and the ledger does not show it",
                todo="look later with: python -m node wallet",
            )
        return {
            "sponsor": str(sponsor),
            "amount": given.amount,
            "order": given.order.hex(),
            "balance": balance,
        }

    async def export(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Write the whole ledger to the file `path`."""
        ledger = self._ledger
        path = read_path(arguments)
        committees = ledger.wallet.committees
        done = await export_ledger(self.node.peers, committees, trio.Path(path))
        return {"path": str(path), "epochs": done.epochs, "orders": done.orders}
