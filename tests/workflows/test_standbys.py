"""A workflow whose keeper leaves goes on at another peer: one result per slot, doubles named."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands.verify_entry import verify_feed_fork
from node.local.control import unheard
from node.local.workflow_commands import WorkflowCommands
from node.workflows.branches import check_epoch
from node.workflows.feed_reading import follows
from tests.workflows.standbys import EVERY_S, TAKEOVER_S, Site, World, add, open_world, trouble
from wire.errors import InputError, Refused
from wire.feed import FIRST_ENTRY, FeedEntry, FeedFork, FeedPage, contradiction_of_entries
from wire.signed import Signed, sign

SETTLE_S = 5.0 * TAKEOVER_S


def check(found: list[Signed[FeedEntry]], world: World) -> None:
    """A history holds: it is one chain, its epochs rise, and every slot is in it once."""
    previous, before = FIRST_ENTRY, None
    record = world.record
    seen: list[int] = []
    for number, one in enumerate(found, 1):
        assert (one.record.number, one.record.previous) == (number, previous)
        check_epoch(record, before, one)
        previous, before = one.record.digest, one
        first, last = one.record.span.first_ms, one.record.span.last_ms
        seen += range(first // 1000, last // 1000 + 1, EVERY_S)
    assert seen == list(range(seen[0], seen[-1] + 1, EVERY_S))


def check_all(world: World) -> None:
    """All who are up have one history, and nobody can be convicted by what he signed."""
    assert world.follower is not None
    (holder,) = world.holders()
    held = holder.kept()
    check(held, world)
    for site in world.keepers:
        kept = site.kept()
        # Whoever stands by may lack what was written just now.
        assert kept == held[: len(kept)]
        assert len(kept) >= len(held) - 2
        assert not site.offences
    followed = world.follower.entries(held[0].record.feed, 10_000)
    assert followed == held[: len(followed)]
    assert len(followed) >= len(held) - 2
    everything = sorted(world.signed.values(), key=lambda it: (it.signer, it.record.number))
    for one, other in pairwise(everything):
        assert contradiction_of_entries(one, other) is None
    named = {
        slot_ms
        for site in world.keepers
        for slot_ms in world.doubled_slots()
        if site.lost.of_slot(slot_ms)
    }
    assert named == world.doubled_slots()


async def test_a_standby_goes_on_where_a_killed_keeper_ended(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        first, second, third = world.keepers
        await trio.sleep(42)
        # Whoever stands by has every entry, with its result.
        assert len(second.kept()) >= 7
        result = second.kept()[-2].record.result
        assert result is not None
        assert second.store.has(result)
        with pytest.raises(Refused, match="this peer stands by"):
            await world.kept(second).runner.run_now()
        await world.kill(first)
        await trio.sleep(TAKEOVER_S + 12)
        assert (second.epoch, third.epoch) == (1, None)
        await trio.sleep(60)
        # Who comes back stands by, and the others keep what they have.
        await world.start(first)
        await trio.sleep(30)
        assert (first.epoch, second.epoch, third.epoch) == (None, 1, None)
        check_all(world)
        assert {it.signer for it in first.kept()} == {first.key.peer, second.key.peer}
        # Of its last slot the others did not hear before it was killed.
        assert len(world.doubled_slots()) <= 1
        # In its turn it takes over again, in an epoch of its own.
        await world.kill(second)
        await trio.sleep(TAKEOVER_S + 30)
        assert (first.epoch, third.epoch) == (3, None)
        await world.start(second)
        await trio.sleep(30)
        check_all(world)


async def test_the_second_standby_waits_longer_than_the_first(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        first, second, third = world.keepers
        await trio.sleep(12)
        await world.kill(first)
        await world.kill(second)
        await trio.sleep(TAKEOVER_S + 12)
        assert third.epoch is None
        await trio.sleep(TAKEOVER_S)
        assert third.epoch == 2
        await world.start(first)
        await world.start(second)
        await trio.sleep(30)
        check_all(world)


async def test_two_keepers_at_once_are_resolved_and_their_doubles_named(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_world(tmp_path) as world:
        first, second, _ = world.keepers
        await trio.sleep(22)
        world.part([0], [1, 2])
        await trio.sleep(90)
        # The first keeper lives, and goes on: nobody it hears has taken over.
        assert (first.epoch, second.epoch) == (0, 1)
        doubled = world.doubled_slots()
        assert len(doubled) >= 10
        world.part()
        await trio.sleep(30)
        assert (first.epoch, second.epoch) == (None, 1)
        check_all(world)
        # What the first one gave up is named at it, and a pair is kept for `verify`.
        assert all(first.lost.of_slot(it) for it in doubled)
        ((other, counts),) = first.pairs
        assert (other.signer, counts.signer) == (first.key.peer, second.key.peer)
        assert other.record.slot_ms == counts.record.slot_ms
        found = await shown(world, first, "history")
        doubled = world.doubled_slots()
        rows = [it for it in found["entries"] if it["doubles"] and it["end"] == "done"]
        assert {it["doubles"][0]["keeper"] for it in rows} == {str(first.key.peer)}
        assert len(rows) == len(doubled)
        (row,) = (await shown(world, first, "list"))["workflows"]
        assert (row["standing"]["holds"], row["standing"]["epoch"]) == (False, 1)
        # The follower heard of both, too.
        (followed,) = (await shown(world, first, "list"))["followed"]
        assert followed["doubles"] > 0
    path = tmp_path / "two.fork"
    path.write_bytes(sign(FeedFork(first=other.raw, second=counts.raw), second.key).raw)
    verify_feed_fork(path, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == str(counts.id)
    assert document["keepers"] == [str(second.key.peer), str(first.key.peer)]
    verify_feed_fork(path, as_json=False)
    assert "nobody is convicted" in capsys.readouterr().out


async def shown(world: World, site: Site, what: str) -> dict[str, Any]:
    """What `workflows list` or `history` says at a peer."""
    assert site.keeper is not None
    assert world.follower is not None
    commands = WorkflowCommands(site.keeper, world.follower).commands()
    return dict(await commands[f"workflows-{what}"]({"name": "w", "count": 100}, unheard))


async def test_a_keeper_that_answers_nothing_is_silent(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        first, second, _ = world.keepers
        await trio.sleep(22)
        first.is_frozen = True
        await trio.sleep(2 * TAKEOVER_S)
        assert second.epoch == 1
        first.is_frozen = False
        await trio.sleep(30)
        check_all(world)
        assert first.epoch is None


async def test_a_standby_that_hears_nobody_takes_nothing_over(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        first, second, third = world.keepers
        await trio.sleep(12)
        world.part([0, 2], [1])
        world.crowd.group = 0
        await trio.sleep(4 * TAKEOVER_S)
        assert (first.epoch, second.epoch, third.epoch) == (0, None, None)
        watch = world.kept(second).watch
        assert watch is not None
        assert "hears nobody else" in watch.as_map()["waits"]
        world.part()
        await trio.sleep(20)
        check_all(world)


async def test_a_clock_that_runs_ahead_uses_up_nobodys_slots(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        first, second, third = world.keepers
        await trio.sleep(12)
        # Two minutes are borne; slots that it took early are not run again.
        second.ahead_s = 120
        await world.kill(first)
        await trio.sleep(TAKEOVER_S + 20)
        assert second.epoch == 1
        await world.start(first)
        await trio.sleep(30)
        check_all(world)
        # A day is not: the others do not take such entries, and say why.
        second.ahead_s = 86_400
        await trio.sleep(60)
        watch = world.kept(third).watch
        assert watch is not None
        problems = {it["peer"]: it["problem"] for it in watch.as_map()["keepers"]}
        assert "ahead" in problems[str(second.key.peer)]
        await world.kill(second)
        await trio.sleep(3 * TAKEOVER_S)
        (holder,) = world.holders()
        await trio.sleep(180)
        assert holder.kept()[-1].record.end == "done"


async def test_hostile_entries_are_refused_and_change_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        first, second, _ = world.keepers
        await trio.sleep(22)
        before = first.kept()
        last = before[-1].record

        keys = [it.key for it in world.sites.values()]

        def made(key_of: int, **changes: object) -> Signed[FeedEntry]:
            fields = {"number": last.number + 1, "previous": last.digest, **changes}
            return sign(replace(last, **fields), keys[key_of])  # type: ignore[arg-type]

        for bad in (
            # An epoch that is another keeper's, too high for one round, or the highest of all.
            made(1, epoch=0),
            made(1, epoch=2),
            made(1, epoch=1 + 3 * 2),
            made(1, epoch=2**62 - (2**62 - 1) % 3),
            made(1, epoch=1, previous=bytes([7]) * 32),
            made(1, epoch=1, number=2**62),
            made(1, epoch=1, number=last.number + 3),
            # Somebody who is no keeper.
            made(3, epoch=1),
            made(3, epoch=3),
        ):
            raw = bad.raw

            def altered(
                page: FeedPage, raw: bytes = raw, number: int = bad.record.number
            ) -> FeedPage:
                return FeedPage(record=page.record, last=number, entries=(raw,))

            world.alter[second.key.peer] = altered
            await trio.sleep(6)
            assert first.epoch == 0
            assert first.kept()[: len(before)] == before
        assert {it[0] for it in first.offences} == {second.key.peer}
        world.alter.clear()


@pytest.mark.parametrize("skipped", [0, 1, 10**12, 2**53 - 100])
async def test_a_standby_that_pretends_to_have_forgotten_breaks_no_history(
    skipped: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Its one entry goes on from nothing that the others have, and it shows none before it."""
    async with open_world(tmp_path) as world:
        first, second, third = world.keepers
        await trio.sleep(22)
        last = first.kept()[-1].record
        number = last.number + 1 + skipped
        bad = sign(replace(last, number=number, previous=bytes([7]) * 32, epoch=1), second.key)

        def altered(page: FeedPage) -> FeedPage:
            return FeedPage(record=page.record, last=number, entries=(bad.raw,))

        world.alter[second.key.peer] = altered
        await trio.sleep(40)
        world.alter.clear()
        await world.kill(second)
        await trio.sleep(6 * TAKEOVER_S)
        # The others go on, with what everybody can read, and nobody but the liar is blamed.
        (holder,) = world.holders()
        assert holder in (first, third)
        kept = holder.kept()
        assert kept[-1].record.end == "done"
        assert world.wall_ms - kept[-1].record.slot_ms < 3 * EVERY_S * 1000
        for one, after in pairwise(kept):
            assert follows(one.record, after.record)
        for site in world.sites.values():
            assert {it[0] for it in site.offences} <= {second.key.peer}
        assert world.follower is not None
        (found,) = world.follower.feeds.values()
        assert found.last is not None
        assert found.last.record.number >= kept[-2].record.number


