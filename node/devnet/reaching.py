"""How the peers of a devnet with routers are reached, and what its relays carry, for the report."""

from collections.abc import Iterable, Sequence
from typing import Any

from node.devnet.faults import FaultScope
from node.devnet.net import Devnet
from node.devnet.peer import DevPeer
from node.devnet.sampling import Sample
from p2p.relay_limits import RelayLimits


def reaching_figures(net: Devnet) -> dict[str, Any]:
    """The figures of the report; none where every peer is open."""
    if not net.config.nat:
        return {}
    nodes = [it.node.peers for it in net.living() if it.node is not None]
    relays = [it for it in net.peers if it.relay_load.kept_most or it.relay_load.lines]
    reached = net.sampler.samples[-1].reached
    return {
        **{f"reached_{how}": count for how, count in sorted(reached.items())},
        "punched": sum(bool(it.endpoint.punched()) for it in nodes),
        "punches_tried": sum(it.punching.tried for it in nodes),
        "punches_made": sum(it.punching.made for it in nodes),
        "alone_most": max(it.reached.get("alone", 0) for it in net.sampler.samples),
        "reached_again_s": reached_again_s(net.sampler.samples, _strikes(net)),
        "relays": len(relays),
        "relay_lines": sum(it.relay_load.lines for it in relays),
        "relay_carried_bytes": sum(it.relay_load.carried_bytes for it in relays),
        "reached_by_kind": net.sampler.reached_by_kind,
        "relay_load": [_load(it) for it in sorted(relays, key=_carried, reverse=True)],
    }


def reached_again_s(samples: Sequence[Sample], strikes: Iterable[float]) -> float | None:
    """The longest time from a strike until nobody was alone; None if somebody was at the end."""
    longest_s = 0.0
    for at_s in strikes:
        alone = [it for it in samples if it.at_s >= at_s and it.reached.get("alone", 0)]
        if alone and alone[-1] is samples[-1]:
            return None
        longest_s = max(longest_s, alone[-1].at_s - at_s if alone else 0.0)
    return longest_s


def relay_lines(found: dict[str, Any], shown: int) -> list[str]:
    """How each kind is reached, and the busiest relays beside their bounds, as text."""
    lines = [
        f"behind {kind}: " + ", ".join(f"{count} {how}" for how, count in sorted(reached.items()))
        for kind, reached in found.get("reached_by_kind", {}).items()
    ]
    load = found.get("relay_load", [])
    for relay in load[:shown]:
        kept, each, asker, rate, _ = (_beside(it) for it in relay["most"].values())
        gone = "" if relay["up"] else " (gone)"
        lines.append(
            f"relay {relay['peer']}{gone}: at most {kept} kept, lines {each} to one of them and"
            f" {asker} of one asker, {rate} bytes in a second; {relay['lines']} lines,"
            f" {relay['carried_bytes']} bytes in all"
        )
    more = len(load) - shown
    return lines + [f"relay: and {more} more, see --json"] * (more > 0)


def _beside(part: dict[str, float]) -> str:
    return f"{part['most']:.0f} of {part['bound']:.0f}"


def _strikes(net: Devnet) -> list[float]:
    return sorted({it.at_s for it in net.faults if it.scope is FaultScope.EVENT})


def _carried(peer: DevPeer) -> tuple[int, int]:
    return peer.relay_load.carried_bytes, peer.relay_load.kept_most


def _load(peer: DevPeer) -> dict[str, Any]:
    load = peer.relay_load.to_document(peer.relay_limits or RelayLimits())
    return {"peer": peer.number, "up": peer.node is not None, **load}
