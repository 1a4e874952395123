"""Each peer's log of its receipts: shown to who has one, and two logs of one peer convict it."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.log_watch import LogWatch
from node.checking.audit import audit
from node.checking.audit_log import log_of
from node.checking.report import AuditReport, ReceiptPart, Status
from node.commands.verify_fork import is_fork, verify_fork
from node.local.bundles import export_receipt, open_bundle
from node.peer import Node
from node.serving.receipt_log import ReceiptLog
from p2p.score import Standing
from store import Row, Table, Write, open_memory_store
from tests.node.asking import asked, request, texts_of
from tests.node.network import I, open_network
from tests.p2p.transports import key_of
from wire.content import ContentId, PeerId
from wire.errors import InputError, Refused, TransportError
from wire.kinds import Level
from wire.log import AskPlace, LogHead, LogNews, LogPlace, contradiction
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed


async def answers_of(asker: Node, count: int, word: str = "text") -> list[Signed[Answer]]:
    found = []
    for number in range(count):
        answered, _ = await asked(
            asker, request(data=texts_of(f"{word} {number}"), level=Level.SIGNED)
        )
        found.append(answered.answer)
    return found


def receipt_of(answer: Signed[Answer]) -> Signed[Receipt]:
    return open_signed(answer.record.receipts[-1], Receipt)


def log_part(answer: Signed[Answer], places: bytes | None) -> tuple[AuditReport, Status, str]:
    report = audit(answer.raw, lambda _: None, check_log=log_of(places))
    found = report.of_part(ReceiptPart.LOG)
    return report, found.status, found.why


async def test_a_receipt_is_shown_in_its_signers_log(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(I)
        asker = await network.start()
        await network.settled()
        answers = await answers_of(asker, 5)
        assert worker.leg_server.finishing.log.size == 5
        # Nobody asked for a head, so none was signed.
        assert worker.leg_server.finishing.log._latest is None
        for number, answer in enumerate(answers):
            places = await asker.log_watch.places_of([receipt_of(answer)])
            _, status, why = log_part(answer, places)
            assert (status, why) == (Status.HOLDS, "")
            assert places is not None
            other = answers[number - 1]
            assert log_part(other, places)[1] is Status.FAILS
        assert log_part(answers[0], None)[1] is Status.UNKNOWN
        # One signature for all of them.
        assert worker.leg_server.finishing.log._latest is not None
        assert worker.leg_server.finishing.log._latest.record.number == 1


async def test_a_place_that_is_altered_in_any_byte_does_not_hold(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(I)
        asker = await network.start()
        await network.settled()
        answer = (await answers_of(asker, 3))[1]
        places = await asker.log_watch.places_of([receipt_of(answer)])
        assert places is not None
        for at in range(len(places)):
            altered = places[:at] + bytes((places[at] ^ 1,)) + places[at + 1 :]
            assert log_part(answer, altered)[1] is not Status.HOLDS, at


async def test_a_bundle_has_the_place_and_so_does_a_file_beside(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(I)
        asker = await network.start()
        await network.settled()
        (answer,) = await answers_of(asker, 1)
        store, places_of = asker.dependencies.store, asker.log_watch.places_of
        path = tmp_path / "one.car"
        told = await export_receipt(store, answer.id, path, places_of=places_of)
        assert told["log"]
        assert log_part(answer, open_bundle(path).log)[1] is Status.HOLDS
        await export_receipt(store, answer.id, tmp_path / "one.receipt", places_of=places_of)
        assert log_part(answer, (tmp_path / "one.log").read_bytes())[1] is Status.HOLDS


async def test_a_receipt_since_the_last_head_is_shown_after_the_next(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(I)
        asker = await network.start()
        await network.settled()
        (first,) = await answers_of(asker, 1, "first")
        assert await asker.log_watch.place_of(receipt_of(first)) is not None
        (second,) = await answers_of(asker, 1, "second")
        assert await asker.log_watch.place_of(receipt_of(second)) is not None
        assert [it.record.number for it in worker.leg_server.finishing.log.heads(1)] == [1, 2]
        assert not asker.log_watch.role.book.forks


async def test_the_log_goes_on_after_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        asker = await network.start()
        worker = await network.start(I, store=store, number=5)
        await network.settled()
        before = await answers_of(asker, 3, "before")
        assert await asker.log_watch.place_of(receipt_of(before[0])) is not None
        network.kill(worker)
        worker = await network.start(I, store=store, number=5)
        await network.settled()
        after = await answers_of(asker, 3, "after")
        for answer in (*before, *after):
            assert await asker.log_watch.place_of(receipt_of(answer)) is not None
        one, two = worker.leg_server.finishing.log.heads(1)
        assert two.record.previous == one.record.digest
        assert (one.record.size, two.record.size) == (3, 6)
        assert contradiction(one, two) is None
        assert not asker.log_watch.role.book.forks


async def test_a_folder_put_back_from_a_copy_convicts_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        asker = await network.start()
        worker = await network.start(I, store=store, number=5)
        await network.settled()
        (first,) = await answers_of(asker, 1, "first")
        assert await asker.log_watch.place_of(receipt_of(first)) is not None
        copied = dict(store.scan(Table.LOG, limit=1000))
        await trio.sleep(10)
        (second,) = await answers_of(asker, 1, "second")
        assert await asker.log_watch.place_of(receipt_of(second)) is not None
        network.kill(worker)
        rows = [
            Row(Table.LOG, key, copied.get(key)) for key, _ in store.scan(Table.LOG, limit=1000)
        ]
        await store.commit(Write(rows=tuple(rows)))
        for word in ("third", "fourth"):
            # The second start finds the new log, and goes on in it.
            worker = await network.start(I, store=store, number=5)
            await network.settled()
            await trio.sleep(40)
            (answer,) = await answers_of(asker, 1, word)
            place = await asker.log_watch.place_of(receipt_of(answer))
            assert place is not None
            network.kill(worker)
        head = open_signed(place.head, LogHead).record
        assert (head.number, head.size) == (2, 2)
        assert not asker.log_watch.role.book.forks
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD


async def test_who_shows_two_logs_is_found_and_the_proof_stands_alone(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as other:
        liar = await network.start(I)
        one = await network.start()
        two = await network.start()
        await network.settled()
        # Both see a head with the number 1, of logs with other receipts in them.
        (shown_one,) = await answers_of(one, 1, "one")
        log = liar.leg_server.finishing.log
        hidden = ReceiptLog(log.key, other, log.wall_s)
        first = receipt_of(shown_one)
        assert await one.log_watch.place_of(first) is not None
        began_at_ms = log.heads(1)[0].record.began_at_ms
        hidden.wall_s = lambda: began_at_ms / 1000
        hidden.committed(hidden.grown([ContentId.of(b"another receipt")])[0])
        liar.log_watch.role.log = hidden
        head = await hidden.head()
        assert head is not None
        await two.log_watch.role.take(LogNews(heads=(head.raw,), forks=()))
        assert two.peers.standing(liar.peers.me) is Standing.GOOD
        # They meet.
        await two.log_watch.swap_with(one.peers.me)
        await trio.sleep(1)
        for asker in (one, two):
            assert set(asker.log_watch.role.book.forks) == {liar.peers.me}
            assert asker.peers.standing(liar.peers.me) is Standing.BANNED
            (file,) = (asker.config.state / "receipts").glob("*.fork")
            assert is_fork(file)
            verify_fork(file, as_json=False)
            assert str(liar.peers.me) in capsys.readouterr().out
        raw = file.read_bytes()
        for at in range(0, len(raw), 7):
            file.write_bytes(raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :])
            with pytest.raises(InputError):
                verify_fork(file, as_json=False)


async def test_a_head_that_does_not_follow_on_the_one_before_convicts(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as other:
        liar = await network.start(I)
        asker = await network.start()
        await network.settled()
        (shown,) = await answers_of(asker, 1)
        assert await asker.log_watch.place_of(receipt_of(shown)) is not None
        log = liar.leg_server.finishing.log
        began_at_ms = log.heads(1)[0].record.began_at_ms
        # A log with another past, of which the asker saw no head with the same number.
        hidden = ReceiptLog(log.key, other, lambda: began_at_ms / 1000)
        ids = [ContentId.of(b"past"), receipt_of(shown).id, ContentId.of(b"more")]
        for one in ids:
            edge, rows = hidden.grown([one])
            await other.commit(Write(rows=tuple(rows)))
            hidden.committed(edge)
            assert await hidden.head() is not None
            await trio.sleep(10)
        liar.log_watch.role.log = hidden
        assert await asker.log_watch.place_of(receipt_of(shown)) is not None
        assert set(asker.log_watch.role.book.forks) == {liar.peers.me}


async def test_it_answers_strangers_within_bounds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(I)
        asker = await network.start()
        await network.settled()
        (answer,) = await answers_of(asker, 1)
        mine = receipt_of(answer)
        async with network.outsider() as stranger:
            me = worker.peers.me
            async with stranger.peers.call(me, deadline_s=20) as call:
                await call.send(AskPlace(receipt=mine.raw))
                assert isinstance(await call.expect(LogPlace), LogPlace)
            # What is no receipt of its costs the stranger its stream, or is refused.
            async with stranger.peers.call(asker.peers.me, deadline_s=20) as call:
                await call.send(AskPlace(receipt=mine.raw))
                with pytest.raises(Refused):
                    await call.expect(LogPlace)
            async with stranger.peers.call(me, deadline_s=20) as call:
                await call.send(AskPlace(receipt=b"no receipt"))
                with pytest.raises(TransportError):
                    await call.expect(LogPlace)
            # Garbage in news is passed over; the next news come too soon.
            await trio.sleep(1)
            for expected in (None, Refused):
                async with stranger.peers.call(me, deadline_s=20) as call:
                    await call.send(LogNews(heads=(b"no head",), forks=(b"no fork",)))
                    if expected is None:
                        assert len((await call.expect(LogNews)).heads) == 1
                    else:
                        with pytest.raises(Refused):
                            await call.expect(LogNews)


async def test_an_old_head_of_a_clock_that_was_ahead_ends_one_log_at_most(
    autojump_clock: MockClock,
) -> None:
    """Who kept it tells it again and again; every log that begins after it stays."""
    now_s, key = 1_800_000_000.0, key_of("honest")

    async def grows(log: ReceiptLog, name: bytes) -> Signed[LogHead]:
        edge, rows = log.grown([ContentId.of(name)])
        await log.store.commit(Write(rows=tuple(rows)))
        log.committed(edge)
        await trio.sleep(10)
        head = await log.head()
        assert head is not None
        return head

    async with open_memory_store(quota_bytes=1 << 30) as lost:
        old = await grows(ReceiptLog(key, lost, lambda: now_s + 86_400), b"old")
    async with open_memory_store(quota_bytes=1 << 30) as store:
        log = ReceiptLog(key, store, lambda: now_s)
        await grows(log, b"first")
        assert await log.heard_own(old)
        began = (await grows(log, b"second")).record.began_at_ms
        for number in range(3):
            assert not await log.heard_own(old)
            head = await grows(log, b"%d" % number)
            assert (head.record.began_at_ms, head.record.number) == (began, number + 2)


async def test_a_restored_peer_asks_others_than_those_with_the_lowest_keys(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are ground until they are the lowest: each start asks whom it draws."""
    async with open_network(tmp_path) as network:
        node = await network.start(I)
        for _ in range(5):
            await network.start()
        await network.settled()
        asked_each, watch = set(), node.log_watch

        async def swap(self: LogWatch, peer: PeerId) -> bool:
            asked_each.add(peer)
            return True

        monkeypatch.setattr(LogWatch, "swap_with", swap)
        for _ in range(12):
            node.leg_server.finishing.log._unsure = True
            await watch.make_sure()
        assert len(asked_each) == 5
