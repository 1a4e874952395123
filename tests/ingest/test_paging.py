"""Pages: one leads to the next, within bounds, and never to another host or in a circle."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.checking.report import Status
from node.ingest.budget import HOST_BURST, FetchBudget
from node.ingest.parsing import pages_of
from node.ingest.source_file import read_source
from node.ingest.table import DataTable
from tests.ingest.servers import MadeUpNetwork, moved, reply
from tests.ingest.test_attested import data_peer_of, fetched, kept_of, points
from tests.ingest.test_bring import ASKER, ingest_at
from tests.node.network import S, open_network
from wire.errors import InputError, Malformed, Oversize, Refused
from wire.fetch import SourceRecord
from wire.tree import name_of

LINKED = """
kind = "http"
url = "http://example.org/prices?limit=2"
format = "json"
select = "data"
columns = {t = "t"}
[paging]
next = "links.next"
pages = 5
"""
COUNTED = LINKED.partition("[paging]")[0] + '[paging]\nparameter = "page"\npages = 5\n'
CURSOR = COUNTED.replace("pages = 5", 'next = "cursor"\npages = 5')


def asked_for(asked: str) -> str:
    return asked.split()[1]


def linked(asked: str) -> bytes:
    """Three pages, each with a link to the next."""
    at = int(asked_for(asked).partition("from=")[2] or 0)
    links = {"next": f"/prices?limit=2&from={at + 2}"} if at < 4 else {"next": None}
    return reply(json.dumps({"data": [{"t": at}, {"t": at + 1}], "links": links}).encode())


def counted(asked: str) -> bytes:
    """Two pages with rows, and an empty one."""
    page = int(asked_for(asked).partition("page=")[2])
    return reply(json.dumps({"data": [{"t": page}] if page < 3 else []}).encode())


def cursor(asked: str) -> bytes:
    """Two pages, of which the first names the second by a word."""
    second = "page=c2%2F" in asked_for(asked)
    rows = [{"t": 2 if second else 1}]
    return reply(json.dumps({"data": rows, "cursor": "" if second else "c2/"}).encode())


def source(text: str) -> SourceRecord:
    return read_source(text)


@pytest.mark.parametrize(
    ("text", "answer", "rows", "urls"),
    [
        (LINKED, linked, [0, 1, 2, 3, 4, 5], ["?limit=2", "?limit=2&from=2", "?limit=2&from=4"]),
        (COUNTED, counted, [1, 2], [f"?limit=2&page={it}" for it in (1, 2, 3)]),
        (CURSOR, cursor, [1, 2], ["?limit=2", "?limit=2&page=c2%2F"]),
    ],
)
async def test_pages_become_one_table(
    tmp_path: Path, text: str, answer: object, rows: list[int], urls: list[str]
) -> None:
    network = MadeUpNetwork(answer=answer)  # type: ignore[arg-type]
    brought = await ingest_at(tmp_path, network).owners(source(text))
    assert [it[0] for it in DataTable.from_bytes(brought.output).rows] == rows
    record = brought.record
    assert [it.url for it in record.pages] == [f"http://example.org/prices{it}" for it in urls]
    assert not record.more
    pages = pages_of(record.extraction, brought.body)
    assert [name_of(it) for it in pages] == [it.body for it in record.pages]


async def test_there_may_be_more_pages_than_are_wanted(tmp_path: Path) -> None:
    text = LINKED.replace("pages = 5", "pages = 2")
    brought = await ingest_at(tmp_path, MadeUpNetwork(answer=linked)).owners(source(text))
    assert (len(brought.record.pages), brought.record.more) == (2, True)


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ("http://evil.org/prices", "where this source does not lead"),
        ("https://example.org/prices", "where this source does not lead"),
        ("http://example.org:8080/prices", "where this source does not lead"),
        ("http://169.254.169.254/latest", "where this source does not lead"),
        ("//evil.org/", "where this source does not lead"),
        ("http://user@example.org/", "is no URL"),
        ("file:///etc/passwd", "is no URL"),
        ("http://[", "is no URL"),
        ("/prices?limit=2", "in a circle"),
        ({"a": 1}, "finds dict"),
        (True, "finds bool"),
    ],
)
async def test_a_server_leads_its_pages_nowhere_else(
    tmp_path: Path, further: object, words: str
) -> None:
    body = json.dumps({"data": [{"t": 1}], "links": {"next": further}}).encode()
    network = MadeUpNetwork(answer=lambda _: reply(body))
    with pytest.raises(Malformed, match=words):
        await ingest_at(tmp_path, network).owners(source(LINKED))
    assert {host for host, _ in network.connected} == {"93.184.216.34"}
    assert len(network.asked) == 2, "robots.txt and one page"


async def test_a_page_that_redirects_is_judged_as_ever(tmp_path: Path) -> None:
    network = MadeUpNetwork(
        answer=lambda asked: linked(asked) if "from" not in asked else moved("http://127.0.0.1/")
    )
    with pytest.raises(InputError, match="loopback"):
        await ingest_at(tmp_path, network).owners(source(LINKED))


async def test_pages_together_are_bounded(tmp_path: Path) -> None:
    padding = "x" * 1_500_000

    def large(asked: str) -> bytes:
        at = len(asked_for(asked))
        links = {"next": f"{asked_for(asked)}1"}
        return reply(json.dumps({"data": [{"t": at}], "links": links, "p": padding}).encode())

    with pytest.raises(Oversize, match="the pages of"):
        await ingest_at(tmp_path, MadeUpNetwork(answer=large)).owners(source(LINKED))


async def test_pages_wait_for_the_budgets_of_host_and_asker(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    def endless(asked: str) -> bytes:
        return reply(b'{"data": [{"t": 1}], "links": {"next": "%s1"}}' % asked_for(asked).encode())

    ingest = ingest_at(tmp_path, MadeUpNetwork(answer=endless))
    text = LINKED.replace("pages = 5", f"pages = {int(HOST_BURST) + 4}")
    begin_at_s = trio.current_time()
    ingest.owned.add("many", text)
    await ingest.named("many", ASKER)
    assert 3.0 <= trio.current_time() - begin_at_s <= 8.0
    # The first page of the next fetch waits for nobody.
    ingest.owned.add("more", text.replace("limit=2", "limit=3"))
    with pytest.raises(Refused, match="asked often"):
        await ingest.named("more", ASKER)


async def test_a_stranger_pays_for_each_page(tmp_path: Path, autojump_clock: MockClock) -> None:
    ingest = ingest_at(tmp_path, MadeUpNetwork(answer=linked))
    ingest.budget = ingest.over_http.budget = FetchBudget()
    ingest.owned.add("many", LINKED)
    await ingest.named("many", ASKER)
    left = sum(ingest.budget.askers.take(str(ASKER), trio.current_time()) for _ in range(30))
    assert left == 27


BAD = {
    "no paging": (LINKED.partition("[paging]")[0] + 'paging = "next"', "paging is a table"),
    "an unknown key": (LINKED + "rows = 3", "paging is a table"),
    "too many": (LINKED.replace("pages = 5", "pages = 1000"), "1 to 32"),
    "no number": (LINKED.replace("pages = 5", 'pages = "5"'), "whole number"),
    "nothing said": (LINKED.replace('next = "links.next"', ""), "neither what is next"),
    "no step": (COUNTED + "step = 0", "neither what is next"),
    "CSV": (LINKED.replace("json", "csv").replace('select = "data"', ""), "only JSON"),
    "a file": ('kind = "files"\npath = "data"\n[paging]\nnext = "a"', "has no 'paging'"),
}


@pytest.mark.parametrize("name", BAD)
def test_paging_that_is_not_sound_is_refused(name: str) -> None:
    text, words = BAD[name]
    with pytest.raises(InputError, match=words):
        read_source(text)


async def test_pages_are_followed_again_offline(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer_of(network, MadeUpNetwork(answer=linked))
        await network.settled()
        record = source(LINKED).to_bytes()
        kept = await kept_of(asker, await fetched(asker, record=record))
    report = await kept.report()
    assert report.holds
    assert "each page leads to the next one" in points(report, Status.HOLDS)
    assert "the pages that are kept" in points(report, Status.HOLDS)


async def test_pages_that_were_left_out_are_found(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer_of(
            network,
            MadeUpNetwork(answer=linked),
            lie=lambda it: replace(it, record=replace(it.record, more=True)),
        )
        await network.settled()
        record = source(LINKED).to_bytes()
        kept = await kept_of(asker, await fetched(asker, record=record))
    report = await kept.report()
    assert "each page leads to the next one" in points(report, Status.FAILS)
