"""The inference role: runs models that are loaded here, on input that may be at other peers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np

from node.engines.answer_lengths import UNITS_LEAST, AnswerLengths
from node.engines.interface import LOADING_RETRY_S, Engine, Job, Loaded, loading_words
from node.engines.proving.interface import Proofs, ProvableModel
from node.serving.fair_queue import FairQueue
from node.serving.nearest import IndexCache, LoadedIndex
from node.serving.queue_slot import QueuedJob, QueueSlot
from node.serving.role import Done, Emit, LegInput, LegWork
from node.task.levels import is_provable, proves
from node.task.units import streamed_max, units_of
from p2p.blobs import Blobs
from p2p.gather import gather
from p2p.timeouts import stretched
from wire import limits, operations
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Malformed, Missing, Refused, WireError
from wire.kinds import RefusalCode
from wire.operations import GENERATE, OPERATIONS
from wire.payload import Passages, QueryText, Question, Texts, Vectors
from wire.task import Stage

# The peer with a passage may be dead, and then the asker needs the time for another peer.
PASSAGE_S_MAX = 20.0
# A leg that takes longer is done by itself: it may be given up while the engine works on it.
SHARED_S_MAX = 0.1


@dataclass(slots=True)
class InferRole:
    """Answers the operations of models for those that its engine has loaded."""

    engine: Engine
    blobs: Blobs
    indexes: IndexCache
    # Makes proofs with the outputs of small models; None where this peer does not.
    proofs: Proofs | None = None
    lengths: AnswerLengths = field(default_factory=AnswerLengths)
    fair_queue: FairQueue = field(init=False)

    def __post_init__(self) -> None:
        self.fair_queue = FairQueue(self.engine)

    def quote(self, work: LegWork) -> float:
        return self.fair_queue.quote(self._wanted(work), work.by)

    def admit(self, work: LegWork) -> QueueSlot:
        return self.fair_queue.enqueue(self._wanted(work), work.by)

    def dequeue(self, place: QueueSlot) -> None:
        self.fair_queue.dequeue(place)

    def _wanted(self, work: LegWork) -> QueuedJob:
        loaded = self.check_able(work.stage)
        if proves(work.stage):
            self.prover_of(loaded)
        wanted = self._queued(work.stage, work.asker, work.units, work.left_s, loaded)
        return replace(wanted, lane=work.lane) if work.lane else wanted

    def _queued(
        self, stage: Stage, asker: PeerId, units: int, left_s: float, loaded: Loaded | None
    ) -> QueuedJob:
        """A leg for the queue; an answer counts with its expected length, not its maximum."""
        assert stage.model is not None
        if stage.operation != GENERATE:
            return self.fair_queue.wanted(asker, loaded, units, left_s)
        context = loaded.manifest.parameters.get("context") if loaded is not None else None
        most = min(units, context) if type(context) is int else units
        return self.fair_queue.wanted(
            asker,
            loaded,
            self.lengths.expected(stage.model, most),
            left_s,
            units_least=min(most, UNITS_LEAST),
        )

    def check_able(self, stage: Stage) -> Loaded:
        """The stage's model; Refused unless it is loaded here and does what is asked of it."""
        assert stage.model is not None
        loaded = self.engine.ready(stage.model)
        if loaded is None:
            share = self.engine.statistics().loading.get(stage.model)
            if share is not None:
                raise Refused(
                    f"the model {stage.model.short} is {loading_words(share)} here",
                    code=RefusalCode.LOADING,
                    retry_after_s=LOADING_RETRY_S,
                )
            raise Refused(
                f"the model {stage.model.short} is not loaded here", code=RefusalCode.NO_SUCH_MODEL
            )
        if loaded.middle is not None:
            raise Refused(
                f"of the model {loaded.manifest.name} only {loaded.middle} are here",
                code=RefusalCode.NO_SUCH_MODEL,
            )
        operation, able = OPERATIONS.get(stage.operation), loaded.manifest.operations
        if operation is None or operation.engine not in able:
            known = sorted(it.name for it in OPERATIONS.values() if it.engine in able)
            raise Refused(
                f"{loaded.manifest.name} does not do {stage.operation!r}, only {', '.join(known)}",
                code=RefusalCode.UNSUPPORTED,
            )
        return loaded

    def prover_of(self, loaded: Loaded) -> Proofs:
        """What makes and checks proofs of this model; Refused, in words, if nothing does here."""
        why = "this peer makes no proofs" if self.proofs is None else self.proofs.refusal()
        if not is_provable(loaded.manifest):
            most = limits.PROOF_MODEL_BYTES_MAX >> 10
            why = f"{loaded.manifest.name} is no ONNX model of up to {most} KiB"
        if why or self.proofs is None:
            raise Refused(f"no proof is made or checked here: {why}", code=RefusalCode.UNSUPPORTED)
        return self.proofs

    async def provable(self, loaded: Loaded) -> ProvableModel:
        """The file of a model that is loaded here; StoreError if it is gone."""
        (file,) = loaded.manifest.files
        data = await self.blobs.store.get(file.content, size_bytes_max=limits.PROOF_MODEL_BYTES_MAX)
        return ProvableModel(loaded.manifest.name, file.content, data)

    async def prepare_proofs(self, loaded: Loaded) -> None:
        """Have the key of a model made that was loaded, so that who asks first does not wait."""
        with suppress(BatonError):
            await self.prover_of(loaded).prepare(await self.provable(loaded))

    async def _prove(self, stage: Stage, source: LegInput, data: bytes) -> Done:
        """The output of a call with its proof, which is made beside the engine, not in it."""
        if source.place is not None:
            self.fair_queue.dequeue(source.place)
        loaded = self.check_able(stage)
        proofs = self.prover_of(loaded)
        output = await proofs.prove(await self.provable(loaded), data, source.deadline_s)
        return Done(data=output, units=1, profile=proofs.system)

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        if source.data is None:
            raise Refused("an inference has an input", code=RefusalCode.MALFORMED)
        with _input_of(stage):
            if proves(stage):
                return await self._prove(stage, source, source.data)
            return await self._do(stage, source, source.data, emit)

    async def bring_index(self, stage: Stage, source: LegInput) -> None:
        """Load the index of a question, so that `do` waits for no other peer."""
        assert source.data is not None
        with _input_of(stage):
            await self._index(stage, Question.from_bytes(source.data), source, None)

    async def _do(self, stage: Stage, source: LegInput, data: bytes, emit: Emit) -> Done:
        match stage.operation:
            case operations.EMBED_PASSAGES:
                texts = await self.texts_of(Passages.from_bytes(data), source)
                done = await self._engine(stage, texts.to_bytes(), source, None)
                # The texts are kept with the leg, for verifiers to read if the data peer is gone.
                return replace(done, blobs=tuple(it.encode() for it in dict.fromkeys(texts.texts)))
            case operations.NEAREST:
                return await self._nearest(stage, Question.from_bytes(data), source)
            case operations.EMBED:
                # The input is checked here, so that bad input is not an error of the engine.
                Texts.from_bytes(data)
                return await self._engine(stage, data, source, None)
            case operations.RERANK:
                for text in Texts.from_bytes(data).texts:
                    QueryText.from_text(text)
                return await self._engine(stage, data, source, None)
            case _:
                return await self._engine(stage, data, source, emit)

    async def _engine(self, stage: Stage, data: bytes, source: LegInput, emit: Emit | None) -> Done:
        assert stage.model is not None
        operation = OPERATIONS.get(stage.operation)
        if operation is None or operation.engine is None:
            raise Refused(f"no model does {stage.operation!r}", code=RefusalCode.UNSUPPORTED)
        job = Job(
            model=stage.model,
            operation=operation.engine,
            input=data,
            parameters=stage.parameters,
            deadline_s=source.deadline_s,
            resume=source.resume if emit is not None else None,
        )
        loaded = self.engine.ready(stage.model)
        if source.place is None:
            output = await self.engine.infer(job, emit)
        else:
            # The input is here now, so its size is counted and not only claimed.
            done = stage
            if stage.operation != operation.engine:
                done = replace(stage, operation=operation.engine)
            units = units_of(done, data)
            wanted = self._queued(stage, source.place.asker, units, source.deadline_s, loaded)
            try:
                await self.fair_queue.turn(source.place, wanted)
                output = await self.engine.infer(job, emit)
            finally:
                self.fair_queue.dequeue(source.place)
        if stage.operation == GENERATE:
            self.lengths.learn(stage.model, output.units)
        profile = loaded.profile if loaded is not None else ""
        return Done(data=output.data, units=output.units, profile=profile, layers=output.layers)

    def shares(self, stage: Stage, cost_s: float) -> bool:
        """Whether a leg is small, needs nothing but its input, and may be done with others.

        Its output is not streamed, or is one piece.
        """
        operation = OPERATIONS.get(stage.operation)
        direct = operation is not None and operation.engine == stage.operation
        direct = direct and not proves(stage)
        return direct and 0.0 < cost_s <= SHARED_S_MAX and streamed_max(stage) <= 1

    def cost_s(self, stage: Stage, data: bytes, asker: PeerId) -> float:
        """The share of the engine's time that a leg takes; 0 where its speed is not known."""
        assert stage.model is not None
        loaded = self.engine.ready(stage.model)
        return self._queued(stage, asker, units_of(stage, data), math.inf, loaded).cost_s

    async def do_many(self, works: Sequence[tuple[Stage, LegInput]]) -> list[Done | BatonError]:
        """Do legs whose turn it is, of one model and operation; what came of each, in order."""
        stage, _ = works[0]
        assert stage.model is not None
        loaded = self.engine.ready(stage.model)
        profile = loaded.profile if loaded is not None else ""
        found = await self.engine.infer_many([_job(of, source) for of, source in works])
        done: list[Done | BatonError] = []
        for output in found:
            if isinstance(output, WireError):
                done.append(_malformed(stage, output))
            elif isinstance(output, BatonError):
                done.append(output)
            else:
                if stage.operation == GENERATE:
                    self.lengths.learn(stage.model, output.units)
                done.append(Done(data=output.data, units=output.units, profile=profile))
        return done

    async def texts_of(self, passages: Passages, source: LegInput) -> Texts:
        """The passages' texts, fetched from the peers that have them."""
        texts: dict[ContentId, str] = {}

        async def fetch(passage: ContentId) -> None:
            data = await self.blobs.get(
                passage,
                source.holders,
                deadline_s=min(source.deadline_s, stretched(PASSAGE_S_MAX)),
                size_bytes_max=limits.PASSAGE_BYTES_MAX,
            )
            try:
                texts[passage] = data.decode()
            except UnicodeDecodeError as error:
                raise Malformed(f"passage {passage.short} is not UTF-8") from error

        await gather(fetch, dict.fromkeys(passages.passages))
        return Texts(texts=tuple(texts[it] for it in passages.passages))

    async def _nearest(self, stage: Stage, question: Question, source: LegInput) -> Done:
        texts = Texts(texts=(question.text,)).to_bytes()
        embedded = await self._engine(stage, texts, source, None)
        vector = np.frombuffer(Vectors.from_bytes(embedded.data).data, "<f4")
        index = await self._index(stage, question, source, len(vector))
        hits = await index.nearest(vector, question.count)
        return Done(data=hits.to_bytes(), units=1, profile=embedded.profile)

    async def _index(
        self, stage: Stage, question: Question, source: LegInput, dimensions: int | None
    ) -> LoadedIndex:
        assert stage.model is not None
        try:
            return await self.indexes.get(question.index, stage.model, dimensions, source)
        except Missing as error:
            raise Refused(
                f"the index {question.index.short} cannot be fetched: {error}",
                code=RefusalCode.NOT_FOUND,
            ) from error


@contextmanager
def _input_of(stage: Stage) -> Iterator[None]:
    """Turn a WireError within this block into a refusal: the asker's input is malformed."""
    try:
        yield
    except WireError as error:
        raise _malformed(stage, error) from error


def _malformed(stage: Stage, error: WireError) -> Refused:
    return Refused(
        f"the input of {stage.operation} cannot be read: {error}", code=RefusalCode.MALFORMED
    )


def _job(stage: Stage, source: LegInput) -> Job:
    assert stage.model is not None
    assert source.data is not None
    return Job(
        model=stage.model,
        operation=stage.operation,
        input=source.data,
        parameters=stage.parameters,
        deadline_s=source.deadline_s,
    )
