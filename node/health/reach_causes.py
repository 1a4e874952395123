"""Causes that lie between this machine and the others: routes, names, bootstraps. Pure."""

from collections.abc import Callable, Iterable

from node.health.facts import CallEnd, CallFacts, Facts
from node.health.finding import NOT_RUNNING, Cause, Judged, bad, ok, unknown, warn
from node.health.reach_words import seed_words
from node.health.router_causes import ROUTER_CAUSES
from p2p.ip_address import host_of, is_loopback, is_public, network_of
from wire.plural import plural

_BRIDGES = ("docker", "br-", "veth", "cni", "virbr", "podman", "lxc")
_TUNNELS = ("tun", "tap", "wg", "tailscale", "ppp", "utun", "zt")
# A peer that is up this long and that nobody answers has a problem.
SETTLED_S = 60.0
# Of fewer adverts nothing is concluded.
ADVERTS_ENOUGH = 20
INVITE_LINE = "ask the network's owner for a new line: python -m node invite --label NAME"


def _no_route(facts: Facts) -> Judged:
    ways = facts.network.default_interfaces
    if ways is None:
        return unknown("this system does not tell its routes")
    if not ways:
        return bad("this machine has no default route", "connect it to a network: ip route")
    return ok(f"packets leave by {', '.join(ways)}")


def _calls(facts: Facts, ended: CallEnd) -> list[CallFacts]:
    return [it for it in facts.calls if it.ended is ended]


def _addresses(calls: Iterable[CallFacts]) -> str:
    return ", ".join(it.address for it in calls)


def _called(ended: CallEnd, seen: str, advice: str) -> Callable[[Facts], Judged]:
    """A judge of one way in which calls to bootstraps end."""

    def judge(facts: Facts) -> Judged:
        if not facts.calls:
            return unknown("no bootstrap is known: name one, as doctor ADDRESS")
        if wrong := _calls(facts, ended):
            found = bad if len(wrong) == len(facts.calls) else warn
            return found(seen.format(_addresses(wrong)), advice)
        return ok(f"with none of the {plural(len(facts.calls), 'bootstrap')}")

    return judge


_no_bootstrap_name = _called(
    CallEnd.NO_NAME,
    "the name of {} is not found",
    "resolvectl status; or give the address as /ip4/… too",
)


def _no_name(facts: Facts) -> Judged:
    peer = facts.peer or {}
    asked = {name: it for name, it in peer.get("seeds", {}).items() if it["asked"]}
    if wrong := [seed_words(name, it) for name, it in asked.items() if it["problem"]]:
        # With neighbours it is not needed until they are lost.
        return (warn if peer["connected"] else bad)(
            "; ".join(wrong), f"dig TXT {next(iter(asked))}"
        )
    return _no_bootstrap_name(facts)


def _silent(facts: Facts) -> Judged:
    if not facts.calls:
        return unknown("no bootstrap is known: name one, as doctor ADDRESS")
    silent = _calls(facts, CallEnd.SILENT)
    if not silent:
        return ok(f"with none of the {plural(len(facts.calls), 'bootstrap')}")
    words = f"{_addresses(silent)} does not answer"
    advice = "its firewall may drop calls: open its port there, and check that the machine is on"
    if len(silent) < len(facts.calls):
        return warn(words, advice)
    return bad(words, advice)


def _all_blocked(facts: Facts) -> Judged:
    """Every call runs into silence, while the machine has a way out."""
    if len(facts.calls) < 2:
        return unknown("it takes two bootstraps to tell a blocked port from a peer that is off")
    if len(_calls(facts, CallEnd.SILENT)) == len(facts.calls) and facts.network.default_interfaces:
        ports = sorted(
            {it.address.split("/")[4] for it in facts.calls if it.address.count("/") > 3}
        )
        return bad(
            f"all {len(facts.calls)} bootstraps are silent, at port {', '.join(ports)}",
            "this network may block these ports: use a peer that listens on 443",
        )
    return ok("calls get out")


