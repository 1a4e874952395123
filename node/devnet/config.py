"""The settings of a run: with the same version and settings, a run can be repeated."""

from dataclasses import dataclass, field
from typing import Any

from node.devnet import homes
from node.devnet.economy_plan import EconomyConfig, economy_of
from node.devnet.faults import KINDS, NEED_ROUTERS, FaultRequest, parse
from node.devnet.open_loop import rate_of
from node.devnet.plan import PEERS_MIN
from p2p.gossip_rate import GossipRateConfig, GossipRateLimit
from p2p.view import ViewConfig
from wire.errors import InputError

# The version of the plan, the faults and the load: a file of another version is another run.
VERSION = 1
PEERS_MAX = 20_000
SECONDS_MAX = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetConfig:
    """The settings of one run. `rate` is in tasks a second."""

    peers: int = 50
    seed: int = 7
    seconds: float = 60.0
    rate: float = 10.0
    faults: tuple[FaultRequest, ...] = ()
    deadline_s: int = 60
    on_disk: bool = False
    over_tcp: bool = False
    # None: a network without credits.
    economy: EconomyConfig | None = None
    # Who stands behind which kind of router; nobody does unless it is said.
    nat: homes.NatShares = field(default_factory=homes.NatShares)

    def __post_init__(self) -> None:
        self._check_economy()
        if not PEERS_MIN <= self.peers <= PEERS_MAX:
            raise InputError(
                f"a devnet cannot have {self.peers} peers",
                todo=f"give --peers {PEERS_MIN} to {PEERS_MAX}",
            )
        if not 1 <= self.seconds <= SECONDS_MAX:
            raise InputError(
                f"a run cannot last {self.seconds:g} seconds", todo=f"give 1 to {SECONDS_MAX:.0f}"
            )

        homes.check_enough_are_open(self.nat, self.peers)
        if self.nat and self.over_tcp:
            raise InputError(
                "routers are simulated, and real sockets know of none",
                todo="leave out --transport tcp, or --nat",
            )
        if lacking := [it for it in self.faults if it.name in NEED_ROUTERS and not self.nat]:
            raise InputError(
                f"{lacking[0]} strikes relays, and nobody needs any", todo="give --nat 0.8 too"
            )
        late = [it for it in self.faults if it.at_s is not None and it.at_s >= self.seconds]
        if late:
            raise InputError(
                f"{late[0]} begins when the run of {self.seconds:g} seconds is over",
                todo="give a moment before its end, or a longer run with --seconds",
            )

    def _check_economy(self) -> None:
        if self.economy is None:
            if economic := [it for it in self.faults if KINDS[it.name].economic]:
                raise InputError(
                    f"{economic[0]} is a fault of a network with credits", todo="add --economy"
                )
            return
        ring = next((int(it.amount) for it in self.faults if it.name == "ring"), 0)
        self.economy.check_peers(self.peers, ring)

    @property
    def tries_verifiers(self) -> bool:
        """Whether askers look for verifiers that do not look."""
        return any(it.name.endswith("_verifier") or it.name == "whale" for it in self.faults)

    @property
    def fetches(self) -> bool:
        """Whether data peers fetch prices, on which askers have several of them agree."""
        return any(it.name.startswith("source_") for it in self.faults)

    @property
    def period_s(self) -> float:
        """How often a peer in a network of this size publishes its advert, in seconds."""
        return GossipRateLimit(GossipRateConfig(), ViewConfig().adverts_max).period_s(self.peers)

    @property
    def in_real_time(self) -> bool:
        """Whether disks or sockets are used: threads and kernels take real time."""
        return self.on_disk or self.over_tcp

    def replay_line(self) -> str:
        """The command line that repeats this run."""
        words = [
            f"python -m node devnet --peers {self.peers} --seed {self.seed}",
            f"--load {self.rate:g}/s",
        ]
        if self.economy is None:
            words.insert(1, f"--seconds {self.seconds:g}")
        if self.faults:
            words.append(f"--faults {','.join(map(str, self.faults))}")
        if self.nat:
            words.append(f"--nat {self.nat.text}")
        if self.deadline_s != 60:
            words.append(f"--deadline {self.deadline_s}")
        if self.economy is not None:
            words.append(self.economy.typed())
        words += ["--store lmdb"] * self.on_disk + ["--transport tcp"] * self.over_tcp
        return " ".join(words)

    def to_document(self) -> dict[str, Any]:
        """The settings as a report has them; a run can be replayed from them."""
        return {
            "version": VERSION,
            "peers": self.peers,
            "seed": self.seed,
            "seconds": self.seconds,
            "load": f"{self.rate:g}/s",
            "faults": ",".join(map(str, self.faults)),
            "deadline_s": self.deadline_s,
            "store": "lmdb" if self.on_disk else "memory",
            "transport": "tcp" if self.over_tcp else "memory",
            **({} if self.economy is None else {"economy": self.economy.to_document()}),
            "nat": self.nat.text,
        }


def config_of(document: object) -> DevnetConfig:
    """The run that a report's `run` describes; InputError, naming both versions, if they differ."""
    if not isinstance(document, dict) or "version" not in document:
        raise InputError("the file is not a report of devnet", todo="give what --json printed")
    if document["version"] != VERSION:
        raise InputError(
            f"the file is of version {document['version']} of devnet, this is version {VERSION}",
            todo="run it with the release that wrote it, or give its options by hand",
        )
    try:
        return DevnetConfig(
            peers=int(document["peers"]),
            seed=int(document["seed"]),
            seconds=float(document["seconds"]),
            rate=rate_of(str(document["load"])),
            faults=parse(str(document["faults"])),
            deadline_s=int(document["deadline_s"]),
            on_disk=document["store"] == "lmdb",
            over_tcp=document["transport"] == "tcp",
            economy=economy_of(document.get("economy")),
            # A report from before there were routers has none.
            nat=homes.parse(str(document.get("nat", ""))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the file lacks what a run needs: {error}") from error
