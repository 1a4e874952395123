"""What the running peer tells besides its status: its settings, its notes, and whom it knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from node.local.arguments import read_number
from node.local.control import Command, Emit
from node.local.settings import settings_of
from node.local.stake_commands import stake_of
from node.peer import Node
from p2p.notes import as_maps, latest_of
from wire.kinds import Role
from wire.ownership import shown_in

# Of what others caused, and of what the peer notes itself.
NOTES_SHOWN = 5


def owner_text(node: Node) -> str | None:
    """The owner that a peer shows in its adverts; None if it shows none."""
    shown = node.config.peers.ownership
    return None if shown is None else str(shown.owner)


def noted_lately(node: Node, of_store: str) -> list[dict[str, Any]]:
    """What was noted last, the newest at the end; what is wrong with the store is so now.

    What strangers cause takes no room from what the peer notes itself.
    """
    shown = (*latest_of(node.peers.notes, NOTES_SHOWN), *latest_of(node.notes, NOTES_SHOWN))
    told = as_maps(latest_of(shown, 2 * NOTES_SHOWN), trio.current_time())
    return [*told, *([{"line": f"store: {of_store}", "s_ago": 0, "times": 1}] if of_store else [])]


@dataclass(frozen=True, slots=True)
class Views:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "config": self.config,
            "logs": self.logs,
            "peers": self.peers,
        }

    async def config(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Every setting with its origin."""
        return {
            "settings": settings_of(self.node.config, private=self.node.peers.members is not None)
        }

    async def logs(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """What was noted last, oldest first."""
        noted = as_maps([*self.node.peers.notes, *self.node.notes], trio.current_time())
        return {"lines": [it["line"] for it in noted], "noted": noted}

    async def peers(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The peers whose adverts are valid now: roles, models, addresses, standing.

        At most `count` of them, connected ones first, without the first `after`; `total` there are.
        """
        node = self.node
        wall_s = node.dependencies.environment.wall_s()
        connected = node.peers.connected()
        measured = node.leg_server.dispatcher.directory.measured
        count, after = read_number(arguments, "count", 1 << 20), read_number(arguments, "after", 0)
        living = sorted(
            node.peers.view.living(wall_s), key=lambda it: (it.signer not in connected, it.signer)
        )
        rows = []
        for heard in living[max(0, after) : max(0, after) + max(0, count)]:
            advert = heard.record
            shown = shown_in(advert.addresses, heard.signer)
            rows.append(
                {
                    "peer": str(heard.signer),
                    "roles": [role.name.lower() for role in Role if advert.plays(role)],
                    "models": [it.name for it in advert.models],
                    "addresses": list(advert.reached_at),
                    "owner": None if shown is None else str(shown.owner),
                    "connected": heard.signer in connected,
                    "relayed": node.peers.endpoint.is_relayed(heard.signer),
                    "standing": node.peers.standing(heard.signer).name.lower(),
                    "free_slots": advert.free_slots,
                    "stake": stake_of(node, heard),
                    # What was measured here, when it worked for this peer; nothing it says.
                    "round_trip_s": measured.round_trip_s(heard.signer) or None,
                    "measured": {
                        it.name: round(speed, 2)
                        for it in advert.models
                        if (speed := measured.units_per_s(heard.signer, it.model)) is not None
                    },
                    "heard_s_ago": max(0, int(wall_s - advert.issued_at_s)),
                }
            )
        return {"me": str(node.peers.me), "total": len(living), "peers": rows}
