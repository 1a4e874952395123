"""Names in the DNS tell where peers may be; what they say is a hint, bounded, and never more."""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
from trio.testing import MockClock

from p2p import seeds
from p2p.adverts import Capacity, Environment
from p2p.over_libp2p import MemoryNetwork, MemoryTransport, Site
from p2p.peers import Peers, PeersConfig, Surroundings, open_peers
from p2p.seed_dns import DnsSeeds
from p2p.seed_records import RECORDS_MAX, SEEDS_MAX, checked_names, seeds_of
from tests.p2p.keepers import START_S
from tests.p2p.transports import key_of, kind_of, until
from wire import limits
from wire.errors import InputError, TransportError

ME, OTHER = key_of("me").peer, key_of("other").peer
NAME = "seeds.baton.test"
PUBLIC = f"/ip4/45.1.0.9/tcp/4747/p2p/{OTHER}"


def text(address: str) -> bytes:
    return b"dnsaddr=" + address.encode()


# What a name tells


def test_the_peers_that_a_name_tells_of_are_taken_and_its_other_records_passed_over() -> None:
    other = f"/ip6/2a00:1:0:0::9/tcp/1/p2p/{OTHER}"
    found = seeds_of(
        [b"v=spf1 -all", text(PUBLIC), text(PUBLIC), text(other), text(PUBLIC[:-52] + str(ME))],
        ME,
        private=False,
    )
    assert found.found == {OTHER: (PUBLIC, f"/ip6/2a00:1::9/tcp/1/p2p/{OTHER}")}
    assert not found.refused


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/",
        "/ip4/45.1.0.9/tcp/4747",
        f"/dns4/evil.test/tcp/4747/p2p/{OTHER}",
        f"/ip4/45.1.0.9/udp/4747/p2p/{OTHER}",
        f"/ip4/45.1.0.9/tcp/0/p2p/{OTHER}",
        f"/ip4/45.1.0.9/tcp/70000/p2p/{OTHER}",
        f"/ip4/45.1.0.999/tcp/4747/p2p/{OTHER}",
        f"/ip6/45.1.0.9/tcp/4747/p2p/{OTHER}",
        f"/ip6/fe80::1%eth0/tcp/4747/p2p/{OTHER}",
        "/ip4/45.1.0.9/tcp/4747/p2p/nobody",
        f"{PUBLIC}/p2p-circuit/p2p/{ME}",
        f"{PUBLIC}\n",
        f"{PUBLIC}é",
        "/ip4/" + "4" * 10_000,
    ],
)
def test_what_is_no_address_of_one_peer_is_refused(address: str) -> None:
    found = seeds_of([text(address)], ME, private=True)
    assert not found.found
    assert found.refused == {"malformed": 1}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.2",
        "224.0.0.1",
    ],
)
def test_a_name_aims_no_call_at_this_machine_or_its_network_unless_that_was_said(host: str) -> None:
    record = text(PUBLIC.replace("45.1.0.9", host))
    found = seeds_of([record], ME, private=False)
    assert not found.found
    assert found.refused == {"private address": 1}
    assert seeds_of([record], ME, private=True).found
    mapped = text(f"/ip6/::ffff:{host}/tcp/4747/p2p/{OTHER}")
    assert not seeds_of([mapped], ME, private=False).found


def test_an_answer_of_any_size_tells_of_a_few_peers() -> None:
    peers = [key_of(str(it)).peer for it in range(2 * SEEDS_MAX)]
    found = seeds_of([text(f"/ip4/45.1.0.9/tcp/1/p2p/{it}") for it in peers], ME, private=False)
    assert len(found.found) == SEEDS_MAX
    assert found.refused == {"too many": SEEDS_MAX}
    ports = [text(f"/ip4/45.1.0.9/tcp/{it}/p2p/{OTHER}") for it in range(1, 10_000)]
    found = seeds_of(ports, ME, private=False)
    assert len(found.found[OTHER]) == limits.ADVERT_ADDRESSES_MAX
    assert found.refused["too many"] < RECORDS_MAX
    assert found.refused["too many records"] == 1


@pytest.mark.parametrize(
    "name", ["", "a b", "a..b", "-a.b", "x" * 64, "a." * 200, "é.test", "a/b", "192.0.2.1"]
)
def test_a_name_that_cannot_be_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match="is no name in the DNS") as caught:
        checked_names([name])
    assert len(str(caught.value)) < 200


def test_names_are_few_and_each_is_asked_once() -> None:
    assert checked_names(["Seeds.Example.org.", "seeds.example.org"]) == ("seeds.example.org",)
    with pytest.raises(InputError, match="at most 4"):
        checked_names([f"s{it}.test" for it in range(5)])


