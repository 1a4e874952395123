"""Parsing: what bodies become, and what is said of those that are not sound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.ingest.parsing import DEPTH_MAX, extract, to_lines
from node.ingest.table import DataTable
from wire.errors import Malformed, Oversize, WireError
from wire.fetch import Column, Extraction


def extraction(kind: str, columns: dict[str, str] | None = None, **settings: object) -> Extraction:
    fields: dict[str, object] = {
        "select": "",
        "encoding": "",
        "delimiter": "",
        "heading": True,
        **settings,
    }
    named = tuple(Column(name=name, select=it) for name, it in (columns or {}).items())
    return Extraction(format=kind, columns=named, **fields)  # type: ignore[arg-type]


def table(asked: Extraction, body: bytes) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    found = DataTable.from_bytes(extract(asked, body))
    return found.columns, list(found.rows)


def test_rows_and_columns_of_json_are_selected() -> None:
    body = b'{"data": [{"t": 1, "last": {"price": 1.5}}, {"t": 2, "last": {"price": null}}]}'
    asked = extraction("json", {"time": "t", "price": "last.price"}, select="data")
    assert table(asked, body) == (("time", "price"), [(1, 1.5), (2, None)])


def test_json_without_columns_has_those_of_its_objects() -> None:
    assert table(extraction("json"), b'[{"a": 1}, {"b": [1, {"c": 2}]}]') == (
        ("a", "b"),
        [(1, None), (None, '[1,{"c":2}]')],
    )
    assert table(extraction("json"), b'[1, "x", true]') == (("value",), [(1,), ("x",), (True,)])
    assert table(extraction("json", select="a.b"), b'{"a": {"b": 7.25}}') == (("value",), [(7.25,)])


def test_columns_of_csv_are_found_by_heading_or_by_number() -> None:
    body = b'time,price,note\n1,1.5,"a, b"\n2,2.5,"two\nlines"\n\n'
    asked = extraction("csv", {"p": "price", "why": "note"})
    assert table(asked, body) == (("p", "why"), [("1.5", "a, b"), ("2.5", "two\nlines")])
    asked = extraction("csv", {"first": "1"}, heading=False, delimiter=";")
    assert table(asked, b"a;b\nc;d\n") == (("first",), [("a",), ("c",)])


def test_text_loses_its_mark_and_is_read_in_its_encoding() -> None:
    assert extract(extraction("text"), b"\xef\xbb\xbfwords") == b"words"
    assert extract(extraction("text", encoding="latin-1"), b"\xe9t\xe9") == "été".encode()
    assert extract(extraction("binary"), b"\x00\xff") == b"\x00\xff"


def test_a_page_becomes_its_words() -> None:
    body = (
        b"<!doctype html><html><head><title>No</title><style>p {}</style></head><body>"
        b"<h1>Prices</h1><script>steal()</script><p>One   <b>big</b>\n word.</p><!-- no -->"
        b"<ul><li>first<li>second</ul><div id=x>last<br>line &amp; end</div></body>after</html>"
    )
    text = extract(extraction("html"), body).decode()
    assert text.startswith("Prices\n\nOne big word.\n\nfirst\nsecond\n\nlast\nline & end")
    assert "steal" not in text
    assert extract(extraction("html", select="//div[@id='x']"), body) == b"last\nline & end"
    assert extract(extraction("html", select="//h1/text()"), body) == b"Prices"


BAD = {
    "no JSON": (extraction("json"), b"{", "not JSON"),
    "NaN": (extraction("json"), b"[NaN]", "no number"),
    "beyond a float": (extraction("json"), b"[1e999]", "no number"),
    "a huge number": (extraction("json"), b"[" + b"9" * 5000 + b"]", "not JSON"),
    "deep JSON": (extraction("json"), b"[" * 100 + b"]" * 100, "deep"),
    "deepest JSON": (extraction("json"), b"[" * 200_000, "not JSON"),
    "half a character": (extraction("json"), b'["\\ud800"]', "surrogate"),
    "nothing selected": (extraction("json", select="a.b"), b"{}", "selects nothing"),
    "bad JMESPath": (extraction("json", select="a["), b"{}", "no JMESPath"),
    "unknown function": (extraction("json", select="boom(@)"), b"{}", "JMESPath"),
    "wrong type": (extraction("json", select="sum(@)"), b'["a"]', "JMESPath"),
    "no UTF-8": (extraction("text"), b"\xff\xfe", "byte 0"),
    "no such encoding": (extraction("text", encoding="klingon"), b"a", "not known"),
    "no encoding of text": (extraction("text", encoding="zlib"), b"a", "no encoding of text"),
    "empty CSV": (extraction("csv"), b"\n\n", "empty"),
    "a short line": (extraction("csv"), b"a,b\n1\n", "line 2 has 1 cells"),
    "a missing column": (extraction("csv", {"c": "c"}), b"a,b\n", "there are: a, b"),
    "a double heading": (extraction("csv"), b"a,a\n", "one heading"),
    "an open quote": (extraction("csv"), b'a\n"b\n', "no CSV"),
    "a word after a quote": (extraction("csv"), b'a\n"b"c\n', "no CSV"),
    "bad XPath": (extraction("html", select="//["), b"<p>a</p>", "no XPath"),
    "no such part": (extraction("html", select="//b"), b"<p>a</p>", "selects nothing"),
    "no page": (extraction("html"), b"", "not HTML"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_body_is_named(case: str) -> None:
    asked, body, words = BAD[case]
    with pytest.raises(Malformed, match=words):
        extract(asked, body)


def test_as_deep_as_is_let_is_read() -> None:
    deep = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    assert table(extraction("json"), deep)[0] == ("value",)


@pytest.mark.parametrize(
    "body", [b'["' + b"a" * 2_000_000 + b'","' + b"b" * 2_300_000 + b'"]', b"[" + b"1," * 100_001]
)
def test_a_table_is_bounded(body: bytes) -> None:
    whole = body if body.endswith(b"]") else body + b"1]"
    with pytest.raises(Oversize, match="beyond"):
        extract(extraction("json"), whole)


@given(st.binary(max_size=200), st.sampled_from(("json", "csv", "text", "html", "binary")))
def test_any_bytes_give_an_output_or_a_wire_error(body: bytes, kind: str) -> None:
    try:
        output = extract(extraction(kind), body)
    except WireError:
        return
    assert output == extract(extraction(kind), body)


_cells = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=9), st.floats(allow_nan=False)
).filter(lambda it: it not in (float("inf"), float("-inf")))


@settings(max_examples=40)
@given(st.lists(st.lists(_cells, min_size=2, max_size=2), max_size=9))
def test_a_table_is_read_as_it_was_written(rows: list[list[object]]) -> None:
    found = DataTable.from_bytes(to_lines(["a", "b"], rows))  # type: ignore[arg-type]
    assert [list(it) for it in found.rows] == rows


def test_rows_become_words() -> None:
    assert DataTable(("a",), (("x",), (1.5,), (None,))).words() == ["x", "1.5", ""]
    assert DataTable(("a", "b"), (("x", None), (True, 2))).words() == ["a: x", "a: true\nb: 2"]


@pytest.mark.parametrize("output", [b"", b"{}\n", b"[1]\n", b'["a"]\n[1,2]\n', b"[\n", b"\xff"])
def test_what_is_no_table_is_malformed(output: bytes) -> None:
    with pytest.raises(Malformed, match="not a table"):
        DataTable.from_bytes(output)
