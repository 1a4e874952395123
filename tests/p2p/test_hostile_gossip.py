"""What hostile control messages of gossip come to: nothing is kept, called or given twice."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import trio
from libp2p import create_new_ed25519_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr

from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.over_libp2p.gossip import SoundGossip
from p2p.transport import GOSSIP_BYTES_MAX, Endpoint
from tests.p2p.test_hostile_peers import GOSSIP, attack, running_host, still_answers
from tests.p2p.transports import Kind, kind_of


@pytest.fixture
def kind() -> Kind:
    return kind_of("tcp")


@pytest.fixture
async def victim(kind: Kind) -> AsyncIterator[Endpoint]:
    async with kind.open("victim") as endpoint:
        await endpoint.subscribe("topic")
        yield endpoint


@pytest.fixture
async def attacker() -> AsyncIterator[BasicHost]:
    async with running_host(noise=True) as host:
        yield host


def router_of(victim: Endpoint) -> SoundGossip:
    return cast("SoundGossip", cast("LibEndpoint", victim)._pubsub.router)


async def told(attacker: BasicHost, victim: Endpoint, **control: Any) -> None:
    """Say this, and wait until it was read."""
    stream = await attacker.new_stream(await attack(attacker, victim), [GOSSIP])
    message = rpc_pb2.RPC(control=rpc_pb2.ControlMessage(**control))
    await stream.write(encode_varint_prefixed(message.SerializeToString()))
    await trio.sleep(0.3)


async def test_nothing_is_kept_of_topics_that_only_a_stranger_has(
    kind: Kind, victim: Endpoint, attacker: BasicHost
) -> None:
    names = [f"{number}" * 1000 for number in range(100)]
    await told(
        attacker,
        victim,
        ihave=[rpc_pb2.ControlIHave(topicID=it) for it in names],
        graft=[rpc_pb2.ControlGraft(topicID=it) for it in names],
        prune=[rpc_pb2.ControlPrune(topicID=it) for it in names],
    )
    router = router_of(victim)
    assert len(router.back_off) <= 1
    for kept in (router.ihave_message_limits, router.graft_flood_tracking):
        assert all(len(topics) <= 1 for topics in kept.values())
    assert await still_answers(kind, victim)


async def test_who_prunes_us_has_us_call_nobody(victim: Endpoint, attacker: BasicHost) -> None:
    calls = 0

    async def count(_stream: Any) -> None:
        nonlocal calls
        calls += 1

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    pair = create_new_ed25519_key_pair()
    who = ID.from_pubkey(pair.public_key)
    port = listeners[0].socket.getsockname()[1]
    record = PeerRecord(who, [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")])
    other = rpc_pb2.PeerInfo(
        peerID=who.to_bytes(),
        signedPeerRecord=seal_record(record, pair.private_key).marshal_envelope(),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, count, listeners)
        await told(attacker, victim, prune=[rpc_pb2.ControlPrune(topicID="topic", peers=[other])])
        nursery.cancel_scope.cancel()
    assert calls == 0


async def test_a_message_that_is_asked_for_again_and_again_is_given_once(
    victim: Endpoint, attacker: BasicHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    router, sent = router_of(victim), list[Any]()
    await victim.publish("topic", bytes(GOSSIP_BYTES_MAX))
    (name,) = router.mcache.window("topic")
    monkeypatch.setattr(router, "send_rpc", lambda _peer, packet, **_: sent.append(packet))
    asked = rpc_pb2.ControlIWant(messageIDs=[name.hex().encode()] * 50)
    await told(attacker, victim, iwant=[asked] * 4)
    assert sum(len(it.publish) for it in sent) == 1


@pytest.mark.parametrize(
    "control",
    [
        {"iwant": [rpc_pb2.ControlIWant(messageIDs=[b"00"] * 200_000)]},
        {"idontwant": [rpc_pb2.ControlIDontWant()] * 200_000},
    ],
)
async def test_who_names_messages_without_end_is_hung_up_on(
    victim: Endpoint, attacker: BasicHost, control: dict[str, Any]
) -> None:
    await told(attacker, victim, **control)
    assert victim.statistics().gossip_refused == 1
    assert not victim.connected()
