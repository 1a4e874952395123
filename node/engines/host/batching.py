"""The engine's queue of texts: which of them are offered to the worker next.

Jobs take turns, text by text, so one short job is not stuck behind a long one. An offer is a
little more than one pass can take; what did not fit comes back and is offered again. The queue is
bounded in jobs and refuses aloud. It does no IO and never waits.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engines.host.pending import PendingJob, fail_all
from node.engines.interface import OFFER_TEXTS_MAX
from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, EngineError, Refused

OFFER_BYTES_MAX = limits.FRAME_BYTES_MAX // 2
# English has four to five letters to a token; a guess too low only offers too much.
LETTERS_PER_TOKEN = 5
MARKS_PER_TEXT = 2
# Offered beyond a full pass, since lengths in tokens are guessed here.
OFFER_SHARE = 1.25

# Any one text can be offered, whatever else is known about it.
assert limits.TEXT_BYTES_MAX < OFFER_BYTES_MAX


@dataclass(slots=True, eq=False, kw_only=True)
class EmbeddingJob(PendingJob):
    """One job in the queue: its texts, and the rows done so far."""

    texts: tuple[str, ...]
    rows: list[bytes | None]
    waiting: deque[int]
    # What the worker is given in place of a text: its tokens, or a query and a text.
    in_parts: tuple[list[int] | list[str], ...] = ()
    # How many tokens each text was.
    tokens: list[int] = field(default_factory=list)

    def fail(self, error: BatonError) -> None:
        """End the job with this error; its texts are not offered any more."""
        self.waiting.clear()
        PendingJob.fail(self, error)


@dataclass(frozen=True, slots=True)
class BatchOffer:
    """Texts for one pass of one model: which text of which ticket, in order."""

    model: ContentId
    items: tuple[tuple[EmbeddingJob, int], ...]

    @property
    def texts(self) -> list[str | list[int] | list[str]]:
        return [
            pending.in_parts[number] if pending.in_parts else pending.texts[number]
            for pending, number in self.items
        ]


class Queue:
    """At most `jobs_max` tickets; those that ended stay until they are dropped."""

    def __init__(self, jobs_max: int) -> None:
        self.jobs_max = jobs_max
        self._pending_jobs: deque[EmbeddingJob] = deque()

    def __len__(self) -> int:
        return len(self._pending_jobs)

    @property
    def units(self) -> int:
        """Texts that have no vector yet."""
        return sum(t.rows.count(None) for t in self._pending_jobs if not t.ended.is_set())

    @property
    def ready(self) -> bool:
        """Whether there is anything to offer."""
        return any(pending.waiting for pending in self._pending_jobs)

    def put(
        self,
        model: ContentId,
        texts: tuple[str, ...],
        retry_after_s: float,
        in_parts: tuple[list[int] | list[str], ...] = (),
    ) -> EmbeddingJob:
        """A ticket for a job; Refused when the queue is full."""
        if len(self._pending_jobs) >= self.jobs_max:
            raise Refused(
                f"the engine's queue is full ({self.jobs_max} jobs)", retry_after_s=retry_after_s
            )
        pending = EmbeddingJob(
            model=model,
            texts=texts,
            rows=[None] * len(texts),
            waiting=deque(range(len(texts))),
            in_parts=in_parts,
            tokens=[0] * len(texts),
        )
        self._pending_jobs.append(pending)
        return pending

    def drop(self, pending: EmbeddingJob) -> None:
        """Forget a ticket: it has its answer, or nobody waits for it any more."""
        if pending in self._pending_jobs:
            self._pending_jobs.remove(pending)
        pending.waiting.clear()

    def offer(self, tokens: int) -> BatchOffer | None:
        """The next texts for one pass of about `tokens` tokens; None when nothing waits.

        All of one model. A job that was there when a worker died is offered by itself, so that
        it takes nobody with it a second time.
        """
        first = next((pending for pending in self._pending_jobs if pending.waiting), None)
        if first is None:
            return None
        sharing = [
            pending
            for pending in self._pending_jobs
            if pending is first or (not first.tries and not pending.tries)
            if pending.waiting and pending.model == first.model
        ]
        items: list[tuple[EmbeddingJob, int]] = []
        left, left_bytes = tokens * OFFER_SHARE, OFFER_BYTES_MAX
        while sharing and left > 0 and len(items) < OFFER_TEXTS_MAX:
            pending = sharing.pop(0)
            size = len(pending.texts[pending.waiting[0]].encode())
            if size > left_bytes:
                break
            items.append((pending, pending.waiting.popleft()))
            left -= min(tokens, MARKS_PER_TEXT + size / LETTERS_PER_TOKEN)
            left_bytes -= size
            if pending.waiting:
                sharing.append(pending)
        # The next offer begins with somebody else.
        self._pending_jobs.remove(first)
        self._pending_jobs.append(first)
        return BatchOffer(first.model, tuple(items))

    def settle(self, offer: BatchOffer, done: Sequence[int], rows: Sequence[bytes]) -> int:
        """Take in the rows of an offer, and put back what was not done; how many were wanted."""
        wanted = 0
        for place, row in zip(done, rows, strict=True):
            pending, number = offer.items[place]
            pending.tries = 0
            pending.rows[number] = row
            wanted += not pending.ended.is_set()
            if None not in pending.rows:
                pending.ended.set()
        undone = set(range(len(offer.items))) - set(done)
        self._put_back([offer.items[place] for place in sorted(undone)])
        return wanted

    def give_back(self, offer: BatchOffer, error: EngineError) -> int:
        """An offer came to nothing: it is tried once more, then its jobs fail with the reason.

        How many failed, or were dropped meanwhile.
        """
        ended = 0
        for pending in {pending for pending, _ in offer.items}:
            pending.came_to_nothing(error)
            ended += pending.failure is not None or pending not in self._pending_jobs
        self._put_back(list(offer.items))
        return ended

    def fail(self, model: ContentId, kind: type[BatonError], message: str) -> None:
        """End every job of a model."""
        fail_all(self._pending_jobs, model, kind, message)

    def _put_back(self, items: list[tuple[EmbeddingJob, int]]) -> None:
        for pending, number in reversed(items):
            # A ticket that was dropped or has failed is not worked on any more.
            if pending in self._pending_jobs and not pending.ended.is_set():
                pending.waiting.appendleft(number)
