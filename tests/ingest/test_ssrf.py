"""Tricks that have a server fetch from its own network: each is refused, and nothing is dialled.

The made-up network answers to whatever is dialled, and reads odd numbers as the C library does: so
a trick that gets through is seen by its connection, not by a parser of the test's own.
"""

import pytest

from node.ingest.http_fetch import Request
from node.ingest.location import HostRules, read_url
from tests.ingest.servers import PUBLIC, MadeUpNetwork, answering, moved, reply
from wire.errors import BatonError, InputError

# As a source, or as whoever redirects, would write them.
URLS = (
    # This machine, by its usual names.
    "http://127.0.0.1/",
    "http://127.8.9.10/",
    "http://0.0.0.0/",
    "http://0/",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://www.localhost/",
    "http://localhost.localdomain.localhost/",
    "http://printer/",
    "http://printer.local/",
    "http://router.lan/",
    "http://db.internal/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://nas.home.arpa/",
    "http://wiki.corp/",
    # Numbers as the C library reads them.
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7F.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0.0.01/",
    "http://127.0.0.1./",
    "http://00000177.0.0.1/",
    "http://3232235521/",
    # Private, link-local, a carrier's, and other networks that are no public host.
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.254/",
    "http://192.168.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.1.1/",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine?comp=goalstate",
    "http://192.0.0.192/opc/v2/",
    "http://198.18.0.1/",
    "http://192.0.2.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://192.88.99.1/",
    # IPv6, and IPv4 inside it.
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:10.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::8.8.8.8]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a00:1::1]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "http://[2606:4700::5efe:127.0.0.1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[100::1]/",
    # Two parsers that read one URL in two ways.
    "http://example.org@127.0.0.1/",
    "http://example.org:80@127.0.0.1/",
    "http://user:secret@example.org/",
    "http://example.org#@127.0.0.1:22/../",
    "http://127.0.0.1\\@example.org/",
    "http://example.org\\.127.0.0.1/",
    "http://127.0.0.1%2f@example.org/",
    "http://127%2e0%2e0%2e1/",
    "http://%31%32%37.0.0.1/",
    "http:127.0.0.1/",
    "http:/127.0.0.1/",
    "http:///127.0.0.1/",
    "//127.0.0.1/",
    " http://127.0.0.1/",
    "http://127.0.0.1\t/",
    "http://example.org\r\nhost: 127.0.0.1/",
    "http://exa mple.org/",
    "http://example..org/",
    "http://-example.org/",
    "http://" + "a" * 64 + ".org/",
    # Letters that are mapped to others.
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://127.0.0.1/",
    "http://127.0.0\u200b.1/",
    "http://local\u00adhost/",
    "http://ⓛocalhost/",
    "http://localho\u017ft/",
    # Ports and schemes of other services.
    "http://example.org:22/",
    "http://example.org:6379/",
    "http://example.org:25/",
    "https://example.org:8443/",
    "http://example.org:0/",
    "http://example.org:65536/",
    "http://example.org:99999999999/",
    "http://example.org:-1/",
    "file:///etc/passwd",
    "ftp://example.org/",
    "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:11211/",
    "unix:///run/docker.sock",
    "jar:http://example.org!/",
    "data:text/plain,hello",
    "javascript:1",
    "http://something.onion/",
    "",
)


def judged(network: MadeUpNetwork) -> None:
    """Nothing but the public server was dialled, at its usual port."""
    assert set(network.connected) <= {(PUBLIC, 80), (PUBLIC, 443)}


@pytest.mark.parametrize("url", URLS)
async def test_a_trick_in_a_url_reaches_nothing(url: str) -> None:
    network = MadeUpNetwork()
    with pytest.raises(BatonError):
        await network.fetcher.get(Request(location=read_url(url)), HostRules())
    if "#" not in url:
        assert network.connected == []
    judged(network)


