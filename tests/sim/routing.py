"""Askers and servers with queues: Baton's routing and admission against simpler rules.

Servers differ in speed as machines do, with a heavy tail. Askers know them from old adverts, which
were made some time in the last period. A quote is asked for just before the leg is offered, and
both take a round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from statistics import mean

from node.dispatch.route import Leg, PeerLoad, candidates, drawn
from node.serving.admission import Admission
from node.serving.queue_slot import Now, QueuedJob, QueueSlot, SlotStage
from tests.sim.events import Loop
from tests.sim.population import key_of, model_of
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.content import ContentId, PeerId
from wire.errors import Refused
from wire.kinds import Role
from wire.signed import Signed

_MODEL = model_of("served")
_ONE_WAY_S = 0.03
_ROOM = 64
_ATTEMPTS = 6
_NOISE = 0.1


class Policy(Enum):
    """How an asker chooses."""

    RANDOM = "random"
    LEAST_LOAD = "least advertised load"
    OURS = "two asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """A run. `load` is the arriving work, as a share of what all servers together can do."""

    policy: Policy
    load: float
    seed: int = 7
    servers: int = 60
    askers: int = 200
    seconds: float = 60.0
    advert_s: float = 30.0
    deadline_s: float = 20.0
    units_mean: float = 30.0
    # The share of the arriving work that one asker asks for.
    greedy: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """One leg on its way to a server, and the servers that were asked."""

    asker: PeerId
    units: int
    began_at_s: float
    refused_by: list[PeerId] = field(default_factory=list)
    left_s: float = 0.0


@dataclass(slots=True, eq=False)
class Server:
    """One machine: Baton's own admission, then one leg after the other."""

    key: PeerId
    units_per_s: float
    admission: Admission = field(default_factory=lambda: Admission(1))
    busy_until_at_s: float = 0.0
    jobs: dict[QueueSlot, Job] = field(default_factory=dict)
    taken: int = 0

    def now(self, now_at_s: float) -> Now:
        return Now(max(0.0, self.busy_until_at_s - now_at_s), _ROOM, now_at_s)

    def queue_s(self, now_at_s: float) -> float:
        return max(0.0, self.busy_until_at_s - now_at_s) + self.admission.queue_s

    def wanted(self, job: Job, now_at_s: float, deadline_s: float) -> QueuedJob:
        left_s = job.began_at_s + deadline_s - now_at_s
        cost_s = job.units / self.units_per_s
        return QueuedJob(asker=job.asker, units=job.units, cost_s=cost_s, left_s=left_s)


@dataclass(slots=True)
class Served:
    """The result of a run."""

    latencies_s: dict[PeerId, list[float]] = field(default_factory=dict)
    refused: int = 0
    late: int = 0
    units: int = 0
    arrived: int = 0

    def latency_s(self, share: float, without: PeerId | None = None) -> float:
        of = [it for asker, all_s in self.latencies_s.items() if asker != without for it in all_s]
        return sorted(of)[min(len(of) - 1, int(share * len(of)))] if of else 0.0


GREEDY = key_of("the greedy one")


