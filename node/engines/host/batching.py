"""The engine's queue as a pure core: which texts are offered to the worker next.

Jobs take turns, text by text, so one short job is not stuck behind a long one. An offer is a
little more than one pass can take; what did not fit comes back and is offered again. The queue is
bounded in jobs and refuses aloud. It does no IO and never waits.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, EngineError, Refused

# A pass takes at most this many texts (a quarter more is offered, see below).
OFFER_TEXTS_MAX = 64
OFFER_BYTES_MAX = limits.FRAME_BYTES_MAX // 2
# English has four to five letters to a token; a guess too low only offers too much.
LETTERS_PER_TOKEN = 5
MARKS_PER_TEXT = 2
# Offered beyond a full pass, since lengths in tokens are guessed here.
OFFER_SHARE = 1.25
# A batch that killed the worker is tried once more, each job by itself.
TRIES_MAX = 2

# Any one text can be offered, whatever else is known about it.
assert limits.TEXT_BYTES_MAX < OFFER_BYTES_MAX


@dataclass(slots=True, eq=False)
class Ticket:
    """One job in the queue: its texts, the rows done so far, and how it ended."""

    model: ContentId
    texts: tuple[str, ...]
    rows: list[bytes | None]
    waiting: deque[int]
    tries: int = 0
    failure: BatonError | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    def fail(self, error: BatonError) -> None:
        self.failure = error
        self.waiting.clear()
        self.ended.set()


@dataclass(frozen=True, slots=True)
class Offer:
    """Texts for one pass of one model: which text of which ticket, in order."""

    model: ContentId
    items: tuple[tuple[Ticket, int], ...]

    @property
    def texts(self) -> list[str]:
        return [ticket.texts[number] for ticket, number in self.items]


class Queue:
    """At most `jobs_max` tickets; those that ended stay until they are dropped."""

    def __init__(self, jobs_max: int) -> None:
        self.jobs_max = jobs_max
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def units(self) -> int:
        """Texts that have no vector yet."""
        return sum(t.rows.count(None) for t in self._tickets if not t.ended.is_set())

    @property
    def ready(self) -> bool:
        """Whether there is anything to offer."""
        return any(ticket.waiting for ticket in self._tickets)

    def put(self, model: ContentId, texts: tuple[str, ...], retry_after_s: float) -> Ticket:
        """A ticket for a job; Refused when the queue is full."""
        if len(self._tickets) >= self.jobs_max:
            raise Refused(
                f"the engine's queue is full ({self.jobs_max} jobs)", retry_after_s=retry_after_s
            )
        ticket = Ticket(model, texts, [None] * len(texts), deque(range(len(texts))))
        self._tickets.append(ticket)
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Forget a ticket: it has its answer, or nobody waits for it any more."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
        ticket.waiting.clear()

    def offer(self, tokens: int) -> Offer | None:
        """The next texts for one pass of about `tokens` tokens; None when nothing waits.

        All of one model. A job that was there when a worker died is offered by itself, so that
        it takes nobody with it a second time.
        """
        first = next((ticket for ticket in self._tickets if ticket.waiting), None)
        if first is None:
            return None
        sharing = [
            ticket
            for ticket in self._tickets
            if ticket is first or (not first.tries and not ticket.tries)
            if ticket.waiting and ticket.model == first.model
        ]
        items: list[tuple[Ticket, int]] = []
        left, left_bytes = tokens * OFFER_SHARE, OFFER_BYTES_MAX
        while sharing and left > 0 and len(items) < OFFER_TEXTS_MAX:
            ticket = sharing.pop(0)
            size = len(ticket.texts[ticket.waiting[0]].encode())
            if size > left_bytes:
                break
            items.append((ticket, ticket.waiting.popleft()))
            left -= min(tokens, MARKS_PER_TEXT + size / LETTERS_PER_TOKEN)
            left_bytes -= size
            if ticket.waiting:
                sharing.append(ticket)
        # The next offer begins with somebody else.
        self._tickets.remove(first)
        self._tickets.append(first)
        return Offer(first.model, tuple(items))

    def settle(self, offer: Offer, done: Sequence[int], rows: Sequence[bytes]) -> int:
        """Take in the rows of an offer, and put back what was not done; how many were wanted."""
        wanted = 0
        for place, row in zip(done, rows, strict=True):
            ticket, number = offer.items[place]
            ticket.tries = 0
            ticket.rows[number] = row
            wanted += not ticket.ended.is_set()
            if None not in ticket.rows:
                ticket.ended.set()
        undone = set(range(len(offer.items))) - set(done)
        self._put_back([offer.items[place] for place in sorted(undone)])
        return wanted

    def give_back(self, offer: Offer, error: EngineError) -> int:
        """An offer came to nothing: it is tried once more, then its jobs fail with the reason.

        How many failed, or were dropped meanwhile.
        """
        ended = 0
        for ticket in {ticket for ticket, _ in offer.items}:
            ticket.tries += 1
            if ticket.tries >= TRIES_MAX:
                ticket.fail(type(error)(error.message, todo=error.todo))
            ended += ticket.failure is not None or ticket not in self._tickets
        self._put_back(list(offer.items))
        return ended

    def fail(self, model: ContentId, kind: type[BatonError], message: str) -> None:
        """End every job of a model."""
        for ticket in self._tickets:
            if ticket.model == model and not ticket.ended.is_set():
                ticket.fail(kind(message))

    def _put_back(self, items: list[tuple[Ticket, int]]) -> None:
        for ticket, number in reversed(items):
            # A ticket that was dropped or has failed is not worked on any more.
            if ticket in self._tickets and not ticket.ended.is_set():
                ticket.waiting.appendleft(number)
