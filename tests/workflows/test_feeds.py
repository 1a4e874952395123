"""Feeds between peers: followed, checked, used by another workflow; forks are told and proved."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands.verify_entry import is_feed_fork, verify_entry, verify_feed_fork
from node.local.control import Command, unheard
from node.local.peer_workflows import open_peer_workflows
from node.peer import Node
from node.workflows import following
from node.workflows.entry_file import EntryFile
from node.workflows.feed_reading import EntriesForgotten, FeedName, doubled_slots, read_page
from store import Table
from tests.node.network import I, Network, S, open_network
from tests.workflows.test_with_peers import EMBED, POSTER
from wire.content import ContentId
from wire.errors import BadSignature, InputError, Malformed, WireError
from wire.feed import (
    FIRST_ENTRY,
    AskFeed,
    FeedEntry,
    FeedPage,
    FeedRecord,
    SlotSpan,
    contradiction_of_entries,
)
from wire.signed import Signed, sign
from wire.signing import SigningKey

KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
FEED = '[[to]]\nkind = "feed"\n'
SHOWN = f'every = "10s"\n[source]\ntext = "hello"\n{EMBED}{FEED}'
RECORD = FeedRecord(
    name="w",
    keepers=(KEY.peer,),
    schedule="every 10s",
    zone="UTC",
    definition=bytes(32),
    begun_at_ms=0,
)


def entry(number: int, previous: bytes = FIRST_ENTRY, **changes: Any) -> Signed[FeedEntry]:
    slot_ms = number * 10_000
    fields: dict[str, Any] = {
        "feed": RECORD.id,
        "number": number,
        "previous": previous,
        "epoch": 0,
        "end": "done",
        "span": SlotSpan(first_ms=slot_ms, last_ms=slot_ms, slots=1),
        "by_hand": False,
        "began_at_ms": slot_ms,
        "ended_at_ms": slot_ms,
        "tries": 1,
        "result": ContentId.of(b"result"),
        "answer": None,
        "fetches": (),
        "why": "",
    }
    key = changes.pop("key", KEY)
    return sign(FeedEntry(**(fields | changes)), key)


def chain(count: int) -> list[Signed[FeedEntry]]:
    found: list[Signed[FeedEntry]] = []
    for number in range(1, count + 1):
        found.append(entry(number, found[-1].record.digest if found else FIRST_ENTRY))
    return found


def page(*entries: Signed[FeedEntry], record: FeedRecord = RECORD) -> FeedPage:
    return FeedPage(record=record.to_bytes(), last=9, entries=tuple(it.raw for it in entries))


def test_a_page_is_read_if_all_of_it_goes_together() -> None:
    one, two, three = chain(3)
    assert read_page(RECORD.id, page(one, two, three), None, None).fresh == (one, two, three)
    assert read_page(RECORD.id, page(three), two, RECORD).fresh == (three,)
    # A keeper forgets its oldest entries.
    assert read_page(RECORD.id, page(two, three), None, None).fresh == (two, three)


def test_what_is_wrong_with_a_page_is_the_keepers_fault() -> None:
    one, two, three = chain(3)
    another = replace(RECORD, name="x")
    for bad, last in (
        (page(one, record=another), None),
        (page(entry(1, feed=another.id)), None),
        (page(entry(1, key=OTHER)), None),
        (page(three), one),
        (page(replace(one, raw=one.raw[:-1] + b"\0")), None),
        (FeedPage(record=b"x", last=1, entries=()), None),
        (FeedPage(record=RECORD.to_bytes(), last=1, entries=(b"x",)), None),
    ):
        with pytest.raises((Malformed, BadSignature, WireError)):
            read_page(RECORD.id, bad, last, RECORD)
    assert two


def test_a_page_that_begins_later_is_told_from_one_that_is_wrong() -> None:
    one, two, three = chain(3)
    with pytest.raises(EntriesForgotten):
        read_page(RECORD.id, page(three), one, RECORD)
    # Within a page nothing is left out, and none goes back.
    for bad, last in ((page(one, three), None), (page(one), two)):
        with pytest.raises(Malformed) as raised:
            read_page(RECORD.id, bad, last, RECORD)
        assert not isinstance(raised.value, EntriesForgotten)


def test_two_histories_convict_whoever_signed_both() -> None:
    one, two, _ = chain(3)
    other = entry(2, one.record.digest, why="other", end="failed", result=None)
    assert "number 2 that differ" in str(contradiction_of_entries(two, other))
    forked = entry(3, other.record.digest)
    assert "does not follow" in str(contradiction_of_entries(two, forked))
    assert read_page(RECORD.id, page(forked), two, RECORD).fork == (two, forked)
    assert contradiction_of_entries(one, two) is None
    assert contradiction_of_entries(two, two) is None
    # Another keeper, or another epoch, convicts nobody.
    assert contradiction_of_entries(two, entry(2, one.record.digest, key=OTHER, why="x")) is None
    assert contradiction_of_entries(two, entry(2, one.record.digest, epoch=1)) is None


def test_a_slot_with_two_results_is_named() -> None:
    one, two = (it.record for it in chain(2))
    again = replace(one, number=3, previous=two.digest)
    assert doubled_slots([one, two]) == []
    assert doubled_slots([one, two, again]) == [10_000]
    assert doubled_slots([one, two, replace(again, by_hand=True)]) == []


@asynccontextmanager
async def workflows(node: Node) -> AsyncIterator[dict[str, Command]]:
    async with open_peer_workflows(node, POSTER) as commands:
        yield commands


async def asked(commands: dict[str, Command], what: str, **given: Any) -> dict[str, Any]:
    return dict(await commands[f"workflows-{what}"](given, unheard))


async def peers(network: Network) -> tuple[Node, Node]:
    keeper, follower = await network.start(I, S), await network.start(S)
    await network.settled()
    return keeper, follower


async def test_a_feed_is_followed_checked_and_used_by_another_workflow(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_network(tmp_path) as network:
        keeper, follower = await peers(network)
        async with workflows(keeper) as theirs:
            added = await asked(theirs, "add", name="w", text=SHOWN)
            await trio.sleep(25)
            async with workflows(follower) as ours:
                followed = await asked(ours, "follow", feed=added["feed"])
                assert (followed["name"], followed["entries"]) == ("w", 2)
                await trio.sleep(31)
                mine = await asked(ours, "history", name=added["feed"])
                own = await asked(theirs, "history", name="w")
                assert mine["entries"] == own["entries"]
                assert len(mine["entries"]) == 5
                # What it gives is the source of a workflow here.
                text = f'every = "1h"\n[source]\nfeed = "{added["feed"]}"\n'
                await asked(ours, "add", name="next", text=text)
                ran = await asked(ours, "run", name="next")
                assert ran["end"] == "done"
                assert '"dimensions":64' in ran["result"]["text"]
                path = tmp_path / "three.entry"
                await asked(ours, "export", name=added["feed"], number=3, path=str(path))
            # Over a restart of the follower it goes on from where it was.
            async with workflows(follower) as ours:
                await trio.sleep(21)
                listed = await asked(ours, "list")
                assert listed["followed"][0]["entries"] >= 7
                await asked(ours, "rm", name=added["feed"])
                assert (await asked(ours, "list"))["followed"] == []
                assert not [it for it in follower.dependencies.store.pins() if "followed" in it.why]
    verify_entry(path, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["holds"], document["number"], document["end"]) == (True, 3, "done")
    assert document["result"]["dimensions"] == 64


async def test_a_feed_that_is_not_there_is_told(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        keeper, follower = await peers(network)
        async with workflows(keeper) as theirs, workflows(follower) as ours:
            added = await asked(theirs, "add", name="w", text=SHOWN.replace(FEED, ""))
            followed = await asked(ours, "follow", feed=added["feed"])
            assert "no such feed is shown here" in followed["problem"]
            refused = []
            for name in ("w", f"{ContentId.of(b'x')}@nobody", added["feed"].replace("@", "")):
                try:
                    await asked(ours, "follow", feed=name)
                except InputError as error:
                    refused.append(error.message)
            assert len(refused) == 3
            assert follower.peers.standing(keeper.peers.me).name != "BANNED"


async def test_a_keeper_with_two_histories_is_found_and_the_proof_is_kept(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_network(tmp_path) as network:
        follower = await network.start(S)
        async with network.outsider(S) as keeper:
            record = replace(RECORD, keepers=(keeper.key.peer,))
            own = {"feed": record.id, "key": keeper.key, "result": None, "end": "failed"}
            one = entry(1, **own)
            two = entry(2, one.record.digest, **own)
            other = entry(2, one.record.digest, why="other", **own)
            shown: list[tuple[Signed[FeedEntry], ...]] = [(one, two)]

            async def answer(call: Any, message: Any) -> None:
                found = [it for it in shown[0] if it.record.number >= message.number]
                await call.send(page(*found, record=record))

            keeper.answer(AskFeed, answer)
            async with workflows(follower) as ours:
                name = str(FeedName(record.id, keeper.key.peer))
                await asked(ours, "follow", feed=name)
                shown[0] = (one, other, entry(3, other.record.digest, **own))
                await trio.sleep(11)
                (row,) = (await asked(ours, "list"))["followed"]
                assert row["problem"] == "it has two histories"
                asks = len(keeper.asked)
                await trio.sleep(60)
                assert len(keeper.asked) == asks
    (proof,) = (tmp_path / "0" / "receipts").glob("*.fork")
    assert is_feed_fork(proof)
    verify_feed_fork(proof, as_json=True)
    assert json.loads(capsys.readouterr().out)["peer"] == str(keeper.key.peer)


@asynccontextmanager
async def made_up(
    network: Network, shown: list[Signed[FeedEntry]], **fields: Any
) -> AsyncIterator[tuple[Node, dict[str, Command], Any]]:
    """A follower, its commands, and a keeper that shows whatever is in `shown`."""
    follower = await network.start(S)
    async with network.outsider(S) as keeper:
        record = replace(RECORD, keepers=(keeper.key.peer,))

        async def answer(call: Any, message: Any) -> None:
            if not shown:
                shown.append(entry(1, feed=record.id, key=keeper.key, **fields))
            found = [it for it in shown if it.record.number >= message.number][:32]
            await call.send(page(*found, record=record))

        keeper.answer(AskFeed, answer)
        async with workflows(follower) as ours:
            await asked(ours, "follow", feed=str(FeedName(record.id, keeper.key.peer)))
            yield follower, ours, keeper


def more(shown: list[Signed[FeedEntry]], key: SigningKey, number: int, **fields: Any) -> None:
    """The entry with this number, which goes on from the last only if it is the next."""
    before = shown[-1].record
    previous = before.digest if before.number + 1 == number else bytes([7]) * 32
    shown.append(entry(number, previous, feed=before.feed, key=key, **fields))


async def test_a_keeper_that_forgot_entries_is_blamed_for_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    fields = {"result": None, "end": "failed"}
    shown: list[Signed[FeedEntry]] = []
    async with (
        open_network(tmp_path) as network,
        made_up(network, shown, **fields) as (follower, ours, keeper),
    ):
        await trio.sleep(6)
        # The follower heard of the first only; meanwhile the keeper has the last two alone.
        more(shown, keeper.key, 50, **fields)
        more(shown, keeper.key, 51, **fields)
        del shown[0]
        await trio.sleep(11)
        (row,) = (await asked(ours, "list"))["followed"]
        assert (row["problem"], row["entries"]) == ("", 51)
        assert follower.peers.standing(keeper.key.peer).name == "GOOD"


async def test_a_keeper_that_skips_numbers_fills_no_disk(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "ENTRIES_KEPT", 5)
    fields = {"result": None, "end": "failed"}
    shown: list[Signed[FeedEntry]] = []
    async with (
        open_network(tmp_path) as network,
        made_up(network, shown, **fields) as (follower, ours, keeper),
    ):
        for at in range(12):
            more(shown, keeper.key, (at + 2) * 7, **fields)
            del shown[0]
            await trio.sleep(6)
        (row,) = (await asked(ours, "list"))["followed"]
        assert row["entries"] == 91
        rows = follower.dependencies.store.scan(Table.WORKFLOWS, prefix=b"followed\0", limit=99)
        assert len(rows) <= 5


async def test_large_results_of_a_feed_are_kept_up_to_a_bound(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RESULTS_BYTES_MAX", 250)
    shown: list[Signed[FeedEntry]] = []
    results = [bytes([it]) * 100 for it in range(8)]
    async with (
        open_network(tmp_path) as network,
        made_up(network, shown, result=ContentId.of(results[0])) as (follower, ours, keeper),
    ):
        store = follower.dependencies.store
        for number, data in enumerate(results, 1):
            await store.put(data)
            if number > 1:
                more(shown, keeper.key, number, result=ContentId.of(data))
        await trio.sleep(11)
        (row,) = (await asked(ours, "list"))["followed"]
        assert row["entries"] == 8
        assert len([it for it in store.pins() if "followed" in it.why]) == 2


async def test_a_keeper_that_makes_up_entries_without_end_is_asked_slowly(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PAGES_AT_ONCE", 2)
    fields = {"result": None, "end": "failed"}
    shown: list[Signed[FeedEntry]] = []
    async with (
        open_network(tmp_path) as network,
        made_up(network, shown, **fields) as (_, ours, keeper),
    ):
        for number in range(2, 32 * 12):
            more(shown, keeper.key, number, **fields)
        begun_at_s = trio.current_time()
        while (await asked(ours, "list"))["followed"][0]["entries"] < len(shown):
            await trio.sleep(1)
        assert trio.current_time() - begun_at_s > 9


def test_an_entry_that_was_altered_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.entry"
    result = b'{"text":"said"}'
    good = EntryFile(
        record=RECORD.to_bytes(),
        entry=entry(1, result=ContentId.of(result)).raw,
        result=result,
    )
    path.write_bytes(good.to_bytes())
    verify_entry(path, as_json=False)
    assert "cannot be known" not in capsys.readouterr().err
    span = SlotSpan(first_ms=10_001, last_ms=10_001, slots=1)
    for bad, said in (
        (replace(good, result=b"{}"), "the result is the one"),
        (replace(good, record=replace(RECORD, name="x").to_bytes()), "the record is that"),
        (replace(good, entry=entry(1, key=OTHER).raw), "a keeper of the feed"),
        (
            replace(good, entry=entry(1, span=span, result=ContentId.of(result)).raw),
            "its slot is one",
        ),
        (replace(good, entry=good.entry[:-1] + b"\0"), "does not hold"),
        (replace(good, record=b"x"), "does not hold"),
    ):
        path.write_bytes(bad.to_bytes())
        with pytest.raises(InputError, match=said):
            verify_entry(path, as_json=False)
    path.write_bytes(b"words")
    with pytest.raises(InputError, match="does not hold"):
        verify_entry(path, as_json=False)
