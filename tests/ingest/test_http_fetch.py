"""Fetching: bounded in size, time, redirects and compression; who gets credentials."""

import gzip
import threading
import zlib
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.ingest.guard import real_network
from node.ingest.http_fetch import (
    BODY_BYTES_MAX,
    FETCH_S_MAX,
    RATIO_FREE_BYTES,
    REDIRECTS_MAX,
    HttpFetcher,
    Request,
    Response,
)
from node.ingest.location import HostRules, read_url
from node.ingest.robots import Robots
from p2p.name_lookup import LOOKUPS_MAX
from tests.ingest.servers import TLS, MadeUpNetwork, answering, loopback_server, moved, reply
from wire.content import PeerId
from wire.errors import BatonError, InputError, Malformed, Oversize, Refused, TooSlow, Unreachable

URL = "http://example.org/first"


async def fetched(network: MadeUpNetwork, url: str = URL, **settings: dict[str, str]) -> Response:
    return await network.fetcher.get(Request(location=read_url(url), **settings), HostRules())


async def test_a_document_comes_with_its_status_headers_and_every_url() -> None:
    network = MadeUpNetwork(
        answer=lambda asked: (
            moved("/second?a=1")
            if "GET /first " in asked
            else reply(b"words", headers={"ETag": "seven"})
        )
    )
    found = await fetched(network)
    assert (found.body, found.status, found.certificates) == (b"words", 200, None)
    assert found.urls == (URL, "http://example.org/second?a=1")
    assert ("etag", "seven") in found.headers
    assert "accept-encoding: gzip\r\n" in network.asked[0].lower()


async def test_a_compressed_document_is_unpacked() -> None:
    packed = gzip.compress(b"words " * 1000)
    network = MadeUpNetwork(answer=answering(reply(packed, headers={"content-encoding": "gzip"})))
    assert (await fetched(network)).body == b"words " * 1000


BOMB = gzip.compress(bytes(2 * RATIO_FREE_BYTES))
BAD_ANSWERS = {
    "too long": (reply(bytes(BODY_BYTES_MAX + 1)), Oversize, "more than"),
    "a bomb": (reply(BOMB, headers={"content-encoding": "gzip"}), Oversize, "unpacks"),
    "packed twice": (
        reply(gzip.compress(b"a"), headers={"content-encoding": "gzip, gzip"}),
        Malformed,
        "nobody asked for",
    ),
    "brotli": (reply(b"a", headers={"content-encoding": "br"}), Malformed, "nobody asked for"),
    "not gzip": (reply(b"words", headers={"content-encoding": "gzip"}), Malformed, "no sound gzip"),
    "half of gzip": (
        reply(gzip.compress(b"words " * 99)[:-9], headers={"content-encoding": "gzip"}),
        Malformed,
        "breaks off",
    ),
    "more after gzip": (
        reply(gzip.compress(b"a") + b"b" * 99, headers={"content-encoding": "gzip"}),
        Malformed,
        "after the end of its gzip",
    ),
    "gzip of nothing without end": (
        reply(
            gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * (BODY_BYTES_MAX // 5),
            headers={"content-encoding": "gzip"},
        ),
        Oversize,
        "more than",
    ),
    "shorter than said": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        Malformed,
        "no sound HTTP",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", Malformed, "no sound HTTP"),
    "nothing": (b"", Malformed, "no sound HTTP"),
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000, Malformed, "no sound"),
    "an error": (reply(b"oops", status=500), Malformed, "status 500"),
    "a part": (reply(b"oops", status=206), Malformed, "status 206"),
    "not found": (reply(b"oops", status=404), Malformed, "status 404"),
    "a redirect nowhere": (reply(status=302), Malformed, "without saying where"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
async def test_what_a_server_does_wrong_is_named(case: str) -> None:
    answer, kind, words = BAD_ANSWERS[case]
    with pytest.raises(kind, match=words):
        await fetched(MadeUpNetwork(answer=answering(answer)))


async def test_redirects_end() -> None:
    network = MadeUpNetwork(answer=answering(moved("/again")))
    with pytest.raises(Malformed, match="without end"):
        await fetched(network)
    assert len(network.asked) == REDIRECTS_MAX + 1


async def test_https_is_not_given_up_for_http() -> None:
    # The made-up network speaks no TLS, so the redirect is looked at as such.
    from node.ingest.http_fetch import _target

    found = Response(urls=(), status=302, headers=(("location", URL),), certificates=None, body=b"")
    with pytest.raises(InputError, match="from https to http"):
        _target(read_url("https://example.org/"), found)


async def test_a_credential_goes_to_its_origin_alone() -> None:
    network = MadeUpNetwork(
        answer=lambda asked: (
            moved("http://other.org/second") if "GET /first " in asked else reply(b"words")
        )
    )
    secret = {"authorization": "Bearer abc123"}
    await fetched(network, secret=secret, headers={"accept": "text/plain"})
    assert "authorization: Bearer abc123\r\n" in network.asked[0]
    assert "abc123" not in network.asked[1]
    assert "accept: text/plain\r\n" in network.asked[1]


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"you sent abc123"),
        reply(b"words", headers={"x-echo": "abc123"}),
        moved("/second?token=abc123"),
    ],
)
async def test_an_answer_that_repeats_the_credential_is_not_kept(answer: bytes) -> None:
    network = MadeUpNetwork(
        answer=lambda asked: answer if "GET /first " in asked else reply(b"words")
    )
    with pytest.raises(Malformed, match="repeats the credential") as caught:
        await fetched(network, secret={"authorization": "Bearer abc123"})
    assert "abc123" not in str(caught.value)


