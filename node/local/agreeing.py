"""Several data peers fetch one source, each for itself, and what they say is counted.

The terms and a number of the round are in every task, so whoever has the receipts recounts it. Who
says something else than the others is named and loses standing; without a quorum all fails aloud.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from node.asking import as_maps
from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.ingest.agreement import Agreed, AgreementTerms, agree
from node.local.control import Emit
from node.peer import Node
from node.task.price_bound import PriceBound, part_of_fetches
from node.task.units import PASSAGES_PER_LEG
from p2p.score import Offence
from wire.content import ContentId, PeerId
from wire.errors import BatonError, TaskFailed
from wire.fetch import AttestedFetch, FetchAgreement, SourceRecord
from wire.kinds import Role
from wire.operations import FETCH
from wire.plural import plural
from wire.schema import Parameters
from wire.task import Stage
from wire.tree import name_of

# Peers that fail are replaced by others: at most so many are asked for each place of the quorum.
TRIES_MAX = 3


@dataclass(frozen=True, slots=True)
class FetchedSource:
    """A task's end, and the record that its output commits to, with what was made of the body."""

    answered: Answered
    record: AttestedFetch
    record_id: ContentId
    by: PeerId
    output: bytes

    def to_map(self) -> dict[str, Any]:
        """As the control socket gives it; the contents are fetched by their ids."""
        return {
            **as_maps.answer_map(self.answered),
            "answer": self.answered.answer.raw,
            "payload": self.answered.output,
            "record": str(self.record_id),
            "body": str(self.record.body),
            "extracted": str(self.record.output),
        }


def fetch_stage(name: str) -> Stage:
    """The one stage of a task that has a source fetched."""
    parameters: Parameters = {"source": name, "first": 0, "count": PASSAGES_PER_LEG}
    return Stage(role=Role.DATA, operation=FETCH, model=None, parameters=parameters)


@dataclass(slots=True)
class Agreeing:
    """One agreement that is sought. `fetch_one` has one task done and brings its contents here."""

    node: Node
    fetch_one: Callable[[TaskRequest, SourceRecord | None, Emit], Awaitable[FetchedSource]]
    source: SourceRecord
    agree: str
    quorum: int
    # What all fetches may cost together, those of `fetch_one`.
    bound: PriceBound = field(default_factory=lambda: PriceBound(0))
    _found: list[FetchedSource] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)

    async def run(self, request: TaskRequest, emit: Emit) -> dict[str, Any]:
        """The agreement, its output kept here, and every fetch; TaskFailed without a quorum."""
        terms = AgreementTerms.read(self.quorum, self.agree)
        round_id = self.node.dependencies.environment.entropy(16)
        stage = request.stages[0]
        parameters: Parameters = {
            **stage.parameters,
            "quorum": self.quorum,
            "agree": self.agree,
            "round": round_id,
        }
        asked = replace(
            request,
            stages=(replace(stage, parameters=parameters),),
            # So that one that falls silent leaves time for others.
            deadline_s=max(1, request.deadline_s // TRIES_MAX),
        )
        drawn = self._drawn(stage)
        if len(drawn) < self.quorum:
            raise TaskFailed(
                f"no quorum: {len(drawn)} other data peers are known and {self.quorum} have to"
                " fetch",
                todo="see who is there: python -m node peers",
            )
        async with trio.open_nursery() as nursery:
            left = iter(drawn[: self.quorum * TRIES_MAX])
            for _ in range(self.quorum):
                nursery.start_soon(self._fill_place, asked, left, emit)
        if len(self._found) < self.quorum:
            raise TaskFailed(
                f"no quorum: {len(self._found)} of {self.quorum} data peers fetched it"
                f" ({'; '.join(self._failures)})"
            )
        outputs = [it.output for it in self._found]
        times_ms = [it.record.fetched_at_ms for it in self._found]
        # Sixteen large tables take seconds.
        counted = await trio.to_thread.run_sync(agree, terms, outputs, times_ms)
        return await self._counted(counted, terms, round_id, asked)

    def _drawn(self, stage: Stage) -> list[PeerId]:
        """The data peers that are known, in an order that nobody can choose; not this one."""
        me = frozenset((self.node.peers.me,))
        able = sorted(self.node.leg_server.dispatcher.directory.able(stage, me))
        self.node.dependencies.environment.random.shuffle(able)
        return able

    async def _fill_place(self, asked: TaskRequest, left: Iterator[PeerId], emit: Emit) -> None:
        """Have the next of the peers fetch the source, or the one after it where it fails."""
        price_max = part_of_fetches(self.bound.most, self.quorum, then=False)
        for peer in left:
            try:
                one = replace(asked, only=frozenset((peer,)), price_max=price_max)
                self._found.append(await self.fetch_one(one, self.source, emit))
            except BatonError as error:
                self._failures.append(f"{peer.short}: {error.message}"[:200])
            else:
                return

    async def _counted(
        self, counted: Agreed, terms: AgreementTerms, round_id: bytes, asked: TaskRequest
    ) -> dict[str, Any]:
        by = [it.by for it in self._found]
        agreeing = tuple(by[it] for it in counted.agreeing)
        outliers = tuple(it for it in by if it not in agreeing)
        if counted.output is None:
            raise TaskFailed(
                f"no quorum: of {plural(len(by), 'data peer')} {len(agreeing)} agree and"
                f" {terms.needed} have"
                f" to ({self.agree}); they are {', '.join(it.short for it in by)}",
                todo="see what each says: python -m node sources fetch, without --quorum",
            )
        for peer in outliers:
            # A server may tell somebody something else once: that alone bans nobody.
            self.node.tasks.checking.peers.offended(peer, Offence.MALFORMED)
        output = counted.output
        record = FetchAgreement(
            source=self.source.id,
            quorum=self.quorum,
            agree=self.agree,
            round=round_id,
            answers=tuple(ContentId.of(it.answered.answer.raw) for it in self._found),
            agreeing=agreeing,
            outliers=outliers,
            output=name_of(output),
        )
        await self.node.dependencies.store.put(output)
        return {
            "agreement": record.to_bytes(),
            "output": str(record.output),
            "agreeing": [str(it) for it in agreeing],
            "outliers": [str(it) for it in outliers],
            "input_payload": asked.input or b"",
            "charged": self.bound.charged,
            "price_max": self.bound.most,
            "fetches": [it.to_map() for it in self._found],
        }
