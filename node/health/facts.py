"""What was seen of a machine, its peer, and the way to others: input of the causes. Pure.

None stands for what could not be looked at, which is another thing than "no".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFacts:
    """The TCP port on which the peer listens, or would."""

    number: int
    # Whether somebody listens there; `holder` and its `command` are known of own processes only.
    taken: bool | None = None
    holder: int | None = None
    command: str = ""
    # Whether a peer starts on this port or not at all: it was typed, or its service names it.
    named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFacts:
    """The state folder; modes are permission bits, such as 0o700."""

    path: str
    there: bool
    is_own: bool | None = None
    mode: int | None = None
    key_mode: int | None = None
    version: str | None = None
    # What to do if it is not that of this Baton.
    way_out: str = ""
    # What a peer left there and is not as it left it, in words; "" for nothing.
    damage: str | None = None
    # The version that this Baton reads and writes.
    version_here: str
    # When the newest of its files was written.
    newest_wall_s: float | None = None
    # The process that has the folder's lock; 0 if none has it.
    locked_by: int | None = None
    free_bytes: int | None = None
    size_bytes: int | None = None
    free_files_share: float | None = None
    writable: bool | None = None
    # How long it took until 4 KiB were safe on the disk.
    sync_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """This machine's ways out: interfaces of the default routes, and addresses by interface."""

    default_interfaces: tuple[str, ...] | None = None
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Source addresses of packets that leave by the default routes.
    outgoing: tuple[str, ...] = ()
    # Which firewall bars the port, by its own rules: its name, "" if none does.
    barred_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFacts:
    """What the router says of itself by NAT-PMP; `external` is its address outside."""

    asked: str
    answers: bool
    external: str = ""


class CallEnd(StrEnum):
    """How a call to a bootstrap ended."""

    ANSWERED = "answered"
    NO_NAME = "no name"
    REFUSED = "refused"
    SILENT = "silent"
    NO_PEER = "no peer"
    WRONG_PEER = "wrong peer"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """One call to one bootstrap."""

    address: str
    ended: CallEnd
    words: str = ""
    # Whether packets of full size arrived there; None if nobody answered, or it cannot be seen.
    large_arrive: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceFacts:
    """Memory, limits, heat and power."""

    available_bytes: int | None = None
    limit_bytes: int | None = None
    killed_for_memory: int | None = None
    open_files_max: int | None = None
    tasks_max: int | None = None
    # Share of the last minute in which something waited, by resource: cpu, io, memory.
    pressure: Mapping[str, float] = field(default_factory=dict)
    hottest_celsius: float | None = None
    critical_celsius: float | None = None
    throttled: int | None = None
    on_battery: bool | None = None
    metered: bool | None = None
    clock_synchronized: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFacts:
    """What models need to run: the compiler, and the GPUs that have a device node."""

    compiler: str | None = None
    compiler_problem: str = ""
    gpu_nodes: tuple[str, ...] = ()
    # Drivers' libraries that are missing for one of these nodes.
    missing_libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """The service as systemd knows it; `found` is False where no such unit is there."""

    found: bool
    for_user: bool = False
    enabled: bool = False
    restarts: int = 0
    result: str = ""
    lingers: bool | None = None
    # The port that its unit names for the state folder that is looked at.
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that was seen at one time.

    `peer` is the running peer's status and `settings` its settings by name; None where no peer
    answers. `gateway_keys` is how many API keys its gateway has, `wall_s` what this machine's clock
    says.
    """

    port: PortFacts
    state: StateFacts
    network: NetworkFacts
    resources: ResourceFacts
    tools: ToolFacts
    service: ServiceFacts | None = None
    router: RouterFacts | None = None
    calls: tuple[CallFacts, ...] = ()
    peer: Mapping[str, Any] | None = None
    settings: Mapping[str, str] | None = None
    gateway_keys: int | None = None
    wall_s: float | None = None
    peers: tuple[Mapping[str, Any], ...] | None = None

    @property
    def reach(self) -> Mapping[str, Any] | None:
        """How others reach the running peer."""
        return None if self.peer is None else self.peer.get("reach")
