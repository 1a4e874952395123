"""`stake` in the running peer: what an account has staked, more of it, and some of it back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.asking.jury_duty import BRING_S
from node.evidence.charges import AccusedWork, charged
from node.ledger.account_view import AccountView
from node.ledger.peer_ledger import PeerLedger
from node.ledger.slashing import BOND_MIN, check_evidence
from node.local.arguments import read_key, read_number, read_text
from node.local.control import Command, Emit
from node.peer import Node
from wire import limits
from wire.advert import Advert
from wire.amount import AMOUNT_MAX, show_credits
from wire.errors import InputError, StoreError, TransportError, WireError
from wire.evidence import Evidence
from wire.kinds import Role
from wire.ledger import Accusation
from wire.signed import Signed
from wire.stake import UNBONDING_EPOCHS, StakePart

# What keeps the payload of a case.
PIN = "case"


@dataclass(slots=True)
class StakeCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "stake_show": self.show,
            "stake_add": self.add,
            "stake_unbond": self.unbond,
            "slash": self.slash,
        }

    @property
    def _ledger(self) -> PeerLedger:
        return ledger_of(self.node)

    async def show(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """What the account `account` has staked, this peer's own if none is named.

        It is what a quorum of members says, and beside it what the last checkpoint says that this
        peer has checked: only that counts when others weigh it.
        """
        ledger = self._ledger
        named = arguments.get("account")
        account = self.node.peers.me if named is None else read_key(str(named))
        view = await ledger.wallet.look(account)
        table = ledger.stakes
        return {
            "account": str(account),
            "network": str(ledger.genesis.id),
            "epoch": view.epoch,
            "agreed": view.agreed,
            **stake_map(view),
            "counts": None if table.epoch is None else table.row(account).bonded,
            "counts_epoch": table.epoch,
        }

    async def add(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Stake `amount` millionths for `role`, and wait until it is settled."""
        part = _part(arguments)
        wallet = self._ledger.wallet
        view = await wallet.look()
        if view.agreed and view.balance < part.amount:
            raise InputError(
                f"this account has {show_credits(view.balance)} credits,"
                f" {show_credits(part.amount)} are more",
                todo="stake less, or have somebody pay this account first",
            )
        return (await wallet.order(emit, stake=(part,))).to_map()

    async def unbond(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Have `amount` millionths of what is staked for `role` back; all of it if none is given.

        Until it is back, after UNBONDING_EPOCHS epochs, it answers for this peer as before.
        """
        role, wallet = read_role(arguments), self._ledger.wallet
        view = await wallet.look()
        staked = next((it.amount for it in view.stake if it.role == role), 0)
        if not staked:
            raise InputError(
                f"nothing is staked for {role.name.lower()}", todo="see: python -m node stake show"
            )
        part = _part(arguments, default=staked)
        found = (await wallet.order(emit, unbond=(part,))).to_map()
        return found | {"back_after_epoch": int(found["epoch"]) + UNBONDING_EPOCHS}

    async def slash(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Accuse whom `evidence` convicts, with `bond`, and wait until that is settled.

        What a jury has to look at is announced: this peer shows it once the epoch has ended.
        """
        wallet, raw = self._ledger.wallet, arguments.get("evidence")
        if not isinstance(raw, bytes) or not 1 <= len(raw) <= limits.ACCUSATION_BYTES_MAX:
            raise InputError(
                f"an order takes at most {limits.ACCUSATION_BYTES_MAX} bytes of evidence",
                todo="ask a jury, which fetches what is large: python -m node jury charge RECEIPT"
                " FILE",
            )
        bond = read_number(arguments, "bond", BOND_MIN)
        if not BOND_MIN <= bond <= AMOUNT_MAX:
            raise InputError(
                f"an accuser puts up at least {show_credits(BOND_MIN)} credits", todo="bond more"
            )
        accusation = Accusation(evidence=raw, bond=bond, with_others=True)
        try:
            if check_evidence(accusation, self._ledger.genesis.id) is None:
                await self.keep_payload(charged(Evidence.from_bytes(raw)))
                # A jury is asked: what that costs is in the books.
                return (await self._ledger.accusing.announce(raw, bond, emit)).to_map()
        except WireError as error:
            raise InputError(error.message, todo="nothing was sent to the ledger") from error
        return (await wallet.order(emit, accuse=(accusation,))).to_map()

    async def keep_payload(self, charge: AccusedWork) -> None:
        """Keep what a case only names, for jurors to fetch; InputError if it is nowhere."""
        if charge.output is not None:
            return
        leg, blobs = charge.receipt.record, self.node.blobs
        holders = (*(it.signer for it in charge.receipts), charge.task.signer)
        for content in (leg.input, leg.output):
            if content is None:
                continue
            try:
                data = await blobs.get(
                    content,
                    holders,
                    deadline_s=BRING_S,
                    size_bytes_max=limits.TENSORS_BYTES_MAX,
                )
            except (StoreError, TransportError) as error:
                raise InputError(
                    f"what the answer is about is not kept here: {error.message}",
                    todo="put it first, since jurors fetch it here: python -m node put FILE",
                ) from error
            await blobs.store.put(data, pin=PIN)


def ledger_of(node: Node) -> PeerLedger:
    """The ledger of a peer; InputError in a network without one."""
    if node.ledger is None:
        raise InputError(
            "this network has no ledger: everything in it is free",
            todo="begin one with: python -m node network new NAME",
        )
    return node.ledger


def read_role(arguments: Mapping[str, Any]) -> Role:
    """The role that is named; InputError if there is none such."""
    name = read_text(arguments, "role")
    if name.upper() not in Role.__members__:
        known = ", ".join(role.name.lower() for role in Role)
        raise InputError(f"there is no role {name[:40]!r}", todo=f"use one of {known}")
    return Role[name.upper()]


def _part(arguments: Mapping[str, Any], default: int = 0) -> StakePart:
    amount = read_number(arguments, "amount", default)
    if not 1 <= amount <= AMOUNT_MAX:
        raise InputError(f"{amount} millionths cannot be staked", todo="give a positive amount")
    return StakePart(role=read_role(arguments), amount=amount)


def stake_map(view: AccountView) -> dict[str, Any]:
    """An account's stake for people and programs."""
    return {
        "stake": [{"role": it.role.name.lower(), "amount": it.amount} for it in view.stake],
        "leaving": [
            {"role": it.role.name.lower(), "amount": it.amount, "back_after_epoch": it.until}
            for it in view.leaving
        ],
        "staked": sum(it.amount for it in view.stake),
    }


def stake_of(node: Node, heard: Signed[Advert]) -> dict[str, Any]:
    """What a peer's advert says of its stake, and what the last checkpoint known here says."""
    table = None if node.ledger is None else node.ledger.stakes
    known = None if table is None or table.epoch is None else table.row(heard.signer).bonded
    return {"claimed": heard.record.stake, "known": known}