# Asking a real server

# What a server answers is waited for as long as a busy machine takes to make and read it.
ANSWERED_S = 60.0

Answering = Callable[[dns.message.Message, bool], bytes | None]


def telling(*records: bytes, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Answering:
    """A server's answer with these text records; over UDP no more than fit."""

    def answer(query: dns.message.Message, is_udp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.set_rcode(rcode)
        name = query.question[0].name
        if records:
            quoted = [f'"{it.decode()}"' for it in records]
            reply.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", quoted))
        if is_udp and sum(map(len, records)) > 1000:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        return reply.to_wire(max_size=65_535)

    return answer


@contextmanager
def name_server(answering: Answering) -> Iterator[DnsSeeds]:
    """A small server for one name, by UDP and TCP, in threads; and who asks it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))

        def by_udp() -> None:
            while data := udp.recvfrom(65_535):
                if data[0] == b"end":
                    return
                reply = answering(dns.message.from_wire(data[0]), True)
                if reply is not None:
                    udp.sendto(reply, data[1])

        def by_tcp() -> None:
            while True:
                with tcp.accept()[0] as connection:
                    head = connection.recv(2)
                    if head == b"":
                        return
                    query = connection.recv(int.from_bytes(head))
                    reply = answering(dns.message.from_wire(query), False) or b""
                    connection.sendall(len(reply).to_bytes(2) + reply)

        threads = [threading.Thread(target=it) for it in (by_udp, by_tcp)]
        for it in threads:
            it.start()
        try:
            yield DnsSeeds(("127.0.0.1",), port)
        finally:
            udp.sendto(b"end", ("127.0.0.1", port))
            socket.create_connection(("127.0.0.1", port)).close()
            for it in threads:
                it.join()


async def test_the_text_records_of_a_name_are_read_whole() -> None:
    with name_server(telling(b"v=spf1", text(PUBLIC))) as service:
        assert set(await service.texts(NAME, ANSWERED_S)) == {b"v=spf1", text(PUBLIC)}


async def test_an_answer_as_large_as_can_be_is_cut_while_others_run() -> None:
    many = telling(*(b"%06d" % it for it in range(1500)))
    with name_server(many) as service:
        assert len(await service.texts(NAME, ANSWERED_S)) == RECORDS_MAX + 1


@pytest.mark.parametrize(
    ("answering", "words"),
    [
        (telling(rcode=dns.rcode.NXDOMAIN), "does not exist"),
        (telling(), "no text records"),
        (telling(rcode=dns.rcode.SERVFAIL), "refused or failed"),
        (telling(rcode=dns.rcode.REFUSED), "refused or failed"),
    ],
)
async def test_a_server_that_says_no_is_a_transport_error_with_its_reason(
    answering: Answering, words: str
) -> None:
    await is_no_use(answering, words, ANSWERED_S)


@pytest.mark.parametrize(
    ("answering", "words"),
    [
        (lambda _query, _udp: None, "answered within"),
        (lambda _query, _udp: b"", "n"),
        (lambda _query, _udp: Random(7).randbytes(500), "n"),
        # Another question's answer is none, and neither is a part of one.
        (lambda _query, udp: telling(b"x")(dns.message.make_query("other.test", "TXT"), udp), "n"),
        (lambda query, udp: (telling(text(PUBLIC))(query, udp) or b"")[:-9], "n"),
    ],
)
async def test_a_server_that_answers_with_nothing_of_use_is_a_transport_error(
    answering: Answering, words: str
) -> None:
    await is_no_use(answering, words, 0.4)


async def is_no_use(answering: Answering, words: str, deadline_s: float) -> None:
    with name_server(answering) as service:
        with pytest.raises(TransportError, match=words) as caught:
            await service.texts(NAME, deadline_s)
        assert "\n" not in caught.value.message
        assert len(caught.value.message) < 300


# Whom it brings together


@dataclass(slots=True)
class Names:
    """Names in memory; what is no tuple of records is what is wrong."""

    said: tuple[bytes, ...] | str = ()
    asked_at_s: list[float] = field(default_factory=list)

    async def texts(self, name: str, deadline_s: float) -> tuple[bytes, ...]:
        assert name == NAME
        assert deadline_s > 0
        self.asked_at_s.append(trio.current_time())
        if isinstance(self.said, str):
            raise TransportError(self.said)
        return self.said


@asynccontextmanager
async def opened(
    memory: MemoryNetwork, name: str, host: str, names: Names | None = None, **config: object
) -> AsyncIterator[Peers]:
    key, random = key_of(name), Random(name)
    memory.routers.put(str(key.peer), Site(host))
    ahead_s = START_S - trio.current_time()
    environment = Environment(
        wall_s=lambda: ahead_s + trio.current_time(), random=random, entropy=random.randbytes
    )
    settings = {"listen": (f"/ip4/{host}/tcp/4747",), "seed_names": (NAME,) if names else ()}
    peers_config = PeersConfig(**(settings | config))  # type: ignore[arg-type]
    transport, around = MemoryTransport(memory, wall_ns=lambda: 1), Surroundings(seeds=names)
    async with open_peers(
        transport, key, peers_config, environment, Capacity, None, around
    ) as peers:
        await peers.join()
        yield peers


async def test_a_peer_that_knows_nobody_finds_a_network_by_a_name(
    autojump_clock: MockClock,
) -> None:
    memory = MemoryNetwork()
    async with opened(memory, "first", "45.1.0.1") as first:
        names = Names((text(f"/ip4/45.1.0.1/tcp/4747/p2p/{first.me}"),))
        began_at_s = trio.current_time()
        async with opened(memory, "new", "45.2.0.1", names) as new:
            await until(lambda: first.me in new.connected(), 5)
            assert names.asked_at_s[0] >= began_at_s + seeds.AFTER_S
            assert new.seeds is not None
            assert new.seeds.as_map()[NAME]["found"] == 1
            # Who is in is not asking again and again.
            await trio.sleep(seeds.SELDOM_S / 36)
            assert len(names.asked_at_s) <= 2


async def test_a_name_that_fails_is_asked_again_ever_more_seldom_and_at_once_after_a_change(
    autojump_clock: MockClock,
) -> None:
    memory, names = MemoryNetwork(), Names("no name server answered")
    async with opened(memory, "new", "45.2.0.1", names) as new:
        await trio.sleep(300)
        pauses = [b - a for a, b in zip(names.asked_at_s, names.asked_at_s[1:], strict=False)]
        assert pauses[0] <= 2.0
        assert all(pause <= seeds.AGAIN_S_MAX + 1 for pause in pauses)
        assert min(pauses[-2:]) >= seeds.AGAIN_S_MAX / 2
        assert "no name server answered" in new.problems[f"seeds of {NAME}"]
        assert new.seeds is not None
        before = len(names.asked_at_s)
        new.seeds.hurry()
        await trio.sleep(2 * seeds.LOOK_S)
        assert len(names.asked_at_s) == before + 1


async def test_whoever_answers_at_a_seed_has_to_be_who_the_record_says(
    autojump_clock: MockClock,
) -> None:
    memory = MemoryNetwork()
    async with opened(memory, "first", "45.1.0.1") as first:
        names = Names((text(PUBLIC.replace("45.1.0.9", "45.1.0.1")),))
        async with opened(memory, "new", "45.2.0.1", names) as new:
            await trio.sleep(30)
            assert not new.connected()
            assert not first.connected()
        async with opened(
            memory,
            "other",
            "45.3.0.1",
            Names((text(f"/ip4/45.1.0.1/tcp/4747/p2p/{first.me}"),)),
            network="another",
        ) as other:
            await trio.sleep(30)
            assert first.me not in other.view.connected


async def test_when_all_are_lost_the_names_are_asked_again(autojump_clock: MockClock) -> None:
    memory, names = MemoryNetwork(), Names()
    async with opened(memory, "new", "45.2.0.1", names) as new:
        async with opened(memory, "first", "45.1.0.1") as first:
            names.said = (text(f"/ip4/45.1.0.1/tcp/4747/p2p/{first.me}"),)
            await until(lambda: first.me in new.connected(), 120)
        await trio.sleep(200)
        before = len(names.asked_at_s)
        async with opened(memory, "second", "45.4.0.1") as second:
            names.said = (text(f"/ip4/45.4.0.1/tcp/4747/p2p/{second.me}"),)
            await until(lambda: second.me in new.connected(), 120)
        assert len(names.asked_at_s) > before


async def test_a_real_name_server_brings_two_real_peers_together() -> None:
    transport = kind_of("tcp").transport
    environment = Environment(
        wall_s=lambda: START_S + trio.current_time(), random=Random(1), entropy=Random(1).randbytes
    )
    listen = ("/ip4/127.0.0.1/tcp/0",)
    async with open_peers(
        transport, key_of("first"), PeersConfig(listen=listen), environment, Capacity
    ) as first:
        with name_server(telling(text(first.endpoint.addresses[0]))) as service:
            config = PeersConfig(listen=listen, seed_names=(NAME,), private_seeds=True)
            async with open_peers(
                *(transport, key_of("new"), config, environment, Capacity, None),
                Surroundings(seeds=service),
            ) as new:
                await new.join()
                await until(lambda: first.me in new.connected(), 20)