@pytest.mark.parametrize("url", URLS)
async def test_a_trick_in_a_redirect_reaches_nothing_but_who_redirected(url: str) -> None:
    network = MadeUpNetwork()
    network.answer = lambda asked: moved(url) if "GET /first" in asked else reply(b"no")
    try:
        found = await network.fetcher.get(
            Request(location=read_url("http://example.org/first")), HostRules()
        )
    except BatonError:
        assert network.connected[:1] == [(PUBLIC, 80)]
    else:
        # What a browser would read as a path of the same host, or as what comes after `#`.
        assert {read_url(it).host for it in found.urls} == {"example.org"}
    judged(network)


# Answers of DNS to a name that looks like any other.
ADDRESSES = (
    ["127.0.0.1"],
    ["10.1.2.3"],
    ["169.254.169.254"],
    ["100.64.1.1"],
    ["::1"],
    ["::ffff:192.168.1.1"],
    ["64:ff9b::c0a8:101"],
    ["2002:c0a8:101::1"],
    ["2001::1"],
    ["fe80::1%2"],
    ["fd12:3456::1"],
    [PUBLIC, "127.0.0.1"],
    ["2606:2800:220:1::1", "::1"],
    ["0.0.0.0"],
    ["not an address"],
    [],
)


@pytest.mark.parametrize("addresses", ADDRESSES, ids=str)
async def test_a_name_with_one_bad_address_is_not_dialled(addresses: list[str]) -> None:
    network = MadeUpNetwork(names={"example.org": [addresses]})
    with pytest.raises(BatonError):
        await network.fetcher.get(Request(location=read_url("http://example.org/")), HostRules())
    assert network.connected == []


async def test_an_answer_of_dns_that_changes_is_asked_for_once_and_dialled_as_it_was() -> None:
    network = MadeUpNetwork(names={"example.org": [[PUBLIC], ["127.0.0.1"]]})
    found = await network.fetcher.get(
        Request(location=read_url("http://example.org/")), HostRules()
    )
    assert found.body == b"fetched"
    assert network.looked_up == ["example.org"]
    assert network.connected == [(PUBLIC, 80)]


async def test_a_name_that_changes_between_two_hops_is_judged_again() -> None:
    network = MadeUpNetwork(names={"example.org": [[PUBLIC], ["127.0.0.1"]]})
    network.answer = answering(moved("/second"))
    with pytest.raises(InputError, match="loopback"):
        await network.fetcher.get(Request(location=read_url("http://example.org/")), HostRules())
    assert network.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        (PUBLIC, PUBLIC),
        (f"::ffff:{PUBLIC}", PUBLIC),
        ("2606:2800:220:1::1", "2606:2800:220:1::1"),
        ("64:ff9b::5db8:d822", "64:ff9b::5db8:d822"),
    ],
)
async def test_public_addresses_are_dialled(address: str, dialled: str) -> None:
    network = MadeUpNetwork(names={"example.org": [[address]]})
    await network.fetcher.get(Request(location=read_url("http://example.org/")), HostRules())
    assert network.connected == [(dialled, 80)]


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("127.0.0.1", "http://127.0.0.1/"),
        ("prices.lan:9000", "http://prices.lan:9000/"),
        ("[::1]:8080", "http://[::1]:8080/"),
    ],
)
async def test_what_the_owner_names_is_reached_and_nothing_beside_it(
    allowed: str, url: str
) -> None:
    rules, network = (
        HostRules(allow=(allowed,)),
        MadeUpNetwork(names={"prices.lan": [["10.0.0.9"]]}),
    )
    await network.fetcher.get(Request(location=read_url(url)), rules)
    assert len(network.connected) == 1
    for beside in ("http://127.0.0.1:8081/", "http://127.0.0.2/", "http://www.prices.lan:9000/"):
        with pytest.raises(InputError):
            await network.fetcher.get(Request(location=read_url(beside)), rules)
    assert len(network.connected) == 1


def test_the_table_is_as_long_as_it_has_to_be() -> None:
    assert len(set(URLS)) + len(ADDRESSES) >= 60
