"""Causes that lie at the router of this machine's network, or behind it. Pure."""

from collections.abc import Mapping
from typing import Any

from node.health.facts import Facts
from node.health.finding import NOT_RUNNING, Cause, Judged, ok, unknown, warn
from p2p.ip_address import is_public, is_shared


def _behind_router(facts: Facts) -> Judged:
    reach = facts.reach
    if reach is None:
        return unknown(NOT_RUNNING)
    how = reach["how"]
    if how in ("open", "mapped"):
        return ok("strangers who called back reached this peer")
    if how in ("nearby", "asking"):
        return ok("no stranger could be asked yet to call back")
    port = facts.port.number
    lies = next((it for it in facts.network.outgoing if "." in it), "this machine")
    advice = f"to be open yourself, have the router pass port {port}/tcp on to {lies}"
    if how == "kept":
        return ok(f"behind a router, and kept by others; {advice}")
    return warn("strangers who called back did not get through, and nobody keeps it", advice)


def _behind_carrier(facts: Facts) -> Judged:
    router = facts.router
    own = [it for it in facts.network.outgoing if is_shared(it)]
    if own:
        words = f"this machine's address {own[0]} is a carrier's, shared by many"
    elif router is None or not router.external:
        return unknown("the router does not tell its address outside")
    elif is_shared(router.external):
        words = f"the router's address outside, {router.external}, is a carrier's"
    else:
        return ok(f"the router's address outside is {router.external}")
    return warn(words, "no port can be opened: ask the carrier for IPv6 or a public address")


def _two_routers(facts: Facts) -> Judged:
    router = facts.router
    if router is None or not router.external:
        return unknown("the router does not tell its address outside")
    if is_public(router.external) or is_shared(router.external):
        return ok(f"one router, {router.external} outside")
    return warn(
        f"the router's address outside, {router.external}, is private: another is before it",
        "put the second router in bridge mode, or pass the port on in both",
    )


def _silent_router(facts: Facts) -> Judged:
    router = facts.router
    if router is None:
        return unknown("there is no router to ask")
    if any(is_public(it) for it in facts.network.outgoing):
        return ok("this machine has a public address, no router is needed")
    if (mapping := _mapping(facts)) is not None and mapping["state"] == "made":
        return ok(f"the router passes port {mapping['port']} on by {mapping['by']}")
    if router.answers:
        return ok(f"the router at {router.asked} answers NAT-PMP")
    if facts.reach is None or facts.reach["how"] != "alone":
        return ok(f"the router at {router.asked} answers no NAT-PMP, which is not needed")
    return warn(
        f"the router at {router.asked} does not answer NAT-PMP",
        f"switch it on in the router, or pass port {facts.port.number}/tcp on by hand",
    )


def _mapping(facts: Facts) -> Mapping[str, Any] | None:
    return None if facts.reach is None else facts.reach.get("mapping")


def _mapping_dead(facts: Facts) -> Judged:
    if facts.reach is None:
        return unknown(NOT_RUNNING)
    mapping = _mapping(facts)
    if mapping is None or mapping["state"] != "dead":
        return ok("the router was asked for no port through which nothing came")
    return warn(
        str(mapping["why"]),
        f"let its firewall pass port {facts.port.number}/tcp, or pass it on by hand there",
    )


def _mapping_taken(facts: Facts) -> Judged:
    if facts.reach is None:
        return unknown(NOT_RUNNING)
    mapping = _mapping(facts)
    if mapping is None or mapping["state"] != "taken":
        return ok("no port that this peer asked for is another machine's")
    return warn(str(mapping["why"]), "join with another port: --port OTHER")


ROUTER_CAUSES: tuple[Cause, ...] = (
    Cause("behind-router", "calls from outside do not get through", _behind_router),
    Cause("behind-carrier", "many customers share one public address", _behind_carrier),
    Cause("two-routers", "a router is behind another", _two_routers),
    Cause("silent-router", "the router opens no ports by itself", _silent_router),
    Cause("mapping-dead", "the router says that it passes a port on, and does not", _mapping_dead),
    Cause("mapping-taken", "the router gave the port to another machine", _mapping_taken),
)
