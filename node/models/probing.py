"""Tests end to end whether the models that are loaded here do what an advert would say.

A probe is a small leg of our own, done twice through the same role, queue and engine as a
stranger's. A model is offered to others only while its last probe passed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from node.engines.compare import worst_differences
from node.engines.interface import Engine, Loaded
from node.engines.other_layers import OtherLayers
from node.serving.infer_role import InferRole
from node.serving.role import LegInput, LegWork, nowhere
from p2p import timeouts
from wire.content import ContentId, PeerId
from wire.errors import EngineError, Refused, TooSlow, WireError
from wire.generation import Generation
from wire.kinds import Role
from wire.operations import CALL, COMPLETE, EMBED, GENERATE, RERANK
from wire.payload import QueryText, Texts, Vectors
from wire.schema import Scalar
from wire.task import Stage

PROBE_TEXT = "Is this model well?"
PROBE_DEADLINE_S = 30.0
# An idle model is probed again after so long.
EVERY_S = 600.0
# A model that fails is probed again soon at first, then ever less often.
RETRY_S_MIN = 5.0
RETRY_S_MAX = 300.0
# How often we look for engine failures, and how often failures cause a probe at most.
LOOK_EVERY_S = 2.0
AFTER_FAILURE_S_MIN = 5.0


class ProbeFailed(Exception):
    """The model does not do what its manifest says; the words say how."""


@dataclass(slots=True)
class _Tried:
    """How a model's latest probe went, and when the next is due."""

    passed: bool = False
    problem: str = ""
    failures: int = 0
    due_at_s: float = 0.0
    # The result of the last probe that ended.
    at_s: float = float("-inf")
    # Whether the engine failed since: then a probe is due even while there is work.
    urgent: bool = True


@dataclass(slots=True)
class Probes:
    """Which models passed, and which are due. Pure: callers pass the time in."""

    _tried: dict[ContentId, _Tried] = field(default_factory=dict)
    # The engine's restarts and last failure, as last seen.
    _health: tuple[int, str] = (0, "")

    def passed(self, model: ContentId) -> bool:
        """Whether the last probe of this model answered as it should; False if none was made."""
        tried = self._tried.get(model)
        return tried is not None and tried.passed

    def problem(self, model: ContentId) -> str:
        """Why a model is not offered, in words; empty if it passed or was not tried yet."""
        tried = self._tried.get(model)
        return "" if tried is None else tried.problem

    def saw(
        self, loaded: Iterable[ContentId], health: tuple[int, str], now_at_s: float
    ) -> list[ContentId]:
        """Take note of what is loaded, and of whether the engine failed since the last look.

        Returns the models that were offered until now and are no longer loaded.
        """
        there = list(loaded)
        gone = [key for key, it in self._tried.items() if it.passed and key not in there]
        self._tried = {key: it for key, it in self._tried.items() if key in there}
        for model in there:
            tried = self._tried.setdefault(model, _Tried(due_at_s=now_at_s))
            # A failing model keeps its back-off: its own probes may make the engine fail.
            if health != self._health and tried.passed:
                tried.urgent = True
                tried.due_at_s = min(
                    tried.due_at_s, max(now_at_s, tried.at_s + AFTER_FAILURE_S_MIN)
                )
        self._health = health
        return gone

    def due(self, now_at_s: float, *, idle: bool) -> list[ContentId]:
        """The models to probe now. A model that passed does not take the engine from work."""
        return [
            model
            for model, tried in self._tried.items()
            if tried.due_at_s <= now_at_s and (idle or tried.urgent or not tried.passed)
        ]

    def succeeded(self, model: ContentId, now_at_s: float) -> bool:
        """Note that a probe passed; returns whether the model was not offered before."""
        tried = self._tried.setdefault(model, _Tried())
        news = not tried.passed
        self._tried[model] = _Tried(
            passed=True, due_at_s=now_at_s + EVERY_S, at_s=now_at_s, urgent=False
        )
        return news

    def failed(self, model: ContentId, why: str, now_at_s: float) -> bool:
        """Note that a probe failed; returns whether the model was offered until now."""
        tried = self._tried.setdefault(model, _Tried())
        news = tried.passed
        wait_s = min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(tried.failures, 16))
        self._tried[model] = _Tried(
            problem=why,
            failures=tried.failures + 1,
            due_at_s=now_at_s + wait_s,
            at_s=now_at_s,
            urgent=False,
        )
        return news

    def waits(self, model: ContentId, why: str, now_at_s: float) -> bool:
        """Note why a model cannot be probed yet; returns whether it was offered until now."""
        tried = self._tried.setdefault(model, _Tried())
        news = tried.passed
        self._tried[model] = _Tried(problem=why, due_at_s=now_at_s, at_s=now_at_s, urgent=False)
        return news

    def put_off(self, model: ContentId, wait_s: float, now_at_s: float) -> None:
        """Note that the engine had no room for a probe, which says nothing of the model."""
        tried = self._tried.setdefault(model, _Tried())
        tried.due_at_s = now_at_s + max(1.0, wait_s)