def _refused_by_network(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    if not facts.peer["unmet"]:
        return ok("the network takes this peer")
    return bad(
        str(facts.peer["unmet"]),
        "give that network's name (--network) or its file (--genesis), and run its version",
    )


def _no_member(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    found = facts.peer.get("membership")
    if found is None:
        return ok("the network is open: nobody has to be invited")
    if found["member"]:
        return ok("it is a member of its private network")
    if found["removed"] or found["expired"]:
        why = "has removed it" if found["removed"] else "gave it a membership that has expired"
        return bad(f"the owner of the network {why}", INVITE_LINE)
    return bad(str(found["problem"]) or "nobody has admitted this peer yet", INVITE_LINE)


def _invite_ended(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    found = facts.peer.get("membership")
    if found is None or found["member"]:
        return ok("no invite is needed")
    if "invite" in str(found["problem"]):
        return bad(str(found["problem"]), INVITE_LINE)
    return ok("nobody has refused the invite")


def _firewall(facts: Facts) -> Judged:
    barred_by, port = facts.network.barred_by, facts.port.number
    if barred_by is None:
        return unknown("the rules of this machine's firewall cannot be read")
    if not barred_by:
        return ok("no firewall of this machine bars the port")
    advice = {
        "ufw": f"sudo ufw allow {port}/tcp",
        "firewalld": f"sudo firewall-cmd --add-port={port}/tcp --permanent && sudo firewall-cmd"
        " --reload",
    }
    rule = f"sudo nft insert rule inet filter input tcp dport {port} accept"
    return warn(f"{barred_by} bars port {port}", advice.get(barred_by, rule))


def _loopback_only(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    hosts = [host_of(it) for it in facts.peer["addresses"]]
    if hosts and all(map(is_loopback, hosts)):
        return warn(
            "the peer listens for this machine alone",
            f"join with --listen /ip4/0.0.0.0/tcp/{facts.port.number}",
        )
    return ok(f"it listens at {', '.join(dict.fromkeys(hosts))}")


def _announced(facts: Facts) -> list[str]:
    return [] if facts.reach is None else [host_of(it) for it in facts.reach["addresses"]]


def _bridge_announced(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    bridges = {
        host
        for name, hosts in facts.network.addresses.items()
        if name.startswith(_BRIDGES)
        for host in hosts
    }
    if told := [it for it in _announced(facts) if it in bridges]:
        return warn(
            f"the advert says {told[0]}, the address of a bridge for containers",
            "join with --listen on the address that others reach",
        )
    return ok("no bridge's address is announced")


def _wrong_source(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    private = [it for it in _announced(facts) if it and not is_public(it) and "." in it]
    outgoing = [it for it in facts.network.outgoing if "." in it]
    if not private or not outgoing or any(map(is_loopback, private)):
        return ok("nothing that differs from the way out is announced")
    if set(private) & set(outgoing):
        return ok(f"packets leave from {outgoing[0]}, which is announced")
    return warn(
        f"packets leave from {outgoing[0]}, and the advert says {', '.join(private)}",
        f"join with --listen /ip4/{outgoing[0]}/tcp/{facts.port.number}",
    )


def _ipv6(facts: Facts) -> Judged:
    reach = facts.reach
    if reach is None:
        return unknown(NOT_RUNNING)
    seen = [it for it in reach["seen_at"] if ":" in it]
    if not seen:
        return ok("no stranger met this peer by IPv6")
    if any(host in seen for host in _announced(facts)):
        return ok("strangers got through by IPv6")
    return warn(
        f"strangers see {seen[0]}, and did not get through there",
        f"let the router's IPv6 firewall pass port {facts.port.number}/tcp; it is not announced",
    )


def _tunnel(facts: Facts) -> Judged:
    ways = facts.network.default_interfaces
    if ways is None:
        return unknown("this system does not tell its routes")
    if tunnels := [it for it in ways if it.startswith(_TUNNELS)]:
        return warn(
            f"packets leave by {tunnels[0]}, a tunnel",
            f"exclude port {facts.port.number}/tcp from it, or listen on its address (--listen)",
        )
    return ok("packets leave by no tunnel")


def _no_keeper(facts: Facts) -> Judged:
    reach = facts.reach
    if reach is None:
        return unknown(NOT_RUNNING)
    if reach["how"] != "alone":
        return ok("a keeper is not needed, or there is one")
    return bad(
        "no open peer keeps this one, and nobody gets through to it",
        "name another bootstrap too: python -m node join ADDRESS ADDRESS",
    )


def _keepers_of_one(facts: Facts) -> Judged:
    reach = facts.reach
    if reach is None:
        return unknown(NOT_RUNNING)
    if len(keepers := reach["keepers"]) < 2:
        return ok("there are not two keepers")
    hosts = [_host_of_peer(facts, it) for it in keepers]
    if any(not it for it in hosts):
        return unknown("the keepers' addresses are not known")
    if len({network_of(it) for it in hosts}) == 1:
        return warn(
            f"all {len(keepers)} keepers are in {network_of(hosts[0])}",
            "nothing: another is chosen as soon as one is known",
        )
    return ok(f"{len(keepers)} keepers, in {len({network_of(it) for it in hosts})} networks")


def _seen_by_nobody(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    answered, there = facts.peer["answered_last_minute"], facts.peer["connected"]
    if answered:
        return ok(f"{answered} of {there} connected peers answered in the last minute")
    if facts.peer["uptime_s"] < SETTLED_S:
        return ok("the peer was started less than a minute ago")
    named = map((facts.settings or {}).get, ("peers.bootstraps", "peers.seed_names"))
    begun_alone = facts.settings is not None and not any(named)
    if not there and begun_alone:
        return ok("this peer began a network, and nobody has joined it yet")
    return bad(
        f"0 of {there} connected peers answered in the last minute",
        "see what the findings above say; else start it again: python -m node join",
    )


def _large_lost(facts: Facts) -> Judged:
    tried = [it for it in facts.calls if it.large_arrive is not None]
    if not tried:
        return unknown("no bootstrap answered to whom large packets could be sent")
    lost = [it for it in tried if not it.large_arrive]
    if not lost:
        return ok(f"packets of full size arrive at {plural(len(tried), 'bootstrap')}")
    found = bad if len(lost) == len(tried) else warn
    device = (facts.network.default_interfaces or ("DEVICE",))[0]
    return found(
        f"{_addresses(lost)} answers, and packets of full size do not arrive there",
        f"sudo ip link set dev {device} mtu 1400",
    )


def _connections_cut(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    cut_after_s = facts.peer.get("connections_cut_after_s")
    if cut_after_s is None:
        return ok("connections do not break at one age")
    return warn(
        f"this peer's connections break when they are {cut_after_s:.0f} s old",
        "let the router or firewall on the way forget connections later; they are made anew",
    )


# What to do where most adverts are refused for one reason; that a view is full is no trouble.
_REFUSED_REMEDIES = {
    "clock": "timedatectl set-ntp true",
    "expired": "timedatectl set-ntp true",
    "version": "python -m node upgrade WHEEL",
    "roles": "ask the network's owner to invite them for these roles: python -m node members",
}


def _adverts_refused(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    told = facts.peer.get("adverts", {"heard": 0, "refused": {}})
    for reason, advice in _REFUSED_REMEDIES.items():
        refused = told["refused"].get(reason, 0)
        if told["heard"] + refused >= ADVERTS_ENOUGH and refused * 2 > told["heard"]:
            return warn(f"{plural(refused, 'advert')} of others were refused: {reason}", advice)
    return ok(f"{plural(told['heard'], 'advert')} were heard, and no reason refuses most of them")


def _host_of_peer(facts: Facts, peer: str) -> str:
    for row in facts.peers or ():
        if row["peer"] == peer and row["addresses"]:
            return host_of(str(row["addresses"][0]))
    return ""


CAUSES: tuple[Cause, ...] = (
    Cause("no-route", "the machine is not connected", _no_route),
    Cause(
        "no-name",
        "a bootstrap's name is not found, or a name tells of none",
        _no_name,
    ),
    Cause(
        "no-peer-there",
        "something else answers at a bootstrap",
        _called(
            CallEnd.NO_PEER,
            "what answers at {} is no Baton peer",
            "log in to this network first if it asks for it, and check the address's port",
        ),
    ),
    Cause(
        "bootstrap-refuses",
        "nobody listens at a bootstrap",
        _called(
            CallEnd.REFUSED,
            "nobody listens at {}",
            "ask its owner for a new line: no peer runs there now",
        ),
    ),
    Cause(
        "malformed-address",
        "a bootstrap's address is none",
        _called(
            CallEnd.MALFORMED,
            "{} is not the address of a peer",
            "copy the whole line that its own `join` printed there",
        ),
    ),
    Cause("bootstrap-silent", "a bootstrap does not answer", _silent),
    Cause("port-blocked", "this network blocks the ports of others", _all_blocked),
    Cause(
        "wrong-key",
        "another peer is at a bootstrap's address",
        _called(
            CallEnd.WRONG_PEER,
            "at {} there is another peer than the address says",
            "copy the line anew: that peer has another key now",
        ),
    ),
    Cause("network-refuses", "another network, or another version", _refused_by_network),
    Cause("no-member", "the private network does not take this peer", _no_member),
    Cause("invite-ended", "the invite was used, or has ended", _invite_ended),
    *ROUTER_CAUSES,
    Cause("firewall", "this machine's firewall bars the port", _firewall),
    Cause("loopback-only", "the peer listens for this machine alone", _loopback_only),
    Cause("bridge-announced", "an address of containers is announced", _bridge_announced),
    Cause("wrong-source", "packets leave from another address", _wrong_source),
    Cause("ipv6-barred", "IPv6 calls do not get through", _ipv6),
    Cause("tunnel", "packets leave through a VPN", _tunnel),
    Cause("no-keeper", "nobody passes calls on to this peer", _no_keeper),
    Cause("keepers-of-one", "all keepers are in one network", _keepers_of_one),
    Cause("connections-cut", "the network cuts connections", _connections_cut),
    Cause("large-packets", "large packets get lost on the way", _large_lost),
    Cause("adverts-refused", "what others say of themselves is refused", _adverts_refused),
    Cause("seen-by-nobody", "no neighbour answers", _seen_by_nobody),
)
