"""Answers about logs: where a receipt of this peer is in its own, its heads, others' heads."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from node.serving.log_book import LogBook
from node.serving.receipt_log import ReceiptLog
from p2p.peer_rpc import Handler
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.content import PeerId
from wire.counting import counted
from wire.errors import Refused, StoreError, WireError
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.log import AskHeads, AskPlace, LogFork, LogHead, LogNews
from wire.message import Message
from wire.receipt import Receipt
from wire.signed import Envelope, Signed, open_signed, sign

PLACES_AT_ONCE = 4
PLACES_PER_ASKER = 1
# News cost a signature for each head that is new: they are read at most so often.
NEWS_GAP_S = 0.5
# One peer that has news all the time leaves room for the others.
NEWS_GAP_EACH_S = 30.0
TELLERS_KEPT = 1024


@dataclass(slots=True)
class LogRole:
    """Answers for this peer's log; `on_fork` hears of a fork that somebody's news prove."""

    log: ReceiptLog
    book: LogBook
    on_fork: Callable[[LogFork], None] = lambda _fork: None
    # Hears that this peer's folder has lost a part of its log.
    on_lost: Callable[[], None] = lambda: None
    _under_way: Counter[PeerId] = field(default_factory=Counter)
    _news_at_s: float | None = None
    # When each of those that told news last was heard.
    _heard_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(TELLERS_KEPT))

    def handlers(self) -> dict[type[Message], Handler]:
        """What answers each message."""
        return {
            AskPlace: self.on_ask_place,
            AskHeads: self.on_ask_heads,
            LogNews: self.on_news,
        }

    async def on_ask_place(self, call: TypedCall, message: Message) -> None:
        """Show where a receipt of this peer is in its log."""
        assert isinstance(message, AskPlace)
        receipt = open_signed(message.receipt, Receipt)
        try:
            if receipt.signer != self.log.key.peer:
                raise Refused("this receipt is another peer's", code=RefusalCode.NOT_FOUND)
            busy = self._under_way.total() >= PLACES_AT_ONCE
            if busy or self._under_way[call.peer] >= PLACES_PER_ASKER:
                raise Refused("this peer is looking for other receipts", retry_after_s=0.5)
            with counted(self._under_way, call.peer):
                place = await self.log.place(receipt.id)
        except (Refused, StoreError) as error:
            await call.send(refusal_of(error))
            return
        await call.send(place)

    async def on_ask_heads(self, call: TypedCall, message: Message) -> None:
        """Show the heads of this peer's log from a number on."""
        assert isinstance(message, AskHeads)
        heads = self.log.heads(message.number)
        await call.send(LogNews(heads=tuple(it.raw for it in heads), forks=()))

    async def on_news(self, call: TypedCall, message: Message) -> None:
        """Hear heads and forks, and tell those that are known here."""
        assert isinstance(message, LogNews)
        now_at_s = trio.current_time()
        heard_at_s = self._heard_at_s.get(call.peer)
        if heard_at_s is not None and now_at_s < heard_at_s + NEWS_GAP_EACH_S:
            refused = Refused("your news were heard just now", retry_after_s=NEWS_GAP_EACH_S)
            await call.send(refusal_of(refused))
            return
        if self._news_at_s is not None and now_at_s < self._news_at_s + NEWS_GAP_S:
            refused = Refused("this peer has heard news just now", retry_after_s=NEWS_GAP_S)
            await call.send(refusal_of(refused))
            return
        self._news_at_s = self._heard_at_s[call.peer] = now_at_s
        try:
            told = await self.news(call.peer)
        except StoreError as error:
            await call.send(refusal_of(error))
            return
        await self.take(message)
        await call.send(told)

    async def news(self, hearer: PeerId) -> LogNews:
        """What this peer has to tell: its own head and the latest that it heard of, and forks.

        The hearer's own comes before the others: it may have lost it.
        """
        own = await self.log.head()
        known = list(self.book.heads.values())[::-1]
        known.sort(key=lambda it: it.signer != hearer)
        others = [it.raw for it in known]
        heads = ([] if own is None else [own.raw]) + others
        latest = list(self.book.forks.values())[: -limits.LOG_FORKS_PER_MESSAGE_MAX - 1 : -1]
        forks = [sign(it, self.log.key).raw for it in latest]
        return LogNews(
            heads=tuple(heads[: limits.LOG_HEADS_PER_MESSAGE_MAX]),
            forks=tuple(forks),
        )

    async def take(self, news: LogNews) -> None:
        """Take in what another peer knows."""
        now_ms = int(self.log.wall_s() * 1000)
        others = []
        for raw in news.heads:
            with suppress(WireError):
                if Envelope.read(raw, LogHead).signer != self.log.key.peer:
                    others.append(raw)
                elif await self.log.heard_own(open_signed(raw, LogHead)):
                    self.on_lost()
        for fork in self.book.hear_all(others, now_ms):
            self.on_fork(fork)
        for raw in news.forks:
            try:
                told: Signed[LogFork] = open_signed(raw, LogFork)
            except WireError:
                continue
            self.on_fork(told.record)
