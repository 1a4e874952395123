"""Preparation: each step gives what it says, repeats to the bit, and refuses the rest in words."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from trio.testing import MockClock

from node.checking.report import Status
from node.engines.worker.tokenizer import wordpiece_of
from node.ingest.bring import Brought
from node.ingest.extractor import Extractor
from node.ingest.parsing import extract
from node.ingest.prepare import STEPS, tensor_of, words_of
from node.ingest.source_file import check_strange, read_source
from node.ingest.table import DataTable
from node.ingest.tokenise import tables_of
from node.local.bundles import export_receipt, open_bundle
from tests.ingest.servers import MadeUpNetwork, answering, reply
from tests.ingest.test_attested import asker_fetch, data_peer_of, fetched, kept_of, points
from tests.node.network import S, open_network
from wire.content import ContentId
from wire.errors import BatonError, InputError, Malformed, WireError
from wire.fetch import Extraction, Preparation, PreparationStep, SourceRecord
from wire.tensors import Tensors
from wire.tree import name_of

SITE = 'kind = "http"\nurl = "http://example.org/t"\nformat = "{format}"\n'
PRICES = b"time,price,amount\n60,10,1\n90,12,2\n180,8,1\n"


def source(steps: str, kind: str = "csv") -> SourceRecord:
    """A source with one step a line: its name, then its settings."""
    lines = [it.strip().partition(" ") for it in steps.strip().splitlines()]
    blocks = [
        "[[prepare]]\n" + f'step = "{name}"\n' + rest.replace("; ", "\n") for name, _, rest in lines
    ]
    return read_source(SITE.format(format=kind) + "\n".join(blocks))


def table(steps: str, body: bytes, kind: str = "csv") -> DataTable:
    return DataTable.from_bytes(extract(source(steps, kind).extraction, body))


def array(steps: str, body: bytes, kind: str = "csv") -> np.ndarray:
    found = tensor_of(extract(source(steps, kind).extraction, body))
    return np.frombuffer(found.data, found.kind).reshape(found.shape)


def candles(settings: str, body: bytes = PRICES) -> list[tuple[Any, ...]]:
    return list(table(f'candles base = "a"; quote = "b"; {settings}', body).rows)


def test_columns_and_rows_are_selected_and_made_numbers_of() -> None:
    found = table('select columns = ["price"]; last = 2\ncast to = "whole"', PRICES)
    assert (found.columns, found.rows) == (("price",), ((12,), (8,)))
    body = b"a,b\n1,x\ny,2\n3,4\n"
    assert table('cast otherwise = "drop"', body).rows == ((3.0, 4.0),)
    assert table('cast otherwise = "empty"', body).rows == ((1.0, None), (None, 2.0), (3.0, 4.0))
    assert table('cast columns = "a"; to = "text"', body).rows[0] == ("1", "x")


@pytest.mark.parametrize(
    ("by", "numbers"),
    [
        ("range", [0.5, 1.0, 0.0]),
        ("first", [0.0, 0.2, -0.2]),
        ("deviation", [0.0, 1.224744871391589, -1.224744871391589]),
    ],
)
def test_numbers_are_normalised(by: str, numbers: list[float]) -> None:
    found = table(f'select columns = "price"\nnormalise by = "{by}"', PRICES)
    assert [it[0] for it in found.rows] == pytest.approx(numbers)
    constant = table(f'normalise by = "{by}"', b"a\n7\n7\n")
    assert constant.rows == ((0.0,), (0.0,))


def test_rows_are_stacked_and_cut_into_windows() -> None:
    steps = 'stack columns = ["price", "amount"]\nwindow size = 2'
    found = array(steps, PRICES)
    assert found.dtype == np.float32
    assert found.tolist() == [[[10, 1], [12, 2]], [[12, 2], [8, 1]]]
    assert array('stack columns = "price"; kind = "int64"', PRICES).tolist() == [[10], [12], [8]]
    assert words_of(extract(source(steps).extraction, PRICES)) == "tensor x, float32 2x2x2"


def test_text_is_cut_into_passages_and_into_its_bytes() -> None:
    text = b"one two three. " * 10
    rows = table("passages chars = 60", text, "text").rows
    assert len(rows) > 2
    assert all(len(str(it[0])) <= 60 for it in rows)
    found = array("tokenise length = 4; padding = -1", "é!".encode(), "text")
    assert found.tolist() == [[0xC3, 0xA9, 0x21, -1]]
    assert array("passages\ntokenise length = 3", text, "text").tolist() == [[111, 110, 101]]


def test_candles_gather_prices_by_their_bar() -> None:
    found = candles('volume = "amount"')
    assert found == [
        (60, 10.0, 12.0, 10.0, 12.0, 3.0, 2, 0, 0),
        # Nothing came in the minute that begins at 120: the close before is repeated.
        (120, 12.0, 12.0, 12.0, 12.0, 0.0, 0, 0, 0),
        (180, 8.0, 8.0, 8.0, 8.0, 1.0, 1, 0, 0),
    ]
    assert [it[0] for it in candles('types = "time"; order = "newest"; count = 2')] == [180, 120]
    assert candles('types = ["close"]; gaps = "empty"') == [(12.0,), (None,), (8.0,)]
    assert candles("minutes = 5; types = ['high', 'low', 'rows']") == [(12.0, 8.0, 3)]


def test_rows_that_come_twice_or_late_are_counted() -> None:
    body = b"time,price\n60,10\n60,10\n120,9\n90,11\n"
    assert candles('types = "close,rows,doubled,late"', body) == [(11.0, 2, 1, 1), (9.0, 1, 0, 0)]


def test_bars_are_made_of_bars() -> None:
    body = b"time,open,high,low,close\n0,1,5,1,2\n60,2,3,0.5,1\n"
    assert candles('minutes = 2; types = "open,high,low,close"', body) == [(1.0, 5.0, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("time", "zone", "start_s"),
    [
        ("1970-01-01T01:00:30", "UTC", 3600),
        ("1970-01-01T01:00:30", "Europe/Berlin", 0),
        ("1970-01-01 01:00:30+01:00", "Asia/Tokyo", 0),
        ("1700000000", "UTC", 1_699_999_980),
        ("1700000000123", "UTC", 1_699_999_980),
        ("1700000000.5", "UTC", 1_699_999_980),
        # The hour that is there twice is the first one, at UTC+2.
        ("2024-10-27T02:30:00", "Europe/Berlin", 1_729_989_000),
    ],
)
def test_times_are_read_with_their_zone(time: str, zone: str, start_s: int) -> None:
    body = f"time,price\n{time},1\n".encode()
    assert candles(f'types = "time"; zone = "{zone}"', body) == [(start_s,)]


BAD = {
    "a gap": ('candles base = "a"; quote = "b"; gaps = "refuse"', PRICES, "00:02:00.*no price"),
    "no rows": ('candles base = "a"; quote = "b"', b"time,price\n", "no rows"),
    "no column": ('candles base = "a"; quote = "b"; price = "p"', PRICES, "no column 'p'"),
    "no time": ('candles base = "a"; quote = "b"', b"time,price\nnoon,1\n", "'noon' is no number"),
    "no price": ('candles base = "a"; quote = "b"', b"time,price\n1,NaN\n", "'NaN' is no number"),
    "before all": ('candles base = "a"; quote = "b"', b"time,price\n-1,1\n", "is no time"),
    "no number": ("stack", b"a\n1\nx\n", "step 1, stack: row 2, column 'a'"),
    "too large": ("stack", b"a\n1e300\n", "too large for float32"),
    "too large whole": ('cast to = "whole"', b"a\n1e300\n", "too large for a whole"),
    "too spread": ('normalise by = "deviation"', b"a\n1e308\n-1e308\n", "too large"),
    "no such column": ('select columns = "z"', PRICES, "no column 'z'"),
    "a wide window": ("stack columns = 'price'\nwindow size = 9", PRICES, "fewer than a window"),
    "an odd word": ('normalise by = "magic"', PRICES, "by is range"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_step_that_cannot_go_on_says_where(name: str) -> None:
    steps, body, words = BAD[name]
    with pytest.raises(Malformed, match=words):
        extract(source(steps).extraction, body)


@pytest.mark.parametrize(
    ("steps", "kind", "words"),
    [
        ("explode", "csv", "there is no step 'explode'"),
        ("stack kind = 3", "csv", "'kind' is 3"),
        ("stack magic = 3", "csv", "knows no 'magic'"),
        ("candles base = 'a'", "csv", "is not told 'quote'"),
        ("candles base = 'a'; quote = 'b'; count = 0", "csv", "count is 1 to"),
        ("candles base = 'a'; quote = 'b'; types = 'mean'", "csv", "'mean' is none of"),
        ("candles base = 'a'; quote = 'b'; zone = '../../etc/passwd'", "csv", "time zone"),
        ("stack\nstack", "csv", "takes table, and there is a tensor"),
        ("window", "csv", "takes tensor"),
        ("stack", "text", "there is text"),
        ("image", "csv", "takes binary"),
        ("image crop = 1", "binary", "'crop' is 1"),
        ("stack\n" * 17, "csv", "17 steps"),
    ],
)
def test_steps_that_do_not_fit_are_refused_before_anything_is_fetched(
    steps: str, kind: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        source(steps, kind)


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 20)) -> bytes:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    out = io.BytesIO()
    made = image.new("RGB", size, (255, 0, 51))
    made.putpixel((0, 0), (0, 255, 0))
    made.save(out, kind)
    return out.getvalue()


def test_an_image_becomes_a_tensor() -> None:
    found = array('image width = 4; height = 2; mean = "0,0,0.2"', picture(), "binary")
    assert (found.shape, found.dtype) == ((1, 3, 2, 4), np.float32)
    assert found[0, :, 1, 3] == pytest.approx([1.0, 0.0, 0.0])
    last = array(
        'image width = 8; height = 8; layout = "hwc"; colour = "grey"', picture(), "binary"
    )
    assert last.shape == (1, 8, 8, 1)


def test_an_image_that_is_none_or_too_large_is_refused() -> None:
    whole = picture()
    huge = bytearray(whole)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    for body, words in (
        (b"GIF89a", "no image"),
        (whole[:60], "cannot be read|no image"),
        (bytes(huge), "60000 by 60000|cannot be read|no image"),
        (b"", "no image"),
        (b"<svg/>", "no image"),
    ):
        with pytest.raises(WireError, match=words):
            extract(source("image", "binary").extraction, body)


async def test_it_is_done_in_the_process_that_parses() -> None:
    asked = source("stack columns = 'price'").extraction
    assert await Extractor().extract(asked, PRICES) == extract(asked, PRICES)
    if picture():
        asked = source("image width = 2; height = 2", "binary").extraction
        assert tensor_of(await Extractor().extract(asked, picture())).shape == (1, 3, 2, 2)


def test_a_peer_sends_no_steps_that_its_owner_could_not_write() -> None:
    good = source("stack")
    for steps in (
        (PreparationStep(name="explode", parameters={}),),
        (PreparationStep(name="stack", parameters={"columns": ""}),),
        (PreparationStep(name="stack", parameters={"columns": "", "kind": 3}),),
    ):
        extraction = replace(good.extraction, prepare=(Preparation(steps=steps),))
        with pytest.raises(InputError, match="the step"):
            check_strange(replace(good, extraction=extraction))
        with pytest.raises(Malformed):
            extract(extraction, PRICES)


SCALARS = st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=5), st.booleans(), st.floats())


@settings(max_examples=60)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3),
    told=st.lists(SCALARS, min_size=12, max_size=12),
    body=st.sampled_from([PRICES, b"a\n1\n", b"", b"text", b"\x89PNG\r\n\x1a\n"]),
    kind=st.sampled_from(["csv", "text", "binary"]),
)
def test_any_steps_give_something_or_say_why_not(
    names: list[str], told: list[Any], body: bytes, kind: str
) -> None:
    steps = []
    for name in names:
        given_settings = {
            key: value if isinstance(value, type(default)) or told[0] is True else default
            for (key, default), value in zip(STEPS[name].parameters.items(), told, strict=False)
        }
        plain = {
            key: it if isinstance(it, str | int | float) else "a"
            for key, it in given_settings.items()
        }
        try:
            steps.append(PreparationStep(name=name, parameters=plain))
        except WireError:
            return
    asked = Extraction(
        format=kind,
        select="",
        columns=(),
        encoding="",
        delimiter="",
        heading=True,
        prepare=(Preparation(steps=tuple(steps)),),
    )
    try:
        first = extract(asked, body)
    except WireError:
        return
    assert first == extract(asked, body)


async def test_a_preparation_is_repeated_offline(autojump_clock: MockClock, tmp_path: Path) -> None:
    asked = source("candles base = 'a'; quote = 'b'\nstack columns = ['open', 'close']")
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer_of(network, MadeUpNetwork(answer=answering(reply(PRICES))))
        await network.settled()
        kept = await kept_of(asker, await fetched(asker, record=asked.to_bytes()))
    report = await kept.report()
    assert report.holds
    (preparation,) = asked.extraction.prepare
    assert f"the preparation {preparation.id}" in points(report, Status.HOLDS)
    found = tensor_of(kept.at_hand[kept.record.output])
    assert (found.kind, found.shape) == ("float32", (3, 2))
    assert json.loads(json.dumps(list(found.shape))) == [3, 2]


async def test_a_preparation_that_was_not_done_is_found(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    def lie(brought: Brought) -> Brought:
        zero = replace(tensor := tensor_of(brought.output), data=bytes(len(tensor.data)))
        output = Tensors(tensors=(zero,)).to_bytes()
        return Brought(replace(brought.record, output=name_of(output)), brought.body, output)

    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer_of(network, MadeUpNetwork(answer=answering(reply(PRICES))), lie)
        await network.settled()
        record = source("stack columns = ['price']").to_bytes()
        kept = await kept_of(asker, await fetched(asker, record=record))
    failed = points(await kept.report(), Status.FAILS)
    assert "the extraction, repeated from the body" in failed
    assert "the preparation" in failed


# Tables of words that are published


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world", "##ly", ",", "h", "##é"]
VOCABULARY = "\n".join(WORDS).encode() + b"\n"


def tokenizer_json() -> bytes:
    """A whole tokenizer, as models come with one."""
    table = wordpiece_of(VOCABULARY, lowercase=True, tokens_max=16)
    table.no_truncation()
    return table.to_str().encode()


def tokens(settings: str, body: bytes, table: bytes) -> dict[str, list[Any]]:
    step = f'tokenise table = "{ContentId.of(table)}"; {settings}'
    output = extract(source(step, "text").extraction, body, {str(ContentId.of(table)): table})
    return {
        it.name: np.frombuffer(it.data, "<i8").reshape(it.shape).tolist()
        for it in Tensors.from_bytes(output).tensors
    }


@pytest.mark.parametrize(("by", "table"), [("wordpiece", VOCABULARY), ("tokenizer", None)])
def test_words_are_those_of_a_published_table(by: str, table: bytes | None) -> None:
    table = tokenizer_json() if table is None else table
    settings = f'by = "{by}"; length = 8; padding = 9'
    found = tokens(settings, "Hello, worldly é".encode(), table)
    assert found == {"x": [[2, 4, 7, 5, 6, 1, 3, 9]]}
    found = tokens(settings + '; tensors = "ids,mask,types"', b"hello", table)
    assert found == {
        "input_ids": [[2, 4, 3, 9, 9, 9, 9, 9]],
        "attention_mask": [[1, 1, 1, 0, 0, 0, 0, 0]],
        "token_type_ids": [[0] * 8],
    }
    # What is too long is cut, and keeps its marks.
    found = tokens(f'by = "{by}"; length = 4', b"hello hello hello hello", table)
    assert found == {"x": [[2, 4, 4, 3]]}


def test_a_table_of_words_that_is_none_is_refused_in_words() -> None:
    for by, table, words in (
        ("wordpiece", b"hello\n", r"no list of words of WordPiece: it has no \[UNK\]"),
        ("wordpiece", b"\xff", "no UTF-8 text"),
        ("tokenizer", b"{}", "the table is not a tokenizer"),
        ("tokenizer", b"\x00" * 100, "the table is not a tokenizer"),
    ):
        with pytest.raises(Malformed, match=words):
            tokens(f'by = "{by}"', b"hello", table)
    words = {"a": 0, "b": 1, "ab": 2}
    for dropout in (0.0, 0.5):
        drawn = Tokenizer(models.BPE(words, [("a", "b")], dropout=dropout)).to_str().encode()
        if not dropout:
            assert tokens('by = "tokenizer"; length = 3', b"abab", drawn) == {"x": [[2, 2, 0]]}
            continue
        with pytest.raises(Malformed, match="other tokens of one text each time"):
            tokens('by = "tokenizer"', b"abab", drawn)
    with pytest.raises(Malformed, match="adds 2 marks to a text, and 2 is the length"):
        tokens('by = "wordpiece"; length = 2', b"hello", VOCABULARY)
    named = source(f'tokenise by = "wordpiece"; table = "{ContentId.of(b"x")}"', "text").extraction
    with pytest.raises(Malformed, match="is not at hand"):
        extract(named, b"hello")
    assert tables_of(named) == (ContentId.of(b"x"),)
    step = f'tokenise by = "wordpiece"; table = "{ContentId.of(VOCABULARY)}"; '
    several = source(step + 'tensors = "ids,mask"\nwindow size = 1', "text").extraction
    with pytest.raises(Malformed, match="it takes one tensor, and there are 2"):
        extract(several, b"hello", {str(ContentId.of(VOCABULARY)): VOCABULARY})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('by = "wordpiece"', "wordpiece needs a table"),
        (f'table = "{ContentId.of(b"")}"', "bytes needs no table"),
        ('by = "fly"', "by is bytes, tokenizer or wordpiece"),
        ('by = "wordpiece"; table = "odd"', "not a content id"),
        ('tensors = "ids,ids"', "tensors are of ids, mask, types"),
        ('tensors = "all"', "tensors are of ids, mask, types"),
        ("lowercase = 1", "'lowercase' is 1, and not bool"),
    ],
)
def test_settings_of_words_that_contradict_each_other_are_refused_at_once(
    settings: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        source(f"tokenise {settings}", "text")


def test_a_step_of_before_keeps_its_id_and_its_settings() -> None:
    (preparation,) = source("tokenise length = 4", "text").extraction.prepare
    assert dict(preparation.steps[0].parameters) == {"by": "bytes", "length": 4, "padding": 0}


async def test_whoever_checks_needs_the_table_that_a_step_names(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    table = ContentId.of(VOCABULARY)
    site = MadeUpNetwork(answer=answering(reply(b"Hello world")))
    text = f'tokenise by = "wordpiece"; table = "{table}"; length = 8'
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer_of(network, site)
        await network.settled()
        record = source(text, "text").to_bytes()
        with pytest.raises(BatonError, match=r"the table .* of the step tokenise cannot be had"):
            await fetched(asker, record=record)
        await asker.dependencies.store.put(VOCABULARY)
        result = await fetched(asker, record=record)
        kept = await kept_of(asker, result)
        path = tmp_path / "fetch.car"
        answer = ContentId.parse(result["receipt"])
        await export_receipt(asker.dependencies.store, answer, path, asker_fetch(asker))
    report = await kept.report()
    assert "repeated from the body" in points(report, Status.UNKNOWN)
    assert "repeated from the body" not in points(report, Status.HOLDS)
    with_table = replace(kept, at_hand={**kept.at_hand, table: VOCABULARY})
    assert "repeated from the body" in points(await with_table.report(), Status.HOLDS)
    # Another table in its place is no table.
    other = replace(kept, at_hand={**kept.at_hand, table: tokenizer_json()})
    assert "repeated from the body" in points(await other.report(), Status.UNKNOWN)
    assert open_bundle(path).have(table) == VOCABULARY
