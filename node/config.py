"""The configuration of one peer: frozen, and checked when it is made."""

from dataclasses import dataclass, field
from pathlib import Path

from node.console_config import ConsoleConfig
from node.gateway_config import GatewayConfig
from node.guest.rules import GuestConfig
from node.paying_config import RELAY, SERVICES, Sponsoring, TypedPrices
from p2p.peers import PeersConfig
from wire import limits
from wire.errors import InputError
from wire.kinds import Role
from wire.ledger import Genesis
from wire.membership import Invite
from wire.signed import Signed
from wire.signing import SigningKey

# The default roles. A gateway serves clients, so its role has to be asked for.
ROLES_DEFAULT = frozenset({Role.DATA, Role.INFER, Role.VERIFY, Role.STORE})
QUOTA_BYTES_DEFAULT = 20 << 30
QUOTA_BYTES_MIN = 16 << 20
# A peer that lies in one of ten answers is then found out after two hundred of them, on average.
BACKGROUND_CHECKS_DEFAULT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One peer: where it keeps its state, what it does, which models it serves."""

    state: Path
    peers: PeersConfig = field(default_factory=PeersConfig)
    # Whether the user said where to listen; if not, the port of earlier starts comes first.
    port_named: bool = False
    roles: frozenset[Role] = ROLES_DEFAULT
    models: tuple[str, ...] = ()
    # The first and the last layer of the language model that this peer holds; None: all.
    layers: tuple[int, int] | None = None
    files: tuple[Path, ...] = ()
    quota_bytes: int = QUOTA_BYTES_DEFAULT
    # The gateway's HTTP settings; None without a gateway.
    gateway: GatewayConfig | None = None
    # Where the console is served; None where it is not.
    console: ConsoleConfig | None = None
    # What the machine's owner lets Baton use.
    guest: GuestConfig = field(default_factory=GuestConfig)
    # Which part of the answers that nobody checks is checked afterwards; 0 for none.
    background_checks: float = BACKGROUND_CHECKS_DEFAULT
    # The structured reference string that proofs are made and checked with; None: no proofs.
    srs: Path | None = None
    # The network's ledger; None in a network without one, where everything is free.
    genesis: Genesis | None = None
    # What others pay for this peer's work; nothing unless it says so.
    prices: TypedPrices = field(default_factory=TypedPrices)
    # What this peer pays others for a million KiB that they pass on for it, at most, in millionths.
    relay_pay_max: int = 0
    # What newcomers are given by this peer; None: nothing.
    sponsoring: Sponsoring | None = None
    # By what this peer becomes a member of a private network, and the secret that goes with it.
    invite: tuple[Signed[Invite], SigningKey] | None = None
    # Whether it must be a private network: an invite that is not there makes no open peer of it.
    private: bool = False
    # Whether peers of the local network find this one, and are found by it.
    lan: bool = False
    # Whether the home router is asked to pass a port on.
    map_port: bool = False
    # A line in which its owner signed that this peer is its own; empty where that is not shown.
    owner_line: str = ""
    # What it is where nothing is typed, so that `config show` knows what was; None where a program
    # made it.
    untyped: "NodeConfig | None" = field(default=None, repr=False, compare=False)
    # How long a leaving peer may take to finish its work.
    leave_s: float = 10.0

    def __post_init__(self) -> None:
        if self.quota_bytes < QUOTA_BYTES_MIN:
            raise InputError(
                f"a quota of {self.quota_bytes} bytes is too small",
                todo=f"give at least {QUOTA_BYTES_MIN >> 20} MiB (--quota 20GB)",
            )
        if not 0 <= self.background_checks <= 1:
            raise InputError(
                f"{self.background_checks} is no part of the answers",
                todo="give a number from 0 to 1 (--background-checks 0.05)",
            )
        for name in self.prices.models:
            if name == RELAY:
                if not self.peers.relays:
                    raise InputError(
                        "there is a price for what a relay passes on, and this peer is no relay",
                        todo="leave its --price out",
                    )
            elif name in SERVICES:
                role = Role[name.upper()]
                if role not in self.roles:
                    raise InputError(
                        f"there is a price for {name}, and this peer does not play that role",
                        todo=f"add --role {name}, or leave its --price out",
                    )
            elif name not in self.models:
                raise InputError(
                    f"there is a price for {name[:80]!r}, which is not served here",
                    todo=f"serve it (--model {name[:80]}), or leave its --price out",
                )
        if self.layers is not None and len(self.models) != 1:
            raise InputError(
                f"layers are of one model, and there are {len(self.models)}",
                todo="give one --model with --layers, and a peer of its own to each further one",
            )
        if self.layers is not None and len(self.guest.gpus) > 1:
            raise InputError(
                "a range of layers is held on one GPU: what was read before is there",
                todo="give one number with --gpu, and a range and a peer to each further GPU",
            )
        if not 1 <= len(self.peers.network.encode()) <= limits.NAME_BYTES_MAX:
            raise InputError(
                f"the name of a network must have 1 to {limits.NAME_BYTES_MAX} bytes,"
                f" not {len(self.peers.network.encode())}",
                todo="give another with --network",
            )
        if (Role.GATEWAY in self.roles) is (self.gateway is None):
            raise InputError(
                "the role gateway and an address for HTTP belong together",
                todo="give --role gateway with --http ADDRESS:PORT",
            )
        for path in self.files:
            if not path.exists():
                raise InputError(f"{path} does not exist", todo="check what --files names")

    @property
    def role_bits(self) -> int:
        return sum(1 << role for role in self.roles)

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"
