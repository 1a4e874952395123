"""Bringing in: by name or by record, once for all who ask at a time, within budgets."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.ingest import bring, parse_worker
from node.ingest.bring import KEPT_S, LOOK_S, Ingest
from node.ingest.budget import ASKER_BURST, HOST_BURST, FetchBudget
from node.ingest.extractor import Extractor
from node.ingest.over_http import OverHttp
from node.ingest.owned import OwnedSources
from node.ingest.source_file import read_source
from p2p.token_bucket import TokenBuckets
from tests.ingest.servers import MadeUpNetwork, answering, moved, reply
from tests.ingest.test_owned import PRICES, SECRET
from wire.codec import Value
from wire.content import ContentId, PeerId
from wire.errors import InputError, Malformed, Refused
from wire.signing import SigningKey

ASKER = PeerId(SigningKey(bytes(32)).peer)
SITE = 'kind = "http"\nurl = "http://example.org/a"\nkeep_headers = ["etag"]\n'
WALL_S = 1_800_000_000.0


class InProcess(Extractor):
    """Parses here: the process of its own has its own tests, and virtual time knows none."""

    async def answer(self, message: dict[str, Value], seconds: int) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        reply = parse_worker.answer(message)
        if "refused" in reply:
            raise Malformed(str(reply["refused"]))
        return reply


def ingest_at(folder: Path, network: MadeUpNetwork) -> Ingest:
    return Ingest(OwnedSources(folder), network.fetcher, InProcess(), lambda: WALL_S)


async def test_a_record_says_what_came_from_where_and_what_was_made_of_it(tmp_path: Path) -> None:
    network = MadeUpNetwork(
        answer=lambda asked: (
            moved("/b")
            if "GET /a " in asked
            else reply(b"words", headers={"ETag": "seven", "X-Other": "no"})
        )
    )
    ingest = ingest_at(tmp_path, network)
    source = ingest.owned.add("site", SITE)
    brought = await ingest.named("site", ASKER)
    record = brought.record
    assert record.source == source.id
    assert record.urls == ("http://example.org/a", "http://example.org/b")
    assert record.fetched_at_ms == WALL_S * 1000
    assert (record.status, record.certificates) == (200, None)
    assert [(it.name, it.value) for it in record.headers] == [("etag", "seven")]
    assert record.body == record.output == ContentId.of(b"words")
    assert brought.body == brought.output == b"words"
    assert record.extraction == source.extraction


async def test_what_was_fetched_serves_whoever_asks_in_the_same_moment(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    network = MadeUpNetwork()
    ingest = ingest_at(tmp_path, network)
    ingest.owned.add("site", SITE)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ingest.named, "site", ASKER)
    pages = [it for it in network.asked if "robots" not in it]
    assert len(pages) == 1
    await trio.sleep(KEPT_S + 1)
    await ingest.named("site", ASKER)
    assert len([it for it in network.asked if "robots" not in it]) == 2


async def test_a_source_that_another_peer_sends_needs_the_owners_leave(tmp_path: Path) -> None:
    network = MadeUpNetwork()
    ingest = ingest_at(tmp_path, network)
    with pytest.raises(InputError, match="for others"):
        await ingest.given(read_source(SITE), ASKER)
    assert network.connected == []
    rules = tmp_path / "fetching.toml"
    rules.write_text('strangers = ["example.org"]')
    rules.chmod(0o600)
    assert (await ingest.given(read_source(SITE), ASKER)).output == b"fetched"


async def test_who_may_fetch_one_host_is_not_led_to_another(tmp_path: Path) -> None:
    network = MadeUpNetwork(answer=answering(moved("http://other.org/")))
    ingest = ingest_at(tmp_path, network)
    rules = tmp_path / "fetching.toml"
    rules.write_text('strangers = ["example.org"]')
    rules.chmod(0o600)
    with pytest.raises(InputError, match=r"from other\.org:80 for others"):
        await ingest.given(read_source(SITE), ASKER)


async def test_the_owners_own_source_is_fetched_for_whoever_sends_it(tmp_path: Path) -> None:
    ingest = ingest_at(tmp_path, MadeUpNetwork())
    ingest.owned.add("site", SITE)
    assert (await ingest.given(read_source(SITE), ASKER)).output == b"fetched"


async def test_a_credential_goes_out_and_into_no_record(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "exchange").write_text("Bearer abc123")
    (tmp_path / "credentials" / "exchange").chmod(0o600)
    network = MadeUpNetwork(answer=answering(reply(b'{"data": [{"t": 1}]}')))
    ingest = ingest_at(tmp_path, network)
    ingest.owned.add("prices", SECRET.replace("https:", "http:"))
    brought = await ingest.named("prices", ASKER)
    assert "authorization: Bearer abc123" in network.asked[-1]
    assert "abc123" not in network.asked[0], "robots.txt needs no credential"
    assert b"abc123" not in brought.record.to_bytes() + brought.body + brought.output


async def test_what_cannot_be_parsed_is_not_kept(tmp_path: Path) -> None:
    network = MadeUpNetwork(answer=answering(reply(b"{")))
    ingest = ingest_at(tmp_path, network)
    ingest.owned.add("prices", PRICES.replace("https:", "http:"))
    for _ in range(2):
        with pytest.raises(Malformed, match="not JSON"):
            await ingest.named("prices", ASKER)


async def test_files_are_brought_in_by_name_and_by_pattern(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / "b.csv").write_text("x,y\n3,4\n")
    (folder / "secret.txt").write_text("no")
    (folder / "link.csv").symlink_to(folder / "secret.txt")
    ingest = ingest_at(tmp_path, MadeUpNetwork())
    ingest.owned.add("tables", f'kind = "files"\npath = "{folder}"\nglob = "*.csv"\nformat = "csv"')
    assert await ingest.names() == ["tables:a.csv", "tables:b.csv"]
    brought = await ingest.named("tables:b.csv", ASKER)
    assert brought.output == b'["x","y"]\n["3","4"]\n'
    assert (brought.record.urls, brought.record.status) == (("b.csv",), 0)
    (folder / "c.csv").write_text("x,y\n5,6\n")
    # Whoever asks again at once has the disk looked at no more than others.
    looks: list[Path] = []
    real = bring.files_below
    monkeypatch.setattr(bring, "files_below", lambda *it: looks.append(it[0]) or real(*it))
    for _ in range(100):
        assert "tables:c.csv" not in await ingest.names()
    assert not looks
    await trio.sleep(LOOK_S)
    assert "tables:c.csv" in await ingest.names()
    for name in ("tables:secret.txt", "tables:../data/a.csv", "tables:link.csv", "tables"):
        with pytest.raises(InputError, match=r"there is no file|has 3 files"):
            await ingest.named(name, ASKER)


def test_an_asker_has_a_budget_and_so_has_a_host() -> None:
    budget = FetchBudget()
    for number in range(int(HOST_BURST)):
        budget.take("example.org", None, number / 1000)
    with pytest.raises(Refused, match=r"example\.org was asked often") as caught:
        budget.take("example.org", None, 0.1)
    assert caught.value.retry_after_s == 1.0
    budget.take("example.org", None, 1.5)
    for number in range(int(ASKER_BURST)):
        budget.take(f"host{number}.org", ASKER, 2.0)
    with pytest.raises(Refused, match="you had much fetched"):
        budget.take("another.org", ASKER, 2.0)
    budget.take("another.org", None, 2.0)


def stranger(number: int) -> PeerId:
    return PeerId(SigningKey(number.to_bytes(32, "big")).peer)


def test_askers_with_many_keys_leave_the_owner_its_own_fetches() -> None:
    budget = FetchBudget()
    taken = 0
    for second in range(100):
        for number in range(50):
            try:
                budget.take("example.org", stranger(second * 50 + number), float(second))
            except Refused:
                break
            taken += 1
        if second % 10 == 9:
            budget.take("example.org", None, float(second))
    assert 50 < taken < 100


async def test_who_wants_it_anew_waits_for_no_more_than_two_fetches(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = ingest_at(tmp_path, MadeUpNetwork())
    ingest.owned.add("site", SITE)
    begun: list[float] = []
    bring = OverHttp.bring

    async def slow(*given: Any, **terms: Any) -> Any:
        begun.append(trio.current_time())
        await trio.sleep(8)
        return await bring(*given, **terms)

    monkeypatch.setattr(OverHttp, "bring", slow)
    took: list[float] = []

    async def ask(number: int) -> None:
        await trio.sleep(number / 100)
        asked_at_s = trio.current_time()
        await ingest.named("site", stranger(number), max_age_s=0)
        took.append(trio.current_time() - asked_at_s)
        # Nobody was given what was fetched before it asked.
        assert any(asked_at_s <= it <= trio.current_time() - 8 for it in begun)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert len(begun) == 2
    assert max(took) <= 16.1


async def test_a_budget_that_is_used_up_asks_no_server(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    network = MadeUpNetwork()
    ingest = ingest_at(tmp_path, network)
    for number in range(int(HOST_BURST)):
        await ingest.owners(read_source(SITE.replace("/a", f"/{number}")))
    asked = len(network.connected)
    with pytest.raises(Refused, match="asked often"):
        await ingest.owners(read_source(SITE))
    assert len(network.connected) == asked


async def test_an_asker_that_had_much_brought_in_waits(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    network = MadeUpNetwork()
    ingest = ingest_at(tmp_path, network)
    # Each page has seven bytes.
    ingest.budget.asker_bytes = TokenBuckets(10.0, 0.5)
    for name in ("a", "b", "c"):
        ingest.owned.add(name, SITE.replace("/a", f"/{name}"))
    await ingest.named("a", ASKER)
    await ingest.named("b", ASKER)
    asked = len(network.asked)
    with pytest.raises(Refused, match="many bytes") as caught:
        await ingest.named("c", ASKER)
    assert len(network.asked) == asked, "nothing was fetched for it"
    assert caught.value.retry_after_s == pytest.approx(10.0)
    other = PeerId(SigningKey(bytes([1]) * 32).peer)
    await ingest.named("c", other)
    await trio.sleep(KEPT_S + 1)
    await ingest.named("c", ASKER)
    for number in range(5):
        # The owner's own are not counted.
        await ingest.owners(read_source(SITE.replace("/a", f"/own{number}")))