@dataclass(slots=True)
class Probing:
    """Probes the models of one peer. `changed` is called with words when an advert is due."""

    me: PeerId
    engine: Engine
    infer_role: InferRole
    changed: Callable[[str], None]
    others: OtherLayers | None = None
    probes: Probes = field(default_factory=Probes)
    _wake: trio.Event = field(default_factory=trio.Event)

    def look(self) -> None:
        """Look for models to probe now, because one was loaded."""
        self._wake.set()

    def offered(self) -> list[Loaded]:
        """The models that an advert may name."""
        passed = [it for it in self.engine.loaded().values() if self.probes.passed(it.model)]
        return [it for it in passed if not self.missing(it)]

    def missing(self, loaded: Loaded) -> str:
        """Which layers nobody is known to have, in words; empty if the model is whole."""
        if loaded.layers is None or loaded.middle is not None or self.others is None:
            return ""
        return self.others.missing(loaded.model, loaded.layers)

    async def run(self) -> None:
        """Probe the models that are due, until cancelled."""
        while True:
            seen = self.engine.statistics()
            health = (seen.restarts, seen.last_failure)
            now_at_s = trio.current_time()
            for model in self.probes.saw(self.engine.loaded(), health, now_at_s):
                self.changed(f"model {model.short} is not run here any more")
            for loaded in self.engine.loaded().values():
                why = self.missing(loaded)
                if why and self.probes.waits(loaded.model, why, now_at_s):
                    self.changed(f"model {loaded.manifest.name} is set aside: {why}")
            idle = self.infer_role.fair_queue.queue_s == 0
            for model in self.probes.due(now_at_s, idle=idle):
                await self._try(model)
            with trio.move_on_after(LOOK_EVERY_S):
                await self._wake.wait()
            self._wake = trio.Event()

    async def _try(self, model: ContentId) -> None:
        loaded = self.engine.ready(model)
        if loaded is None:
            return
        name = loaded.manifest.name
        if self._loads(model) or self.missing(loaded):
            return
        try:
            with timeouts.fail_after(PROBE_DEADLINE_S):
                await probe(self.infer_role, self.me, loaded)
        except Refused as error:
            if error.retry_after_s is not None:
                self.probes.put_off(model, error.retry_after_s, trio.current_time())
                return
            why = error.message
        except TooSlow as error:
            if self._loads(model):
                return
            why = error.message
        except (EngineError, WireError) as error:
            why = error.message
        except ProbeFailed as error:
            why = str(error)
        except trio.TooSlowError:
            if self._loads(model):
                return
            why = f"it did not answer within {PROBE_DEADLINE_S:.0f} s"
        else:
            if self.probes.succeeded(model, trio.current_time()):
                self.changed(f"model {name} is ready")
            return
        if self.probes.failed(model, why, trio.current_time()):
            self.changed(f"model {name} is set aside: {why}")

    def _loads(self, model: ContentId) -> bool:
        """Whether a model is being loaded: its probe is put off until then."""
        loads = model in self.engine.statistics().loading
        if loads:
            self.probes.put_off(model, LOOK_EVERY_S, trio.current_time())
        return loads


async def probe(infer: InferRole, me: PeerId, loaded: Loaded) -> None:
    """Have the smallest leg done twice; ProbeFailed unless the answers are equal."""
    smallest = _smallest(loaded)
    if smallest is None:
        return
    stage, data = smallest
    deadline_s = timeouts.stretched(PROBE_DEADLINE_S)
    outputs = []
    for _ in range(2):
        work = LegWork(stage=stage, asker=me, by=me, units=1, left_s=deadline_s)
        place = infer.admit(work)
        try:
            source = LegInput(id=None, data=data, holders=(), deadline_s=deadline_s, place=place)
            done = await infer.do(stage, source, nowhere)
        finally:
            infer.dequeue(place)
        outputs.append(done.data)
    first, second = outputs
    if stage.operation in (EMBED, RERANK):
        vectors = Vectors.from_bytes(first)
        if vectors.rows != 1:
            raise ProbeFailed(f"it gave {vectors.rows} rows for one text")
        worst = worst_differences(vectors, Vectors.from_bytes(second), (0,))[0] / 1e9
        if worst > loaded.manifest.tolerance:
            raise ProbeFailed("asked twice, it gave two answers that differ, or are no numbers")
    elif first != second:
        raise ProbeFailed("asked twice, it gave two answers")


def _smallest(loaded: Loaded) -> tuple[Stage, bytes] | None:
    """One text embedded, or one token made; None for a function of tensors.

    We do not know its inputs; it was tried when it was loaded, with the shapes that its file has.
    """
    parameters: dict[str, Scalar] = {}
    if loaded.middle is not None:
        # Rows of its own went through when it was loaded.
        return None
    if EMBED in loaded.manifest.operations:
        data, operation = Texts(texts=(PROBE_TEXT,)).to_bytes(), EMBED
    elif RERANK in loaded.manifest.operations:
        pair = QueryText(PROBE_TEXT, PROBE_TEXT).to_text()
        data, operation = Texts(texts=(pair,)).to_bytes(), RERANK
    elif COMPLETE in loaded.manifest.operations:
        data, operation, parameters = PROBE_TEXT.encode(), COMPLETE, {"tokens": 1}
    elif GENERATE in loaded.manifest.operations:
        asked = Generation(prompt=PROBE_TEXT, messages="", tools="", schema="", stop=())
        data, operation = asked.to_bytes(), GENERATE
        parameters = {"tokens": 1, "temperature": 0.0, "seed": 0}
    elif CALL in loaded.manifest.operations:
        return None
    else:
        raise ProbeFailed(f"none of its operations can be probed: {loaded.manifest.operations}")
    stage = Stage(role=Role.INFER, operation=operation, model=loaded.model, parameters=parameters)
    return stage, data
