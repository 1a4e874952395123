"""A peer among peers: meeting, keeping up, and blaming nobody for what another did."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2p.connect import PATIENCE_S
from p2p.dialing import Dial
from p2p.neighbours import PARTED_S
from p2p.peers import Handler
from p2p.score import HALF_LIFE_S, Offence, Standing
from p2p.streams import StreamsInUse
from p2p.typed_call import TypedCall, refusal_of
from tests.p2p.adverts import advert_of
from tests.p2p.keepers import Keeper, Neighbourhood, open_neighbourhood
from tests.p2p.transports import key_of, until
from wire import limits
from wire.advert import Advert
from wire.codec import unpack
from wire.content import ContentId
from wire.errors import (
    InputError,
    Refused,
    RemoteProtocolError,
    TooSlow,
    TransportError,
    Unreachable,
)
from wire.kinds import Kind, RefusalCode
from wire.message import Accept, Hello, Message, Offer, Ping, Pong, Refuse, Want, Welcome
from wire.signed import open_signed, sign


@pytest.fixture
async def hood() -> AsyncIterator[Neighbourhood]:
    async with open_neighbourhood() as neighbourhood:
        yield neighbourhood


WANT = Want(block=ContentId.of(b"any"))


async def ask(
    asker: Keeper, other: Keeper, message: Message = WANT, *, deadline_s: float = 5.0
) -> Message:
    """Say one thing, and hear what comes back."""
    async with asker.peers.call(other.me, deadline_s=deadline_s) as typed_call:
        await typed_call.send(message)
        return await typed_call.receive()


def refusing(words: str) -> Handler:
    async def refuse(typed_call: TypedCall, _: Message) -> None:
        await typed_call.send(refusal_of(Refused(words)))

    return refuse


async def test_peers_that_join_hear_of_each_other_and_connect(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    for name in "abcd":
        await hood.add(name)
    await hood.acquainted()
    await until(lambda: all(len(it.peers.connected()) == 3 for it in hood.keepers))
    assert all(it.peers.statistics().adverts_heard >= 3 for it in hood.keepers)
    assert all(it.peers.view.connected == it.peers.connected() for it in hood.keepers)
    await trio.sleep(30)
    assert [it.peers.answered_last_minute() for it in hood.keepers] == [(3, 3)] * 4


async def test_nobody_is_forgotten_while_it_lives_and_everybody_who_is_gone_is(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first = await hood.add("first")
    async with hood.open("second") as second:
        await second.peers.join()
        await until(lambda: first.peers.view.advert_of(second.me) is not None)
        await trio.sleep(600)
        assert first.peers.view.advert_of(second.me) is not None
    await until(lambda: first.peers.view.advert_of(second.me) is None)
    await trio.sleep(600)
    assert not first.peers.connected()
    assert not first.peers.view.connected


async def test_a_message_out_of_turn_is_the_fault_of_who_sent_it(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    honest = await hood.add("honest")
    rude = await hood.add("rude")
    async with rude.peers.call(honest.me, deadline_s=5) as typed_call:
        await typed_call.channel.send(b"\x92\x1f\x81\xa4data\xc4\x00")
        with pytest.raises(TransportError):
            await typed_call.receive()
    await until(lambda: honest.standing_of(rude) is not Standing.GOOD)
    assert str(rude.me) in honest.peers.problems
    assert honest.peers.statistics().calls_failed > 0


async def test_an_answer_out_of_turn_is_the_fault_of_who_answered(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    async def pong(typed_call: TypedCall, _: Message) -> None:
        await typed_call.channel.send(b"\x92\x0d\x81\xa8same_key\xc0")

    rude = await hood.add("rude", want=pong)
    honest = await hood.add("honest")
    with pytest.raises(RemoteProtocolError):
        await ask(honest, rude)
    assert honest.standing_of(rude) is Standing.UNWELCOME
    assert rude.standing_of(honest) is Standing.GOOD


async def test_a_refusal_is_no_offence(autojump_clock: MockClock, hood: Neighbourhood) -> None:
    busy = await hood.add("busy", want=refusing("not now"))
    asker = await hood.add("asker")
    assert await ask(asker, busy) == Refuse(reason="not now", retry_after_ms=None)
    assert asker.cost_of(busy) == 0


async def test_silence_costs_a_little_each_time(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    async def silence(typed_call: TypedCall, _: Message) -> None:
        await trio.sleep_forever()

    mute = await hood.add("mute", want=silence)
    asker = await hood.add("asker")
    for expected in (Standing.GOOD, Standing.GOOD, Standing.GOOD, Standing.UNWELCOME):
        with pytest.raises(TooSlow):
            await ask(asker, mute, deadline_s=PATIENCE_S)
        assert asker.standing_of(mute) is expected


async def test_a_deadline_too_short_for_anybody_is_not_the_peers_fault(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    async def slow(typed_call: TypedCall, _: Message) -> None:
        await trio.sleep(1)
        await typed_call.send(refusal_of(Refused("done")))

    honest = await hood.add("honest", want=slow)
    asker = await hood.add("asker")
    for _ in range(20):
        with pytest.raises(TooSlow):
            await ask(asker, honest, deadline_s=0.1)
    assert asker.cost_of(honest) == 0


async def test_who_has_answered_is_not_to_blame_when_the_deadline_passes_then(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    async def begin(typed_call: TypedCall, _: Message) -> None:
        await typed_call.send(Accept(expected_ms=1))
        await trio.sleep_forever()

    offer = Offer(
        task=b"t",
        stage=0,
        receipts=(),
        input=None,
        deadline_ms=1,
        units=1,
        resume=None,
        avoid=(),
    )
    honest = await hood.add("honest")
    honest.peers.handlers[Offer] = begin
    asker = await hood.add("asker")

    async def hear_all() -> None:
        async with asker.peers.call(honest.me, deadline_s=2 * PATIENCE_S) as typed_call:
            await typed_call.send(offer)
            await typed_call.expect(Accept)
            await typed_call.receive()

    with pytest.raises(TooSlow):
        await hear_all()
    assert asker.cost_of(honest) == 0


async def test_streams_that_are_all_in_use_are_not_the_peers_fault(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    honest = await hood.add("honest")
    asker = await hood.add("asker")

    async with AsyncExitStack() as all_of_them:
        for _ in range(limits.STREAMS_PER_PEER_MAX):
            typed_call = asker.peers.call(honest.me, deadline_s=60)
            await all_of_them.enter_async_context(typed_call)
        with pytest.raises(StreamsInUse):
            await ask(asker, honest, deadline_s=2 * PATIENCE_S)
        assert asker.cost_of(honest) == 0


async def test_a_banned_peer_is_not_served_and_comes_back_when_it_mends_its_ways(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    honest = await hood.add("honest", want=refusing("heard"))
    banned = await hood.add("banned")
    honest.peers.offended(banned.me, Offence.WRONG_ANSWER)
    answer = await ask(banned, honest)
    assert isinstance(answer, Refuse)
    assert "banned" in answer.reason
    # It swaps on all the while, as honest software does: that is no new offence.
    await trio.sleep(HALF_LIFE_S)
    assert honest.standing_of(banned) is Standing.UNWELCOME
    await ask(banned, honest)


async def test_another_network_is_told_so_and_not_met(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    await hood.add("first")
    async with hood.open("stranger", network="elsewhere") as stranger:
        with pytest.raises(Unreachable, match="this is the network 'baton'") as refused:
            await stranger.peers.join()
        assert "--network" in refused.value.todo
    assert hood.keepers[0].peers.view.advert_of(stranger.me) is None


async def test_calls_to_one_peer_at_once_all_hear_why_they_are_refused(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    await hood.add("first")
    heard: list[str] = []
    async with hood.open("stranger", network="elsewhere") as stranger:
        dial = Dial(None, stranger.peers.config.bootstraps)

        async def call() -> None:
            with pytest.raises(Refused, match="this is the network 'baton'") as refused:
                await stranger.peers.neighbours.call(dial)
            heard.append(refused.value.message)

        async with trio.open_nursery() as calls:
            for _ in range(8):
                calls.start_soon(call)
        assert not stranger.peers.connected()
    assert len(heard) == 8


async def test_who_is_refused_and_does_not_hang_up_is_hung_up_on(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, rude = await hood.add("first"), await hood.add("rude")
    rude.peers.neighbours.network = "elsewhere"
    for _ in range(3):
        # Asking again does not prolong it.
        assert isinstance(await ask(rude, first, rude.peers.neighbours.hello()), Refuse)
        assert rude.me in first.peers.connected()
        await trio.sleep(0.9)
    await trio.sleep(PARTED_S)
    assert rude.me not in first.peers.connected()


async def test_through_a_peer_that_called_both_two_networks_hear_nothing_of_each_other(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    here, there = (
        await hood.add("here"),
        await hood.add("there", network="elsewhere", bootstraps=()),
    )
    bootstraps = (here.peers.endpoint.addresses[0], there.peers.endpoint.addresses[0])
    async with hood.open("between", bootstraps=bootstraps) as between:
        await between.peers.join()
        await until(lambda: here.peers.view.advert_of(between.me) is not None)
        for _ in range(60):
            await trio.sleep(1.0)
            assert between.peers.view.advert_of(there.me) is None
            assert len(here.peers.view) == 1
            assert not there.peers.view
        assert between.peers.connected() == {here.me}


async def test_who_answers_a_hello_late_is_taken_for_one_of_us_only_then(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    """As on busy machines: whoever joins waits a moment for the others once one has answered."""
    here, ours, there = (
        await hood.add("here"),
        await hood.add("ours"),
        await hood.add("there", network="elsewhere", bootstraps=()),
    )

    until_at_s = trio.current_time() + 30

    def late(keeper: Keeper) -> Handler:
        answer = keeper.peers.handlers[Hello]

        async def answer_late(typed_call: TypedCall, message: Message) -> None:
            await trio.sleep_until(until_at_s)
            await answer(typed_call, message)

        return answer_late

    for keeper in (ours, there):
        keeper.peers.handlers[Hello] = late(keeper)
    bootstraps = tuple(it.peers.endpoint.addresses[0] for it in (here, ours, there))
    async with hood.open("between", bootstraps=bootstraps) as between:
        await between.peers.join()
        assert between.peers.connected() == {here.me, ours.me, there.me}
        for _ in range(60):
            await trio.sleep(1.0)
            assert between.peers.view.advert_of(there.me) is None
            assert not there.peers.view
        assert between.peers.connected() == {here.me, ours.me}
        assert ours.peers.view.advert_of(between.me) is not None
        assert not between.peers.neighbours._strange


async def test_a_peer_of_another_version_is_told_which_is_spoken(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    hello = second.peers.neighbours.hello()
    newer = Hello(
        version=limits.PROTOCOL_VERSION + 1,
        network=hello.network,
        instance=hello.instance,
        wall_ms=hello.wall_ms,
        wanted=0,
        advert=hello.advert,
    )
    answer = await ask(second, first, newer)
    assert isinstance(answer, Refuse)
    assert answer.cause is RefusalCode.STRANGER
    ours = limits.PROTOCOL_VERSION
    assert answer.reason == f"you speak protocol version {ours + 1}, this network {ours}"


async def test_a_peer_of_the_first_version_can_read_why_it_is_refused(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    old = replace(second.peers.neighbours.hello(), version=1, wanted=0)
    async with second.peers.call(first.me, deadline_s=10) as call:
        await call.send(old)
        # Its refusals had two fields, and it read no others.
        number, fields = unpack(await call.channel.receive())
    assert number == Kind.REFUSE
    assert fields == {
        "reason": f"you speak protocol version 1, this network {limits.PROTOCOL_VERSION}",
        "retry_after_ms": None,
    }


async def test_what_version_a_peer_speaks_is_asked_once_for_each_start_of_it(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    # The second called the first, which has heard of no version yet, and asks.
    assert second.me in first.peers.connected()
    greeted = second.peers.served
    for _ in range(3):
        version = await first.peers.neighbours.version_of(second.me, deadline_s=10)
        assert version == limits.SPOKEN_VERSION == 21
    assert second.peers.served - greeted == 1
    # Another start of it may speak another version.
    second.peers.neighbours.speaks = limits.PROTOCOL_VERSION
    again = replace(second.peers.neighbours.hello(), instance=bytes(8), wanted=0)
    await ask(second, first, again)
    assert (
        await first.peers.neighbours.version_of(second.me, deadline_s=10) == limits.PROTOCOL_VERSION
    )


async def test_a_hello_with_anothers_advert_is_an_offence(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    hello = second.peers.neighbours.hello()
    stolen = Hello(
        version=hello.version,
        network=hello.network,
        instance=hello.instance,
        wall_ms=hello.wall_ms,
        wanted=0,
        advert=advert_of("somebody else").raw,
    )
    with pytest.raises(TransportError):
        await ask(second, first, stolen)
    assert first.standing_of(second) is Standing.UNWELCOME
    assert first.peers.view.advert_of(key_of("somebody else").peer) is None


async def test_joining_without_an_answer_names_what_was_tried_and_what_to_do(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    nowhere = f"/memory/77/p2p/{key_of('nobody').peer}"
    async with hood.open("alone", bootstraps=(nowhere,)) as alone:
        with pytest.raises(Unreachable, match="no bootstrap answers") as unreachable:
            await alone.peers.join()
    assert "python -m node join" in unreachable.value.todo


async def test_who_keeps_calling_starts_alone_says_why_and_meets_the_network_later(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    async with hood.open("first") as first:
        address = first.peers.endpoint.addresses[0]
    async with hood.open("late", bootstraps=(address,), keep_calling=True) as late:
        await late.peers.join()
        assert "no bootstrap answers" in late.peers.neighbours.unmet
        assert address.partition("/p2p/")[0] in late.peers.neighbours.unmet
        # A power cut of ten minutes.
        await trio.sleep(600.0)
        assert late.peers.neighbours.unmet
        async with hood.open("first", listen=(address.partition("/p2p/")[0],)) as first:
            with trio.fail_after(late.peers.dialing.config.retry_s_max + 10.0):
                while first.me not in late.peers.connected():
                    await trio.sleep(1.0)
            await until(lambda: not late.peers.neighbours.unmet)


async def test_who_keeps_calling_is_told_at_once_of_an_address_that_cannot_be_one(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    async with hood.open("typo", bootstraps=("/memry/1/p2p/x",), keep_calling=True) as typo:
        # The calls are made at once, so what one raises comes in a group.
        with pytest.raises(BaseExceptionGroup) as caught:
            await typo.peers.join()
        assert caught.group_contains(InputError, match="is not an address")


async def test_a_network_that_refuses_is_an_error_also_for_who_keeps_calling(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first = await hood.add("first")
    where = first.peers.endpoint.addresses[:1]
    async with hood.open("other", bootstraps=where, keep_calling=True, network="other") as other:
        with pytest.raises(Unreachable, match="does not take this peer"):
            await other.peers.join()


async def test_a_peer_that_remembers_others_finds_its_network_without_the_bootstrap(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    await hood.add("first")
    second = await hood.add("second")
    nowhere = f"/memory/77/p2p/{key_of('nobody').peer}"
    async with hood.open("late", bootstraps=(nowhere,)) as late:
        late.peers.dialing.learn(second.me, second.peers.endpoint.addresses)
        await late.peers.join()
        assert second.me in late.peers.connected()


async def test_a_clock_wrong_by_an_hour_is_found_out_when_joining(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    await hood.add("first")
    async with hood.open("late", clock_ahead_s=3600.0) as late:
        with pytest.raises(InputError, match=r"3600 s ahead of that of the only peer"):
            await late.peers.join()
    await hood.add("a little late", clock_ahead_s=120.0)


async def test_addresses_that_cannot_be_dialled_harm_nobody_but_their_peer(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, other = await hood.add("first"), await hood.add("other")
    good = other.peers.endpoint.addresses[0]
    lies = (
        ("nowhere at all",),
        ("/ip4/192.0.2.1/udp/4001/quic-v1",),
        (f"/ip6zone/1/tcp/1/p2p/{key_of('liar 2').peer}",),
        (good,),
        (f"/memory/78/p2p/{first.me}",),
    )
    for number, addresses in enumerate(lies):
        lie = advert_of(f"liar {number}", addresses=addresses, seq=1)
        first.peers.advertiser.take_in(lie)
        with pytest.raises(Unreachable):
            async with first.peers.call(lie.signer, deadline_s=5):
                pass
        first.peers.advertiser.take_in(advert_of(f"liar {number}", addresses=addresses))
    # Long enough for every call to be made and every ping to go round.
    await trio.sleep(120)
    assert other.me in first.peers.connected()
    assert first.standing_of(other) is Standing.GOOD


async def test_one_bad_address_does_not_spoil_the_good_one(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first = await hood.add("first")
    async with hood.open("second", bootstraps=()) as second:
        addresses = ("/ip4/192.0.2.1/udp/4001/quic-v1", *second.peers.endpoint.addresses)
        first.peers.dialing.learn(second.me, addresses)
        await until(lambda: second.me in first.peers.connected())


async def test_a_newcomer_with_a_copied_key_ends_and_says_why(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    neighbour = await hood.add("neighbour")
    twin = await hood.add("twin")
    await trio.sleep(100)
    ended: list[InputError] = []
    with trio.fail_after(60):
        try:
            async with hood.open("twin", listen=("/memory/0",)) as second:
                # Two machines draw two instances.
                second.peers.handshake_log.instance = b"instance"
                second.peers.advertiser.instance = b"instance"
                await second.peers.join()
                await trio.sleep_forever()
        except* InputError as group:
            ended = [it for it in group.exceptions if isinstance(it, InputError)]
    assert "another machine is running with this peer's key" in str(ended[0])
    await trio.sleep(60)
    assert neighbour.me in twin.peers.connected()


async def test_of_two_machines_with_one_key_each_hears_of_the_other_whoever_spoke_last(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    neighbour, twin = await hood.add("neighbour"), await hood.add("twin")
    await trio.sleep(100)
    async with hood.open("twin", bootstraps=()) as second:
        second.peers.handshake_log.instance = second.peers.advertiser.instance = b"instance"
        neighbour.peers.advertiser.take_in(
            second.peers.advertiser.mine(second.peers.endpoint), second.me
        )
    # The first one's next word takes the place of the second one's.
    twin.peers.advertiser.changed()
    neighbour.peers.advertiser.take_in(twin.peers.advertiser.mine(twin.peers.endpoint), twin.me)
    assert not twin.peers.handshake_log.same_key
    await twin.peers.neighbours.swap(neighbour.me)
    assert twin.peers.handshake_log.same_key


async def test_a_ping_is_answered_and_a_second_start_is_told(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    for instance, heard in ((second.peers.handshake_log.instance, False), (b"another1", True)):
        async with second.peers.call(first.me, deadline_s=5) as typed_call:
            await typed_call.send(Ping(instance=instance))
            pong = await typed_call.expect(Pong)
        assert (pong.same_key is not None) is heard


async def test_an_advert_passed_on_with_a_broken_signature_is_not_believed(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    victim = advert_of("victim")
    forged = bytearray(victim.raw)
    forged[-1] ^= 1
    liar = await hood.add("liar")
    hello = liar.peers.neighbours.hello()

    async def welcome(typed_call: TypedCall, _: Message) -> None:
        await typed_call.send(
            Welcome(
                version=limits.PROTOCOL_VERSION,
                instance=b"instance",
                wall_ms=hello.wall_ms,
                same_key=None,
                peers=1,
                adverts=(bytes(forged),),
            )
        )

    liar.peers.handlers[Hello] = welcome
    async with hood.open("late", bootstraps=liar.peers.endpoint.addresses[:1]) as late:
        with pytest.raises(Unreachable, match="signed"):
            await late.peers.join()
        assert late.peers.view.advert_of(victim.signer) is None
        assert late.standing_of(liar) is not Standing.GOOD


async def test_the_first_adverts_of_a_new_peer_come_with_the_welcome(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    for name in "abc":
        await hood.add(name)
    await hood.acquainted()
    async with hood.open("late") as late:
        await late.peers.join()
        assert len(late.peers.view) == 3


def test_an_advert_of_these_tests_is_one() -> None:
    heard = advert_of("a")
    assert open_signed(sign(heard.record, key_of("a")).raw, Advert) == heard


async def test_who_parts_is_not_taken_for_dead_and_who_dies_is(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    await hood.acquainted()
    await second.peers.neighbours.part(first.me)
    await trio.sleep(0.1)
    assert not first.peers.connected()
    assert first.peers.view.advert_of(second.me) is not None
    await until(lambda: second.me in first.peers.connected(), 60)
    # They greet each other first.
    await trio.sleep(1)
    await second.peers.endpoint.disconnect(first.me)
    await trio.sleep(0.1)
    assert first.peers.view.advert_of(second.me) is None
    # It is called once more, and alive.
    await until(lambda: first.peers.view.advert_of(second.me) is not None, 30)


async def test_connections_that_are_of_no_use_any_more_are_closed_with_a_word(
    autojump_clock: MockClock, hood: Neighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.neighbours.CONNECTIONS_MAX", 4)
    monkeypatch.setattr("p2p.neighbours.CONNECTIONS_KEPT", 3)
    hub = await hood.add("hub")
    for number in range(8):
        await hood.add(f"peer {number}")
    await hood.acquainted()
    await until(lambda: len(hub.peers.connected()) <= 4, 60)
    # Nobody is taken for dead for it.
    assert len(hub.peers.view) == 8


async def test_a_peer_that_strangers_can_call_has_room_for_those_that_nobody_can(
    autojump_clock: MockClock, hood: Neighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.neighbours.CONNECTIONS_MAX", 3)
    monkeypatch.setattr("p2p.neighbours.CONNECTIONS_KEPT", 2)
    hub = await hood.add("hub")
    hub.peers.neighbours.is_called = lambda: True
    for number in range(8):
        await hood.add(f"peer {number}")
    await hood.acquainted()
    await trio.sleep(10)
    assert len(hub.peers.connected()) == 8
    hub.peers.neighbours.is_called = lambda: False
    await until(lambda: len(hub.peers.connected()) <= 3, 10)


async def test_who_was_not_heard_lately_is_asked_when_somebody_wants_to_know(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    await trio.sleep(10)
    first.peers.handshake_log._answered.clear()
    assert first.peers.answered_last_minute() == (0, 1)
    await first.peers.neighbours.ask_around()
    assert first.peers.answered_last_minute() == (1, 1)
    assert second.peers.statistics().calls_failed == 0


async def test_a_network_that_cuts_connections_after_a_fixed_time_is_found_out(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    await hood.acquainted()
    for _ in range(12):
        await until(lambda: second.me in first.peers.connected(), 60)
        await trio.sleep(30)
        await first.peers.endpoint.disconnect(second.me)
        await trio.sleep(0.1)
    told = [it.peers.statistics().cut_after_s for it in (first, second)]
    # Who calls anew is either of them, and only who called knows how long it lasted.
    told = [it for it in told if it is not None]
    assert told
    assert told == pytest.approx([30.0] * len(told), abs=3)