async def test_a_server_that_never_ends_is_left_in_time(autojump_clock: MockClock) -> None:
    class Slow(MadeUpNetwork):
        async def resolve(self, host: str, port: int) -> list[str]:
            await trio.sleep_forever()
            raise AssertionError

    with pytest.raises(TooSlow, match="took longer"):
        await fetched(Slow())
    assert trio.current_time() == pytest.approx(FETCH_S_MAX, abs=1)


async def test_over_a_real_socket_a_host_that_the_owner_names_is_reached() -> None:
    network = MadeUpNetwork()
    from node.ingest.guard import real_network
    from node.ingest.http_fetch import HttpFetcher

    fetcher = HttpFetcher(real_network(), network.fetcher.tls)
    async with loopback_server(answering(reply(b"words"))) as port:
        url = f"http://127.0.0.1:{port}/"
        rules = HostRules(allow=(f"127.0.0.1:{port}",))
        found = await fetcher.get(Request(location=read_url(url)), rules)
        assert found.body == b"words"
        with pytest.raises(InputError, match="neither 80 nor 443"):
            await fetcher.get(Request(location=read_url(url)), HostRules())
    with pytest.raises(Unreachable):
        await fetcher.get(Request(location=read_url(url)), rules)


@pytest.mark.parametrize(
    ("rules", "strange", "words"),
    [
        (HostRules(deny=("example.org",)), False, "denies"),
        (HostRules(deny=("*.org",)), False, "denies"),
        (HostRules(deny=("*",), allow=("example.org",)), False, "denies"),
        (HostRules(), True, "for others"),
        (HostRules(strangers=("other.org",)), True, "for others"),
        (HostRules(strangers=("*.example.org",)), True, "for others"),
    ],
)
async def test_the_owners_lists_hold(rules: HostRules, strange: bool, words: str) -> None:
    network = MadeUpNetwork()
    with pytest.raises(InputError, match=words):
        await network.fetcher.get(Request(location=read_url(URL), strange=strange), rules)
    assert network.connected == []


@pytest.mark.parametrize("strangers", [("*",), ("example.org",), ("example.org:80",), ("*.org",)])
async def test_strangers_may_fetch_where_the_owner_says(strangers: tuple[str, ...]) -> None:
    asked = Request(location=read_url(URL), strange=True)
    await MadeUpNetwork().fetcher.get(asked, HostRules(strangers=strangers))


@pytest.mark.parametrize("entry", ["", "a b", "*.", "a*b", "EXAMPLE.org", 'a"b', "http://a/"])
def test_a_list_names_hosts_and_nothing_else(entry: str) -> None:
    with pytest.raises(InputError, match="names no host"):
        HostRules(deny=(entry,))


def test_no_wildcard_opens_a_private_network() -> None:
    with pytest.raises(InputError, match="has to be named"):
        HostRules(allow=("*.lan",))


# robots.txt


ROBOTS = b"User-agent: *\nDisallow: /private\n"