class Queues:
    """Simulates one traffic, or single calls of its methods."""

    def __init__(self, traffic: Traffic, speeds: Sequence[float] | None = None) -> None:
        self.traffic = traffic
        self.loop = Loop()
        self.random = Random(f"{traffic.seed}:routing")
        if speeds is None:
            speeds = [
                20.0 * min(20.0, self.random.paretovariate(1.5)) for _ in range(traffic.servers)
            ]
        self.servers = {
            key: Server(key, speed)
            for key, speed in ((key_of(f"server {it}"), s) for it, s in enumerate(speeds))
        }
        self.capacity = sum(it.units_per_s for it in self.servers.values())
        self.adverts: dict[PeerId, Signed[Advert]] = {}
        self.under_way: dict[tuple[PeerId, PeerId], int] = {}
        self.served = Served()
        self.askers = [key_of(f"asker {it}") for it in range(traffic.askers)]
        for server in self.servers.values():
            self._advertise(server)
            first_s = self.random.random() * traffic.advert_s
            self.loop.after(first_s, self._advertise_forever, server)

    def run(self) -> Served:
        """Run Poisson arrivals for as long as the traffic says, and until all legs are done."""
        traffic = self.traffic
        rate = traffic.load * self.capacity / traffic.units_mean
        if traffic.greedy:
            self._arrive_forever(rate * traffic.greedy, [GREEDY])
        self._arrive_forever(rate * (1 - traffic.greedy), self.askers)
        self.loop.run(traffic.seconds)
        return self.served

    def _arrive_forever(self, per_s: float, askers: list[PeerId]) -> None:
        if per_s <= 0:
            return
        self.loop.after(self.random.expovariate(per_s), self._arrived, per_s, askers)

    def _arrived(self, per_s: float, askers: list[PeerId]) -> None:
        units = max(1, round(self.random.expovariate(1 / self.traffic.units_mean)))
        self.ask(Job(self.random.choice(askers), units, self.loop.now_at_s))
        self._arrive_forever(per_s, askers)

    # What servers say

    def _advertise_forever(self, server: Server) -> None:
        self._advertise(server)
        self.loop.after(self.traffic.advert_s, self._advertise_forever, server)

    def _advertise(self, server: Server) -> None:
        now_at_s = self.loop.now_at_s
        self.adverts[server.key] = _advert(
            server.key, server.units_per_s, len(server.jobs), server.queue_s(now_at_s)
        )

    # What askers do

    def ask(self, job: Job) -> None:
        self.served.arrived += 1
        self._try(job)

    def _try(self, job: Job) -> None:
        choices = [it for key, it in self.adverts.items() if key not in job.refused_by]
        left_s = job.began_at_s + self.traffic.deadline_s - self.loop.now_at_s
        if len(job.refused_by) >= _ATTEMPTS or not choices or left_s <= 0:
            self.served.refused += 1
            return
        match self.traffic.policy:
            case Policy.RANDOM:
                self._offer_soon(job, self.random.choice(choices).signer)
            case Policy.LEAST_LOAD:
                best = min(choices, key=lambda it: self._advertised(job, it))
                self._offer_soon(job, best.signer)
            case Policy.OURS:
                self._ask_two(job, choices)

    def _advertised(self, job: Job, heard: Signed[Advert]) -> tuple[float, float]:
        advert = heard.record
        wait_s = advert.queue_s + job.units / advert.models[0].units_per_s
        return wait_s, self.random.random()

    def _ask_two(self, job: Job, choices: list[Signed[Advert]]) -> None:
        loads = {}
        for heard in choices:
            count = self.under_way.get((job.asker, heard.signer), 0)
            loads[heard.signer] = PeerLoad(under_way=count, round_trip_s=2 * _ONE_WAY_S)
        two = drawn(candidates(choices, Leg(_MODEL, job.units), loads), self.random)
        self.loop.after(_ONE_WAY_S, self._quoted, job, [it.peer for it in two])

    def _quoted(self, job: Job, asked: list[PeerId]) -> None:
        now_at_s, said = self.loop.now_at_s, []
        for peer in asked:
            server = self.servers[peer]
            wanted = server.wanted(job, now_at_s, self.traffic.deadline_s)
            try:
                said.append((server.admission.quote(wanted, job.asker, server.now(now_at_s)), peer))
            except Refused:
                job.refused_by.append(peer)
        if said:
            # Among equals the first one wins.
            best = min(said, key=lambda it: it[0])[1]
            self.loop.after(_ONE_WAY_S, self._offer_soon, job, best)
        else:
            self.loop.after(_ONE_WAY_S, self._try, job)

    def _offer_soon(self, job: Job, peer: PeerId) -> None:
        self.under_way[job.asker, peer] = self.under_way.get((job.asker, peer), 0) + 1
        self.loop.after(_ONE_WAY_S, self._offered, job, self.servers[peer])

    # What servers do

    def _offered(self, job: Job, server: Server) -> None:
        now_at_s = self.loop.now_at_s
        wanted = server.wanted(job, now_at_s, self.traffic.deadline_s)
        try:
            place, given_up = server.admission.enqueue(wanted, job.asker, server.now(now_at_s))
        except Refused:
            self._refuse(job, server)
            return
        server.taken += 1
        place.stage = SlotStage.READY
        server.jobs[place] = job
        for other in given_up:
            self._refuse(server.jobs.pop(other), server)
        self._next(server)

    def _next(self, server: Server) -> None:
        now_at_s = self.loop.now_at_s
        begun, given_up = server.admission.next(server.now(now_at_s))
        for place in given_up:
            self._refuse(server.jobs.pop(place), server)
        for place in begun:
            cost_s = place.cost_s * (1 + _NOISE * (2 * self.random.random() - 1))
            server.busy_until_at_s = now_at_s + cost_s
            self.loop.after(cost_s, self._done, server, place)

    def _done(self, server: Server, place: QueueSlot) -> None:
        job = server.jobs.pop(place)
        server.admission.dequeue(place)
        self.under_way[job.asker, server.key] -= 1
        latency_s = self.loop.now_at_s + _ONE_WAY_S - job.began_at_s
        self.served.latencies_s.setdefault(job.asker, []).append(latency_s)
        self.served.late += latency_s > self.traffic.deadline_s
        self.served.units += job.units
        self._next(server)

    def _refuse(self, job: Job, server: Server) -> None:
        self.under_way[job.asker, server.key] -= 1
        job.refused_by.append(server.key)
        self.loop.after(_ONE_WAY_S, self._try, job)


