"""`govern` and `jury` in the running peer: motions, ballots and findings, as its orders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.ledger.juries import cases_in, seal_or_find
from node.ledger.motion_shelf import motion_bond, motions_in, open_motions
from node.ledger.peer_ledger import PeerLedger
from node.local.control import Command, Emit
from node.peer import Node
from wire.errors import InputError, WireError
from wire.ledger import order_digest
from wire.motion import Ballot, Motion, motion_id


@dataclass(slots=True)
class GovernCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "governed": self.governed,
            "propose": self.propose,
            "vote": self.vote,
            "jury_find": self.find,
        }

    @property
    def _ledger(self) -> PeerLedger:
        if self.node.ledger is None:
            raise InputError(
                "this network has no ledger: nothing is decided by votes in it",
                todo="begin one with: python -m node network new NAME",
            )
        return self.node.ledger

    async def governed(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The ids of all motions and cases, and what one more motion is made with.

        It is out of the books as this peer follows them: only what has ended since is asked for.
        """
        rows = (await self._ledger.latest_draft()).books.motions.rows
        return {
            "motions": [it.hex() for it in motions_in(rows)],
            "cases": [it.hex() for it in cases_in(rows)],
            "bond": motion_bond(rows, open_motions(rows)),
        }

    async def propose(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Make the motion of which `motion` are the bytes, and wait until that is settled."""
        raw = arguments.get("motion")
        try:
            motion = Motion.from_bytes(raw if isinstance(raw, bytes) else b"")
        except WireError as error:
            raise InputError(f"this is no motion: {error.message}") from error
        ordered = await self._ledger.wallet.order(emit, propose=(motion,))
        name = motion_id(order_digest(ordered.order))
        return ordered.to_map() | {"motion": name.hex()}

    async def vote(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Vote on the motion `motion`, `yes` or not, and wait until that is settled."""
        name, yes = arguments.get("motion"), arguments.get("yes")
        if not isinstance(name, bytes) or len(name) != 32 or not isinstance(yes, bool):
            raise InputError("a ballot names a motion, and is for or against it")
        ordered = await self._ledger.wallet.order(emit, ballot=(Ballot(motion=name, yes=yes),))
        return ordered.to_map() | {"motion": name.hex(), "yes": yes}

    async def find(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Say of the case `case` whether the answer is `wrong`, and wait until that is settled.

        It is sealed; this peer tells it once all who are asked have sealed, or their time is over.
        """
        name, wrong = arguments.get("case"), arguments.get("wrong")
        if not isinstance(name, bytes) or len(name) != 32 or not isinstance(wrong, bool):
            raise InputError("a finding names a case, and whether the answer is wrong")
        ledger = self._ledger
        row = cases_in((await ledger.latest_draft()).books.motions.rows).get(name)
        if row is None:
            raise InputError("there is no such case", todo="see: python -m node jury list")
        action = seal_or_find(ledger.wallet.key, name, row, wrong=wrong)
        ordered = await ledger.wallet.order(emit, **action)
        return ordered.to_map() | {"case": name.hex(), "wrong": wrong}
