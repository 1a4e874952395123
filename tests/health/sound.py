"""A machine on which nothing is wrong."""

from typing import Any

from node.health.facts import (
    CallEnd,
    CallFacts,
    Facts,
    NetworkFacts,
    PortFacts,
    ResourceFacts,
    RouterFacts,
    ServiceFacts,
    StateFacts,
    ToolFacts,
)
from wire import limits

ADDRESS = "/ip4/45.0.0.7/tcp/4747/p2p/12D3KooWAU1jyZ5Bs2ypJWmVvWYRYrJyjDVGWDcrnxiwGy1PP8iS"
WALL_S = 1_800_000_000.0
OTHER = ADDRESS.replace(".7/", ".8/")


def status(**changed: Any) -> dict[str, Any]:
    """What a running peer says of itself."""
    return {
        "addresses": ["/ip4/192.168.1.5/tcp/4747/p2p/me"],
        "adverts": {"heard": 400, "refused": {"full": 300, "clock": 3}},
        "answered_last_minute": 3,
        "checks_done": 1,
        "clock_wrong_s": None,
        "connected": 3,
        "connections_cut_after_s": None,
        "engine": {"last_failure": ""},
        "legs_done": 4,
        "models": [{"name": "minilm", "problem": ""}],
        "neighbour_versions": [limits.SPOKEN_VERSION] * 3,
        "paused": "",
        "reach": reach(),
        "roles": ["infer", "verify"],
        "same_key_elsewhere": False,
        "unmet": "",
        "uptime_s": 7200.0,
    } | changed


def membership(**changed: Any) -> dict[str, Any]:
    """How it stands in a private network."""
    return {"member": True, "removed": False, "expired": False, "problem": ""} | changed


def reach(**changed: Any) -> dict[str, Any]:
    """How others reach it."""
    return {
        "how": "open",
        "addresses": [ADDRESS],
        "seen_at": ["45.0.0.7"],
        "keepers": [],
    } | changed


def facts(**changed: Any) -> Facts:
    """All facts of a sound machine, with some changed."""
    sound: dict[str, Any] = {
        "port": PortFacts(number=4747, taken=True, holder=7, command="python"),
        "state": StateFacts(
            path="state",
            there=True,
            is_own=True,
            mode=0o700,
            key_mode=0o600,
            version="baton state 1",
            way_out="run the Baton that made it",
            damage="",
            version_here="baton state 1",
            locked_by=7,
            free_bytes=50 << 30,
            size_bytes=100 << 30,
            free_files_share=0.9,
            writable=True,
            sync_s=0.01,
            newest_wall_s=WALL_S - 60,
        ),
        "network": NetworkFacts(
            default_interfaces=("eth0",),
            addresses={"eth0": ("192.168.1.5",), "docker0": ("172.17.0.1",)},
            outgoing=("192.168.1.5",),
            barred_by="",
        ),
        "resources": ResourceFacts(
            available_bytes=8 << 30,
            killed_for_memory=0,
            open_files_max=65536,
            pressure={"cpu": 0.01},
            hottest_celsius=50.0,
            on_battery=False,
            metered=False,
            clock_synchronized=True,
        ),
        "tools": ToolFacts(compiler="clang version 14"),
        "service": ServiceFacts(found=True, enabled=True, result="success"),
        "router": RouterFacts(asked="192.168.1.1", answers=True, external="45.0.0.7"),
        "calls": (
            CallFacts(address=ADDRESS, ended=CallEnd.ANSWERED),
            CallFacts(address=OTHER, ended=CallEnd.ANSWERED),
        ),
        "peer": status(),
        "settings": {"peers.bootstraps": ADDRESS, "gateway.host": ""},
        "gateway_keys": 0,
        "wall_s": WALL_S,
        "peers": (),
    }
    return Facts(**(sound | changed))
