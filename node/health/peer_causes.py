"""Causes that lie in the peer: its models, its owner's rules, its service, its gateway. Pure."""

from collections.abc import Mapping
from statistics import median_low
from typing import Any

from node.health.facts import Facts
from node.health.finding import NOT_RUNNING, Cause, Judged, bad, ok, unknown, warn
from p2p.ip_address import is_loopback
from wire import limits
from wire.plural import plural

RESTARTS_MANY = 5
# A peer that nobody gave work for so long is worth a look.
IDLE_S = 3600.0


def _models(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    rows: list[Mapping[str, Any]] = facts.peer["models"]
    if ill := [it for it in rows if it["problem"]]:
        name = ill[0]["name"]
        advice = f"python -m node bench {name}; or: python -m node models rm {name}"
        return bad(f"model {name}: {ill[0]['problem']}", advice)
    if failure := facts.peer["engine"]["last_failure"]:
        return warn(f"the engine failed: {failure}", "python -m node logs")
    wants = {"infer"} & set(facts.peer["roles"])
    if wants and not rows:
        return warn("it runs no model", "python -m node models add FILE, or join --model NAME")
    return ok(f"{plural(len(rows), 'model')}, and none fails")


# What helps where a peer is paused for a reason that somebody can do something about.
_PAUSE_REMEDIES = {
    "its owner paused it": "python -m node resume",
    "its machine runs on its battery": "connect it to power, or join --on-battery run",
    "its machine pays for its network by the byte": "use another network, or join --metered run",
    "what its owner gives of the network in a month is used up": "join --per-month MORE",
    "its owner uses the machine": "it goes on once the machine is at rest, or join without"
    " --pause-when-busy",
}


def _paused(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    if facts.peer["paused"]:
        return warn(
            f"paused: {facts.peer['paused']}",
            _PAUSE_REMEDIES.get(
                facts.peer["paused"], "it goes on by itself, by the options of join"
            ),
        )
    return ok("the peer takes work")


def _service(facts: Facts) -> Judged:
    service = facts.service
    if service is None:
        return unknown("systemd does not run here, or does not answer")
    if not service.found:
        return ok("no service was installed: the peer runs as long as its terminal lets it")
    logs = "journalctl --user -u baton -n 50" if service.for_user else "journalctl -u baton -n 50"
    if service.result not in ("", "success"):
        return bad(f"the service ended by {service.result}", logs)
    if service.restarts >= RESTARTS_MANY:
        return warn(f"the service was restarted {service.restarts} times", logs)
    if not service.enabled:
        user = "--user " if service.for_user else ""
        return warn("the service does not start with the machine", f"systemctl {user}enable baton")
    return ok("the service starts with the machine")


def _lingers(facts: Facts) -> Judged:
    service = facts.service
    if service is None:
        return unknown("systemd does not run here, or does not answer")
    if not service.found or not service.for_user:
        return ok("the peer is no service of a user")
    if service.lingers is None:
        return unknown("loginctl does not answer")
    if not service.lingers:
        return bad("the service ends when its user logs out", "loginctl enable-linger")
    return ok("the service goes on when its user logs out")


def _open_gateway(facts: Facts) -> Judged:
    if facts.settings is None:
        return unknown(NOT_RUNNING)
    host = facts.settings.get("gateway.host", "")
    if not host:
        return ok("the peer is no gateway")
    listen = f"{host}:{facts.settings.get('gateway.port', '')}"
    if host == "localhost" or is_loopback(host) or facts.gateway_keys:
        return ok(f"at {listen}, with {plural(facts.gateway_keys or 0, 'key')}")
    if facts.gateway_keys is None:
        return unknown("the gateway's keys cannot be read")
    return bad(f"anybody who reaches {listen} may use the gateway", "python -m node keys add NAME")


def _idle(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    done = facts.peer["legs_done"] + facts.peer["checks_done"]
    if done:
        return ok(
            f"{plural(facts.peer['legs_done'], 'leg')} and"
            f" {plural(facts.peer['checks_done'], 'check')} done"
        )
    if facts.peer["uptime_s"] < IDLE_S:
        return ok("no task yet, for less than an hour")
    hours = facts.peer["uptime_s"] / 3600
    return warn(
        f"no task in {hours:.0f} h",
        "offer a model that is asked for: python -m node models shows what others run",
    )


def _old_release(facts: Facts) -> Judged:
    versions = None if facts.peer is None else facts.peer.get("neighbour_versions")
    if versions is None:
        return unknown(NOT_RUNNING)
    if not versions:
        return ok("no neighbour has said its version")
    newest = median_low(versions)
    if newest > limits.SPOKEN_VERSION:
        return warn(
            f"most neighbours speak version {newest}, this peer {limits.SPOKEN_VERSION}",
            "install the newer release of Baton, and start the peer again",
        )
    return ok(f"it speaks version {limits.SPOKEN_VERSION}, as new as most neighbours'")


CAUSES: tuple[Cause, ...] = (
    Cause("model", "a model does not run", _models),
    Cause("paused", "the peer is paused", _paused),
    Cause("service", "the service fails, or does not start", _service),
    Cause("linger", "the service ends at log-out", _lingers),
    Cause("open-gateway", "strangers may use the gateway", _open_gateway),
    Cause("idle", "nobody gives it work", _idle),
    Cause("old-release", "others run a newer release", _old_release),
)