async def test_a_keeper_that_was_away_for_long_goes_on_after_the_gap(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path, extra="keep = 10\n") as world:
        first, second, third = world.keepers
        await trio.sleep(22)
        await world.kill(first)
        await trio.sleep(TAKEOVER_S + 100)
        await world.start(first)
        await trio.sleep(20)
        # What lies before the gap is too old for everybody, and kept by nobody.
        assert 1 < len(first.kept()) <= 10
        assert {it.id for it in first.kept()[-2:]} <= {it.id for it in second.kept()}
        for one, after in pairwise(first.kept()):
            assert follows(one.record, after.record)
        for site in (first, second, third, world.crowd):
            assert not site.offences


async def test_a_file_that_differs_or_names_nobody_is_no_standbys(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        first, second, third = world.keepers
        assert second.keeper is not None
        await second.keeper.remove("w")
        right = world.text
        world.text = right.replace(f'"{EVERY_S}s"', '"7s"')
        with pytest.raises(InputError, match="not the one that the keeper runs"):
            await add(world, second)
        world.text, feed = right, world.feed
        world.feed = ""
        with pytest.raises(InputError, match="names this peer itself"):
            await add(world, second)
        # The first peer is the keeper, and stands by for nobody.
        world.feed = feed
        with pytest.raises(InputError, match="keeps that feed itself"):
            await add(world, first)
        await world.kill(first)
        with pytest.raises(InputError, match="does not show the feed"):
            await add(world, second)
        world.feed = f"{feed.partition('@')[0]}@{third.key.peer}"
        # Whoever stands by shows the feed too.
        await add(world, second)
        assert second.epoch is None


@pytest.mark.parametrize(
    ("seeds", "seconds"),
    [
        (range(2), 200),
        pytest.param(range(100, 160), 1500, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
async def test_every_slot_has_one_result_through_kills_and_partitions(
    seeds: range, seconds: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    doubled = kills = slots = 0
    for seed in seeds:
        async with open_world(tmp_path, count=2 + seed % 3) as world:
            kills += await trouble(world, Random(seed), seconds)
            await trio.sleep(SETTLE_S)
            check_all(world)
            doubled += len(world.doubled_slots())
            slots += sum(it.record.span.slots for it in world.holders()[0].kept())
    print(f"{slots} slots, {kills} kills, {doubled} doubled slots")
    assert doubled > 0
    assert kills >= len(seeds)
