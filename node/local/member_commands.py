"""`invite` and `members` in the running peer: who is invited, who belongs, and who no more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.local.arguments import read_key, read_number, read_text
from node.local.control import Command, Emit, unheard
from node.peer import Node
from p2p.admission import InviteTerms
from p2p.ip_address import Scope, host_of, scope_of
from p2p.members import Members
from p2p.routes import outgoing_hosts
from wire import limits
from wire.content import PeerId
from wire.errors import InputError
from wire.invite_token import write_token
from wire.kinds import Role
from wire.membership import ALL_ROLES, Admitter
from wire.plural import plural

FOR_S_MAX = 365 * 86_400
# Addresses of one admitter in an invite: it is to fit a line.
ADDRESSES_TOLD = 2
# Every key begins so. The end of one is told from others by so many characters.
_KEYS_BEGIN = "12D3Koo"
ENDING_CHARACTERS = 6


def role_names(bits: int) -> list[str]:
    """The names of the roles; `all` for every one."""
    if bits == ALL_ROLES:
        return ["all"]
    return [role.name.lower() for role in Role if bits >> role & 1]


def members_called(typed: str, labels: Mapping[str, str]) -> list[str]:
    """The keys of those who are meant by a key, the end of one as `…cmGCzQ`, or a label."""
    if typed in labels:
        return [typed]
    ending = typed.removeprefix("…").removeprefix("...")
    ends = len(ending) >= ENDING_CHARACTERS
    return [
        peer
        for peer, label in labels.items()
        if (typed and label == typed) or (ends and peer.endswith(ending))
    ]


@dataclass(frozen=True, slots=True)
class MemberCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "invite": self.invite,
            "invite_list": self.invites,
            "invite_revoke": self.revoke,
            "members": self.members,
            "members_remove": self.remove,
        }

    @property
    def _members(self) -> Members:
        members = self.node.peers.members
        if members is None:
            raise InputError(
                "this network is open: whoever knows an address joins it, without an invite",
                todo="begin a private one, in a state folder of its own: python -m node network new"
                " NAME --private --state DIR",
            )
        return members

    async def invite(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """A new invite, as the line that is passed on."""
        members = self._members
        for_s = read_number(arguments, "for_s", 86_400)
        uses_max = read_number(arguments, "uses", 1)
        if not 60 <= for_s <= FOR_S_MAX:
            raise InputError("an invite lasts a minute to a year", todo="for example --for 24h")
        if not 1 <= uses_max <= limits.INVITE_USES_MAX:
            raise InputError(
                f"an invite has 1 to {limits.INVITE_USES_MAX} uses", todo="for example --uses 1"
            )
        label = str(arguments.get("label") or "")
        if len(label.encode(errors="replace")) > limits.LABEL_BYTES_MAX or not label.isprintable():
            raise InputError(
                f"a label is one line of at most {limits.LABEL_BYTES_MAX} bytes",
                todo="give a shorter one with --label",
            )
        named = [read_key(str(it)) for it in arguments.get("admitters") or ()]
        if len(named) > limits.ADMITTERS_MAX:
            raise InputError(f"an invite names at most {limits.ADMITTERS_MAX} admitters")
        terms = InviteTerms(
            uses_max=uses_max,
            for_s=for_s,
            roles=read_number(arguments, "roles", ALL_ROLES) & ALL_ROLES,
            label=label,
            admitters=tuple(map(self._admitter, dict.fromkeys(named or [self.node.peers.me]))),
        )
        signed, seed = await members.admission.invite(terms)
        reached = any(
            scope_of(host_of(it)) is not Scope.LOOPBACK
            for admitter in terms.admitters
            for it in admitter.addresses
        )
        return {
            "id": signed.record.id.hex(),
            "line": write_token(signed, seed),
            "network": str(members.credentials.network),
            "uses": uses_max,
            "not_after_s": signed.record.not_after_s,
            "roles": role_names(terms.roles),
            "label": label,
            "admitters": [
                {"peer": str(it.peer), "addresses": list(it.addresses)} for it in terms.admitters
            ],
            "for_this_machine_alone": not reached,
        }

    def _admitter(self, peer: PeerId) -> Admitter:
        """An admitter where it is reached now; InputError if nobody knows where."""
        peers = self.node.peers
        if peer == peers.me:
            said = peers.mine().record.reached_at or peers.endpoint.addresses
        else:
            heard = peers.view.advert_of(peer)
            said = () if heard is None else heard.record.reached_at
        if not said:
            raise InputError(
                f"nobody knows where {peer} is reached", todo="see: python -m node peers"
            )
        ways_out = outgoing_hosts()

        def rank(address: str) -> tuple[bool, bool, Scope]:
            """What leads furthest first; bridges of containers lead nowhere."""
            host = host_of(address)
            scope = scope_of(host)
            return scope is Scope.LOOPBACK, scope is Scope.PRIVATE and host not in ways_out, scope

        ranked = sorted(said, key=rank)
        far = [it for it in ranked if scope_of(host_of(it)) is not Scope.LOOPBACK] or ranked
        short = [it.removesuffix(f"/p2p/{peer}") for it in far]
        return Admitter(peer=peer, addresses=tuple(short[:ADDRESSES_TOLD]))

    async def invites(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The invites of which something is kept here, the latest first."""
        members = self._members
        wall_s = self.node.dependencies.environment.wall_s()
        proven = list(members.credentials.proven.values())
        rows: list[dict[str, Any]] = []
        for kept in members.rows.invites():
            record = kept.invite.record
            # Whom others admitted by it is known of those who are connected.
            met = [it.peer for it in proven if it.invite_id == record.id]
            used_by = list(dict.fromkeys((*kept.claimed, *met)))
            used_up = len(used_by) >= record.uses_max
            ended = wall_s > record.not_after_s
            state = "expired" if ended else "used" if used_up else "open"
            rows.append(
                {
                    "id": record.id.hex(),
                    "label": record.label,
                    "state": "revoked" if kept.revoked else state,
                    "uses": record.uses_max,
                    "used_by": [str(it) for it in used_by],
                    "roles": role_names(record.roles),
                    "issued_at_s": record.issued_at_s,
                    "not_after_s": record.not_after_s,
                    "left_s": max(0, int(record.not_after_s - wall_s)),
                }
            )
        rows.sort(key=lambda it: (it["issued_at_s"], it["id"]), reverse=True)
        return {"invites": rows}

    async def revoke(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Have the invite `id` admit nobody any more; the beginning of an id is enough."""
        members = self._members
        typed = read_text(arguments, "id").lower()
        found = [it for it in members.rows.invites() if it.invite.record.id.hex().startswith(typed)]
        if len(found) != 1:
            what = "no invite has" if not found else f"{plural(len(found), 'invite')} have"
            raise InputError(
                f"{what} an id that begins with {typed[:40]!r}",
                todo="see: python -m node invite list",
            )
        kept = found[0]
        await members.take_revoked(await members.admission.revoke_invite(kept.invite.record.id))
        return {
            "id": kept.invite.record.id.hex(),
            "label": kept.invite.record.label,
            "used_by": [str(it) for it in kept.claimed],
        }

    async def members(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Whom this peer admitted or removed, and whoever is connected and showed a membership."""
        members = self._members
        peers = self.node.peers
        proven = members.credentials.proven
        kept = {it.peer: it for it in members.rows.members()}
        wall_s = self.node.dependencies.environment.wall_s()
        rows = []
        for peer in sorted({members.credentials.network, peers.me, *kept, *proven}):
            shown = members.credentials.own if peer == peers.me else proven.get(peer)
            signed = kept[peer].membership if peer in kept else None
            until = None if signed is None else signed.record.not_after_s
            if shown is not None and shown.membership:
                until = int(shown.until_wall_s)
            admitter = None if signed is None else signed.signer
            roles = ALL_ROLES if signed is None else signed.record.roles
            label = "" if signed is None else signed.record.label
            rows.append(
                {
                    "peer": str(peer),
                    "label": label if shown is None else shown.label,
                    "owner": peer == members.credentials.network,
                    "me": peer == peers.me,
                    "connected": peer in proven,
                    "removed": members.credentials.is_removed(peer),
                    "expired": until is not None and until < wall_s,
                    "roles": role_names(roles if shown is None else shown.roles),
                    "admitted_by": str(admitter if shown is None else shown.admitter),
                    "not_after_s": until,
                }
            )
        return {
            "network": str(members.credentials.network),
            "name": members.credentials.name,
            "members": rows,
        }

    async def remove(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Have `peer`, by its key, the end of that, or its label, be no member any more.

        Its connections are closed everywhere.
        """
        members = self._members
        peer, known = await self._meant(read_text(arguments, "peer"))
        connected = peer in members.credentials.proven
        raw, invites = await members.admission.remove(peer)
        await members.take_revoked(raw)
        return {
            "peer": str(peer),
            "known": known,
            "was_connected": connected,
            "invites_revoked": [it.invite.record.id.hex() for it in invites],
            "version": members.credentials.revoked_version,
        }

    async def _meant(self, typed: str) -> tuple[PeerId, bool]:
        """The member that was typed, and whether it is known here; InputError if it cannot be one.

        InputError too where several are called so.
        """
        members = self._members
        rows = (await self.members({}, unheard))["members"]
        found = members_called(typed, {it["peer"]: it["label"] for it in rows if not it["removed"]})
        if len(found) > 1:
            raise InputError(
                f"{plural(len(found), 'member')} are called {typed[:40]!r}",
                todo=f"give the key of one: {', '.join(found[:4])}",
            )
        if found:
            return read_key(found[0]), True
        me, invites = self.node.peers.me, members.rows.invites()
        admitters = {it.peer for kept in invites for it in kept.invite.record.admitters}
        if typed.startswith(_KEYS_BEGIN) and admitters | {members.credentials.network} != {me}:
            # Another one may have admitted it, and this peer never met it.
            return read_key(typed), False
        raise InputError(f"no member is called {typed[:60]!r}", todo="see: python -m node members")