def _advert(key: PeerId, units_per_s: float, busy: int, queue_s: float) -> Signed[Advert]:
    record = Advert(
        version=limits.PROTOCOL_VERSION,
        seq=1,
        instance=bytes(8),
        issued_at_s=0,
        ttl_s=90,
        addresses=(),
        roles=1 << Role.INFER,
        models=(ModelOffer(model=_MODEL, name="served", units_per_s=units_per_s),),
        free_slots=max(0, _ROOM - busy),
        queue_s=queue_s,
        price=0,
        leaving=False,
    )
    return Signed(record, key, b"", ContentId.of(b""))


def figures_of(traffic: Traffic) -> dict[str, float]:
    """One row of the table."""
    queues = Queues(traffic)
    served = queues.run()
    greedy = GREEDY if traffic.greedy else None
    return {
        "p50_s": round(served.latency_s(0.5, greedy), 2),
        "p99_s": round(served.latency_s(0.99, greedy), 2),
        "refused_ratio": round(served.refused / max(1, served.arrived), 4),
        "late": served.late,
        "throughput": round(served.units / queues.capacity / traffic.seconds, 3),
    }


def herd(policy: Policy, askers: int = 1000, others: int = 49, seed: int = 7) -> float:
    """The share of so many askers, all in one second, that choose the only idle server.

    It is twice as fast as the others, which advertised that they are busy for two more seconds.
    """
    traffic = Traffic(policy=policy, load=0.0, askers=askers, seed=seed, advert_s=3600.0)
    queues = Queues(traffic, [200.0, *[100.0] * others])
    for server in list(queues.servers.values())[1:]:
        server.busy_until_at_s = 2.0
        queues._advertise(server)
    for asker in queues.askers:
        at_s = queues.random.random()
        queues.loop.after(at_s, queues.ask, Job(asker, 20, at_s))
    queues.loop.run(60.0)
    taken = [it.taken for it in queues.servers.values()]
    return taken[0] / sum(taken)


def fairness(greedy: bool, seed: int = 7) -> dict[str, float]:
    """One server at half load; if `greedy`, one more asker asks for three times that load."""
    rate, share = (3.5, 3.0 / 3.5) if greedy else (0.5, 0.0)
    traffic = Traffic(
        policy=Policy.OURS, load=rate, seed=seed, askers=20, seconds=600.0, greedy=share
    )
    queues = Queues(traffic, [100.0])
    served = queues.run()
    without = GREEDY if greedy else None
    others = [mean(all_s) for it, all_s in served.latencies_s.items() if it != without]
    return {
        "p50_s": round(served.latency_s(0.5, without), 2),
        "p99_s": round(served.latency_s(0.99, without), 2),
        "mean_s": round(mean(others), 2),
        "throughput": round(served.units / queues.capacity / traffic.seconds, 3),
    }
