"""Prices that several data peers have to agree on, asked at a steady pace, each compared.

Who lies is known here, so it is counted how often a wrong price was accepted, and which liars an
agreement named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from random import Random

import trio

from node.asking.run import TaskRequest
from node.devnet.faults import Fault
from node.devnet.peer import DevPeer
from node.devnet.simulated_fetch import SOURCE, price_at
from node.ingest.table import DataTable
from node.local.agreeing import Agreeing, fetch_stage
from node.local.control import unheard
from node.local.fetch_commands import FetchCommands
from wire.content import ContentId
from wire.errors import BatonError
from wire.kinds import Level, Role

EVERY_S, DEADLINE_S = 1.0, 60
QUORUM, AGREE, TOLERANCE = 3, "median 1%", 0.01
LYING = ("source_lies", "source_colludes")


@dataclass(slots=True)
class AgreementLoad:
    """Asks for the price once a second; what came of it."""

    seed: int
    asked: int = 0
    agreed: int = 0
    wrong: int = 0
    without: int = 0
    # How many agreements named each outlier, and how many of those were on a wrong price.
    named: dict[str, int] = field(default_factory=dict)
    outvoted: dict[str, int] = field(default_factory=dict)

    async def run(self, askers: Sequence[DevPeer], seconds: float) -> None:
        """Ask, and return once every question has ended."""
        random = Random(f"{self.seed}:prices")
        async with trio.open_nursery() as nursery:
            for _ in range(max(1, int(seconds / EVERY_S))):
                nursery.start_soon(self._ask, random.choice(askers))
                await trio.sleep(EVERY_S)

    async def _ask(self, asker: DevPeer) -> None:
        node = asker.node
        if node is None:
            return
        self.asked += 1
        request = TaskRequest(
            stages=(fetch_stage("prices"),),
            input=SOURCE.to_bytes(),
            deadline_s=DEADLINE_S,
            level=Level.SIGNED,
        )
        agreeing = Agreeing(node, FetchCommands(node).fetch_one, SOURCE, AGREE, QUORUM)
        try:
            found = await agreeing.run(request, unheard)
            output = await node.dependencies.store.get(ContentId.parse(found["output"]))
        except BatonError:
            # Fewer agree than have to: it fails aloud, and nothing is accepted.
            self.without += 1
            return
        self.agreed += 1
        right = price_at(asker.environment().wall_s())
        price = DataTable.from_bytes(output).rows[0][1]
        wrong = not isinstance(price, float | int) or abs(price / right - 1) > TOLERANCE
        self.wrong += wrong
        counts = self.outvoted if wrong else self.named
        for key in found["outliers"]:
            counts[key] = counts.get(key, 0) + 1

    def figures(self, faults: Sequence[Fault], peers: Sequence[DevPeer]) -> dict[str, float | int]:
        """What the report says of it; nothing where nothing was asked."""
        if not self.asked:
            return {}
        lying = {number for it in faults if it.name in LYING for number in it.peers}
        together = {n for it in faults if it.name == "source_colludes" for n in it.peers}
        data = [it for it in peers if Role.DATA in it.plan.roles]
        liars = {str(it.key.peer) for it in data if it.number in lying}
        chance = decided_by(sum(it.number in together for it in data), len(data))
        return {
            "agreements_asked": self.asked,
            "agreements_reached": self.agreed,
            "agreements_failed": self.without,
            "wrong_agreements": self.wrong,
            "wrong_agreements_expected": round(chance * self.agreed, 4),
            "wrong_agreements_chance": chance,
            "source_liars": len(liars),
            "source_liars_named": len(liars & (self.named.keys() | self.outvoted.keys())),
            # Two of three that act together are the majority, and then the third is the outlier.
            "honest_sources_outvoted": len(self.outvoted.keys() - liars),
            "honest_sources_named": len(self.named.keys() - liars),
        }


def decided_by(together: int, peers: int) -> float:
    """How likely two or three of three data peers, drawn among `peers`, are those who collude."""
    if peers < QUORUM:
        return 0.0
    two = comb(together, 2) * (peers - together) + comb(together, 3)
    return two / comb(peers, QUORUM)
