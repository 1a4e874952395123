"""Whose requests the console takes for its own page's, by Host, Origin and where a browser was."""

import pytest

from node.console.visitor import headers_of, is_host, stranger

OWN = {"host": "127.0.0.1:4750", "origin": "http://127.0.0.1:4750"}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:4750", "127.0.0.1", "localhost:4750", "LOCALHOST", "[::1]:4750", "192.0.2.7:1"],
)
def test_an_address_and_localhost_are_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:4750",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1:4750@evil.example",
        "127.0.0.1:4750, evil.example",
        "[::1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "127.0.0.1:999999",
        "a" * 10_000,
    ],
)
def test_a_name_that_a_site_may_have_made_point_here_is_none(host: str) -> None:
    assert not is_host(host)
    assert stranger("GET", {"host": host})


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"host": "127.0.0.1:4750"}),
        ("GET", {"host": "127.0.0.1:4750", "sec-fetch-site": "none"}),
        ("GET", {**OWN, "sec-fetch-site": "same-origin"}),
        ("POST", OWN),
        ("POST", {"host": "[::1]:4750", "origin": "http://[::1]:4750"}),
    ],
)
def test_the_own_page_and_a_typed_link_are_let_on(method: str, headers: dict[str, str]) -> None:
    assert stranger(method, headers) == ""


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("GET", {"origin": "https://evil.example"}),
        ("GET", {"origin": "null"}),
        ("GET", {"origin": ""}),
        ("GET", {"origin": "http://127.0.0.1:4751"}),
        ("GET", {"origin": "https://127.0.0.1:4750"}),
        ("GET", {"sec-fetch-site": "cross-site"}),
        ("GET", {"sec-fetch-site": "same-site"}),
        ("GET", {"sec-fetch-site": ""}),
        ("POST", {"origin": "http://localhost:4750"}),
        ("POST", {"sec-fetch-site": "cross-site"}),
    ],
)
def test_a_page_of_elsewhere_is_turned_away(method: str, changed: dict[str, str]) -> None:
    assert stranger(method, {**OWN, **changed})


def test_what_changes_something_needs_an_origin() -> None:
    assert stranger("POST", {"host": "127.0.0.1:4750"})


def test_a_header_that_comes_twice_is_not_believed() -> None:
    rows = [(b"host", b"127.0.0.1"), (b"origin", b"http://127.0.0.1"), (b"origin", b"http://x")]
    found = headers_of(rows)
    assert found["origin"] == ""
    assert stranger("GET", found)
