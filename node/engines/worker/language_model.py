"""A language model as the worker keeps it: its tables, its slots, its graphs, and its steps."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tinygrad import Device
from tinygrad.helpers import DEV

from node.engines.formats.gguf import FILE, check_format, describe
from node.engines.formats.gguf_model import BESIDES_BYTES, SLOT_TOKENS, SLOTS, GgufModel
from node.engines.worker.asked_answer import AskedAnswers
from node.engines.worker.attention import PAGE
from node.engines.worker.buffers import Array
from node.engines.worker.claimed_sequence import ClaimedSequence
from node.engines.worker.device import WorkerDevice
from node.engines.worker.gguf_tokens import TokenTable, read_table
from node.engines.worker.graph_cache import GraphCache
from node.engines.worker.layer_stage import LayerStage
from node.engines.worker.matmul import Matmul
from node.engines.worker.pages import PagePool
from node.engines.worker.passes import Made, RestLied, SlotRow
from node.engines.worker.rest import OtherPeers
from node.engines.worker.sequence import FAULTS, TokenSequence, refusal_of
from node.engines.worker.slots import Slots
from node.engines.worker.thread_team import ThreadTeam
from node.engines.worker.transformer import ANSWERING, LanguageModel, Rest
from wire.codec import Value
from wire.errors import ModelRefused
from wire.generation import Generation
from wire.model import Manifest

WARM_UP_STEPS = 4
# What is done of a load once all weights are read.
READ = 0.3
# And once the layers are compiled, or were found to be.
ENDED = 0.9


class Language(Protocol):
    """The weights of a model, what is kept of tokens, and how rows of both go through a pass.

    Where it is `exact`, a token's numbers are the same to the bit in every pass.
    """

    model: GgufModel
    team: ThreadTeam
    pages: int
    context: int

    @property
    def exact(self) -> bool: ...

    @property
    def reading(self) -> tuple[int, ...]: ...

    def run(
        self, rows: Sequence[SlotRow], rest: Rest | None = None, *, sketched: bool = False
    ) -> Array | None:
        """See `LanguageModel.run`."""

    def lines(
        self,
        rows: Sequence[SlotRow],
        first: int,
        rest: Rest | None = None,
        *,
        sketched: bool = False,
    ) -> Iterator[Array]:
        """See `LanguageModel.lines`."""


class LoadedLanguageModel:
    """One model, ready to run; `answer` does one step."""

    def __init__(
        self,
        manifest: Manifest,
        table: TokenTable,
        language: Language,
        sizes: Sequence[int],
        place: WorkerDevice,
    ) -> None:
        self._progress = place.progress
        self._language = language
        self._sizes = sizes
        self._asked = AskedAnswers.of(manifest.id, language.model, language.context, table)
        self._pages = PagePool(language.pages, PAGE)
        here = language.model.here
        self._rest = None if here.whole else OtherPeers(here, place.asking, self._pages)
        self._slots = Slots(
            SLOTS,
            answering=max(ANSWERING),
            reading=language.reading,
            # Where longer passes give other bits, a prompt is always read in the same way.
            reuse=language.exact,
            pages=self._pages,
            # Where a longer pass gives other bits, a guess would change what is answered.
            guessing=ANSWERING if language.exact else (),
        )

    @property
    def memory_bytes(self) -> int:
        language = self._language
        return language.model.weights_bytes + language.pages * language.model.page_bytes

    def warm_up(self) -> tuple[float, float]:
        """Tokens in a second where every slot is busy, and where one is."""
        # All of them where the first token of a slot is: what is there is written anew each time.
        rows = [SlotRow(0, slot, 0, (slot,)) for slot in range(min(SLOTS, self._language.pages))]
        for done, size in enumerate(self._sizes):
            self._progress.at(done / len(self._sizes))
            logits = self._language.run((rows * size)[:size])
            if logits is not None and not np.isfinite(logits).all():
                raise ModelRefused("the model answered with numbers that are not finite")
        return self._speed(rows), self._speed(rows[:1])

    def _speed(self, rows: list[SlotRow]) -> float:
        began_at_s = time.perf_counter()
        for _ in range(WARM_UP_STEPS):
            self._language.run(rows)
        return len(rows) * WARM_UP_STEPS / max(time.perf_counter() - began_at_s, 1e-6)

    def answer(self, message: dict[str, Any]) -> dict[str, Value]:
        """End and begin answers, then one step; what it made, and how many slots are free."""
        self._language.team.allow(message["threads"])
        refused: dict[int, ModelRefused] = {}
        read: list[Value] = []
        made_of: list[Value] = []
        # In this order: what ends may begin again under its number.
        for number in message["end"]:
            self._slots.end(number)
        for job in message["begin"]:
            try:
                sequence = self._begun(job)
                if sequence.sampling.echo:
                    count = 1 if sequence.echoes else len(sequence.prompt)
                    read.append([sequence.id, sequence.told_prompt(count)])
                if job["claimed"] is not None:
                    claimed = self._asked.claimed(sequence, job["claimed"])
                    self._slots.begin(ClaimedSequence.of(sequence, claimed, job["slack"]))
                elif sequence.most or sequence.echoes:
                    self._slots.begin(sequence)
                else:
                    made_of.append([sequence.id, [sequence.nothing()]])
            except ModelRefused as error:
                refused[job["id"]] = error
            except FAULTS as error:
                refused[job["id"]] = refusal_of(error)
        made = self._slots.step(self._forward, frozenset(message["paused"]))
        refused |= made.refused
        read += [[number, data] for number, data in made.read.items()]
        made_of += [[number, list(frames)] for number, frames in made.frames.items()]
        legs, lied = self._signed(made)
        lost: list[Value] = [] if made.lost is None else [str(made.lost), made.lost.final]
        return {
            "lost": lost,
            "legs": legs,
            "lied": lied,
            "read": read,
            "made": made_of,
            "margins": [
                [number, np.array(found, "<f4").tobytes()] for number, found in made.margins.items()
            ],
            "refused": [[number, error.message, error.todo] for number, error in refused.items()],
            "free": self._slots.free,
            "slots": SLOTS,
            "pages": [self._slots.pages_used, self._pages.count],
        }

    def _signed(self, made: Made) -> tuple[list[Value], str]:
        """What other peers signed of the answers that ended; and which of them lied, in words."""
        legs: list[Value] = []
        if self._rest is None or made.lost is not None:
            return legs, ""
        try:
            for number, (pages, rows) in made.ended.items():
                legs.append([number, list(self._rest.sign(pages, rows))])
        except RestLied as lied:
            return [], str(lied)
        return legs, ""

    def _forward(self, rows: Sequence[SlotRow], told: int | None = None) -> Any:
        if self._rest is not None:
            self._rest.fresh = self._slots.fresh
        if told is None:
            return self._language.run(rows, self._rest, sketched=self._slots.sketches)
        return self._language.lines(rows, told, self._rest, sketched=self._slots.sketches)

    def _begun(self, job: dict[str, Any]) -> TokenSequence:
        """A job as an answer to begin with; ModelRefused with the reason."""
        asked = Generation.from_bytes(job["input"])
        answer = self._asked.begun(asked, job["parameters"], job["id"], job["shown"])
        tokens, longest = len(answer.prompt), answer.most
        if job["claimed"] is not None:
            longest = min(longest, len(job["claimed"]) // 4)
        if self._pages.of(tokens + longest) > self._pages.count:
            raise ModelRefused(
                f"the prompt has {tokens} tokens and its answer may have {longest}; this peer"
                f" has memory for {self._pages.count * PAGE} of both",
                todo="ask for fewer tokens, or have the peer allow more memory",
            )
        return answer


def load(
    manifest: Manifest, files: dict[str, Path], place: WorkerDevice
) -> LoadedLanguageModel | LayerStage:
    """Check, read and compile (or find compiled) one model; ModelRefused, EngineMissing."""
    model = replace(describe(files[FILE]), context_max=_context_of(manifest))
    check_format(model, manifest.format)
    if place.layers is not None:
        model = model.holding(*place.layers)
    table = read_table(model) if model.here.begins else None
    pages = pages_of(model, place)
    with place.progress.part(0.0, READ):
        language = LanguageModel(
            model,
            pages,
            Matmul(blocked=Device.DEFAULT == "CPU"),
            place.progress,
            ThreadTeam(place.threads),
        )
    key = " ".join((str(manifest.id), place.versions, str(DEV.value), f"{pages} pages"))
    answering = ANSWERING if language.exact else ANSWERING[-1:]
    sizes = sorted({*answering, *language.reading})
    with place.progress.part(READ, ENDED):
        cache = GraphCache(place, f"{key} {language.kinds_key}")
        layers = cache.collect(sizes, language.capture_layers)
    with place.progress.part(ENDED, 1.0):
        ends = GraphCache(place, f"{key} ending").collect(
            answering if model.here.begins else (), language.capture_ending
        )
    language.ready({rows: (*layers[rows], *ends.get(rows, ())) for rows in sizes})
    if table is None:
        return LayerStage(language, sizes)
    return LoadedLanguageModel(manifest, table, language, sizes, place)


def _context_of(manifest: Manifest) -> int:
    """What the manifest says: the context decides where an answer ends. It is 4,096 in old ones."""
    context = manifest.parameters.get("context")
    return context if type(context) is int and context > 0 else SLOT_TOKENS


def pages_of(model: GgufModel, place: WorkerDevice) -> int:
    """How many pages fit beside the weights; ModelRefused if not even a slot's do."""
    if not place.memory_bytes_max:
        return model.pages
    memory = model.memory(on_gpu=place.on_gpu)
    # Whole conversations' pages: graphs depend on how many there are, and are kept on disk.
    if slots := memory.slots(place.memory_bytes_max):
        return slots * model.least_pages
    engine = "" if place.on_gpu else f", of which {BESIDES_BYTES >> 20} MiB are the engine's"
    raise ModelRefused(
        f"{model.name} needs {memory.least_bytes >> 20} MiB of memory{engine};"
        f" it may use {place.memory_bytes_max >> 20} MiB"
        + (f": {place.memory_words}" if place.memory_words else ""),
        todo="end other programs that use the GPU, or choose a smaller model"
        if place.memory_words
        else "allow more memory, or choose a smaller model",
    )
