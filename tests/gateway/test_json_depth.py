"""How deep JSON is nested is told exactly, and faster than any body takes to be parsed."""

import json
import time

import pytest

from node.gateway.json_body import DEPTH_MAX, is_too_deep

TIMES_PARSING_MAX = 4


@pytest.mark.parametrize(
    ("data", "too_deep"),
    [
        (b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, False),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), True),
        (b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1), True),
        (b"[" + b"[{}]," * 1000 + b"0]", False),
        (b"[" * 1000, True),
        (b'["' + b"[" * 1000 + b'"]', False),
        (b'["\\"' + b"[" * 1000 + b'"]', False),
        (b'["' + b"[" * 1000, False),
    ],
)
def test_depth_counts_brackets_outside_strings(data: bytes, too_deep: bool) -> None:
    assert is_too_deep(data) is too_deep


@pytest.mark.parametrize("item", [b"{}", b"[[]]", b'[""]', b'{"":{}}'])
def test_a_body_of_many_small_values_takes_no_longer_than_its_parsing(item: bytes) -> None:
    count = (1 << 20) // (len(item) + 1) - 1
    data = b"[" + (item + b",") * (count - 1) + item + b"]"
    started_s = time.process_time()
    json.loads(data)
    parsed_s = time.process_time() - started_s
    started_s = time.process_time()
    assert not is_too_deep(data)
    assert time.process_time() - started_s < TIMES_PARSING_MAX * parsed_s
