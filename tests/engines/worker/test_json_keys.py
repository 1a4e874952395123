"""Keys of a text that is being written: found wherever pieces end, and in whatever way written."""

import json

from hypothesis import given
from hypothesis import strategies as st

from node.engines.worker.json_keys import JsonKeys

LEAVES = st.none() | st.integers(-9, 9) | st.text('a"\\{}[]:,\u00e9', max_size=4)
KEYS = st.text('ab"\\:\u00e9', max_size=2)
VALUES = st.recursive(
    LEAVES, lambda of: st.lists(of, max_size=3) | st.dictionaries(KEYS, of, max_size=3)
)


def doubled(text: str) -> bool:
    """Whether a reader of the whole text meets a key twice in one object."""
    found = []

    def pairs(items: list[tuple[str, object]]) -> None:
        found.append(len({key for key, _ in items}) < len(items))

    json.loads(text, object_pairs_hook=pairs)
    return any(found)


@given(VALUES, st.booleans(), st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_no_key_of_a_proper_text_comes_twice(value: object, plain: bool, cuts: list[int]) -> None:
    data = json.dumps(value, ensure_ascii=plain).encode()
    keys, at = JsonKeys(), 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        piece = data[at : at + size]
        assert not keys.doubles(piece)
        assert not keys.take(piece)
        at += size


@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=4), st.booleans())
def test_what_a_reader_meets_twice_is_seen(pairs: list[tuple[str, object]], plain: bool) -> None:
    text = ",".join(
        f"{json.dumps(key, ensure_ascii=plain)}: {json.dumps(value)}" for key, value in pairs
    )
    text = f'{{"x": [{{{text}}}]}}'
    assert JsonKeys().take(text.encode()) == doubled(text)
    assert JsonKeys().doubles(text.encode()) == doubled(text)


def test_a_piece_with_too_few_quotes_completes_no_key() -> None:
    keys = JsonKeys()
    assert keys.quotes_min() == 0
    keys.take(b'{"a":1,')
    assert keys.quotes_min() == 2
    assert keys.doubles(b'"a"')
    keys.take(b'"')
    assert keys.quotes_min() == 1
    assert keys.doubles(b'a":')
    assert not keys.doubles(b"a")
    keys.take(b'b":"')
    assert keys.quotes_min() == 3
    assert keys.doubles(b'","b"')