def with_robots(answer: bytes) -> MadeUpNetwork:
    class Site(MadeUpNetwork):
        async def connect_tcp(self, *arguments: object, **settings: object) -> object:  # type: ignore[override]
            stream = await super().connect_tcp(*arguments, **settings)  # type: ignore[arg-type]
            stream._answer = answering(answer)  # type: ignore[attr-defined]
            return stream

    return Site()


async def allowed(network: MadeUpNetwork, *paths: str) -> Robots:
    robots = Robots(network.fetcher)
    for path in paths:
        await robots.check(read_url(f"http://example.org{path}"), HostRules(), strange=False)
    return robots


async def test_what_a_host_does_not_want_is_not_fetched_and_its_rules_are_read_once() -> None:
    network = with_robots(reply(ROBOTS))
    await allowed(network, "/", "/public")
    assert len(network.connected) == 1
    with pytest.raises(InputError, match=r"robots\.txt"):
        await allowed(network, "/private/a")


@pytest.mark.parametrize("status", [404, 403, 410])
async def test_without_rules_all_is_allowed(status: int) -> None:
    await allowed(with_robots(reply(ROBOTS, status=status)), "/private/a")


@pytest.mark.parametrize("answer", [reply(status=503), reply(status=429), b"", b"SSH-2.0\r\n"])
async def test_a_host_in_trouble_is_left_alone(answer: bytes) -> None:
    with pytest.raises(Refused, match="does not say"):
        await allowed(with_robots(answer), "/")


@pytest.mark.parametrize(
    "line", ["Disallow: //[", "Allow: //a℀b/", "Crawl-delay: ²", "Request-rate: ²/3"]
)
async def test_rules_that_nobody_can_read_leave_the_host_alone_and_end_no_peer(line: str) -> None:
    answer = reply(f"User-agent: *\n{line}\n".encode())
    with pytest.raises(Refused, match="does not say"):
        await allowed(with_robots(answer), "/")


def test_the_bomb_is_one() -> None:
    assert len(zlib.decompress(BOMB, 31)) > 200 * len(BOMB)
    assert issubclass(Oversize, BatonError)


async def test_a_strangers_name_holds_up_none_of_the_owners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stranger's name server may take as long as the resolver lets it."""
    ended = threading.Event()

    def asked(host: str, *_: object, **_more: object) -> list[Any]:
        if "strange" in host:
            ended.wait()
        return [(0, 0, 0, "", ("127.0.0.1", 80))]

    monkeypatch.setattr("socket.getaddrinfo", asked)
    fetcher = HttpFetcher(real_network(), TLS)

    async def given_up(number: int) -> None:
        url = read_url(f"http://strange{number}.org/")
        # Of so many the oldest that wait are dropped.
        with trio.move_on_after(0.3), suppress(Unreachable):
            await fetcher.get(Request(location=url, strange=True), HostRules(strangers=("*",)))

    try:
        async with trio.open_nursery() as nursery:
            for number in range(LOOKUPS_MAX + 1):
                nursery.start_soon(given_up, number)
        with trio.fail_after(2.0), pytest.raises(InputError, match="not fetched: 127"):
            await fetcher.get(Request(location=read_url(URL)), HostRules())
    finally:
        ended.set()


async def test_a_crowd_of_keys_at_one_place_holds_up_no_stranger_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    def asked(host: str, *_: object, **_more: object) -> list[Any]:
        if "slow" in host:
            ended.wait()
        return [(0, 0, 0, "", ("127.0.0.1", 80))]

    monkeypatch.setattr("socket.getaddrinfo", asked)
    honest = PeerId(bytes(32))
    fetcher = HttpFetcher(real_network(), TLS, lambda it: "home" if it == honest else "farm")

    async def fetched(host: str, asker: PeerId) -> None:
        request = Request(location=read_url(f"http://{host}/"), strange=True, asker=asker)
        await fetcher.get(request, HostRules(strangers=("*",)))

    async def given_up(number: int) -> None:
        with trio.move_on_after(0.3), suppress(Unreachable):
            await fetched(f"slow{number}.org", PeerId(bytes([number // 4 + 1]) * 32))

    try:
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(given_up, number)
        with trio.fail_after(2.0), pytest.raises(InputError, match="not fetched: 127"):
            await fetched("quick.org", honest)
    finally:
        ended.set()
