"""What hostile peers say about time, about work and about each other, to peers that live."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2p.score import Standing
from p2p.typed_call import RETRY_AFTER_S_MAX, TypedCall, refused
from p2p.view import Hearing
from tests.node.asking import asked, request, signers, texts_of
from tests.node.network import I, S, V, open_network
from tests.p2p.adverts import advert_of
from wire.codec import pack
from wire.errors import Refused
from wire.kinds import Kind, Level, RefusalCode
from wire.message import Check, Message, Newer, Offer, Refuse, Seek
from wire.order import OrderRefusal

# How a refusal says when to ask again: by the record, only the first two are legal.
ABSURD = {
    "in thirty years": 10**12,
    "in a hundred million years": 2**62,
    "before now": -(10**9),
    "no number of that kind": 1.5,
    "in words": "soon",
    "more than 64 bits": 2**63,
}


@pytest.mark.parametrize("when", ABSURD)
async def test_an_absurd_time_to_ask_again_delays_nobody(
    autojump_clock: MockClock, tmp_path: Path, when: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S)
        await network.settled()
        async with network.outsider(I) as rogue:

            async def absurd(call: TypedCall, message: Message) -> None:
                fields = {"code": 1, "reason": "busy", "retry_after_ms": ABSURD[when]}
                await call.channel.send(pack([int(Kind.REFUSE), fields]))

            rogue.answer(Offer, absurd)
            await network.settled()
            for number in range(6):
                wanted = request(data=texts_of(str(number)), level=Level.SIGNED, deadline_s=30)
                began_at_s = trio.current_time()
                answered, _ = await asked(asker, wanted)
                assert signers(answered) == [honest.peers.me]
                assert trio.current_time() - began_at_s < 3
            assert asker.peers.standing(honest.peers.me) is Standing.GOOD


def test_what_a_peer_says_about_later_is_an_hour_at_most() -> None:
    said = Refuse(code=RefusalCode.BUSY, reason="busy", retry_after_ms=2**62)
    error = refused(said)
    assert isinstance(error, Refused)
    assert error.retry_after_s == RETRY_AFTER_S_MAX
    # The same of one task of a standing order.
    item = OrderRefusal(code=said.code, reason=said.reason, retry_after_ms=said.retry_after_ms)
    assert refused(item).retry_after_s == RETRY_AFTER_S_MAX


async def test_a_verifier_that_drops_its_verdicts_costs_a_moment_and_frames_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S)
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        async with network.outsider(V) as rogue:

            async def drop(call: TypedCall, message: Message) -> None:
                """Do the work, and end the conversation without a word of it."""

            rogue.answer(Check, drop)
            await network.settled()
            number = 0
            while len(rogue.asked) < 2:
                number += 1
                began_at_s = trio.current_time()
                answered, _ = await asked(asker, request(data=texts_of(str(number))))
                assert trio.current_time() - began_at_s < 10
                assert len(answered.answer.record.verdicts) >= 2
            assert asker.peers.scores.cost(honest.peers.me, trio.current_time()) == 0.0


async def test_who_passes_on_what_others_signed_is_not_blamed_for_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A rogue signs two adverts with one number, and has an honest peer tell them to another."""
    async with open_network(tmp_path) as network:
        one, other = await network.start(S), await network.start(S)
        await network.settled()
        rogue_is = {"ttl_s": 1800, "roles": 0, "models": ()}
        first = advert_of("rogue", free_slots=1, **rogue_is)
        second = advert_of("rogue", free_slots=2, **rogue_is)
        one.peers.advertiser.take_in(first)
        other.peers.advertiser.take_in(second)
        for peers, mine in ((one.peers, first), (other.peers, second)):
            # Old words of a peer are as truly signed as new ones.
            for _ in range(20):
                peers.advertiser.take_in(mine)
        await trio.sleep(60)
        now_at_s = trio.current_time()
        assert one.peers.scores.cost(other.peers.me, now_at_s) == 0.0
        assert other.peers.scores.cost(one.peers.me, now_at_s) == 0.0
        # A later word of its own replaces both.
        third = advert_of("rogue", seq=first.record.seq + 1, free_slots=3, **rogue_is)
        for node in (one, other):
            node.peers.advertiser.take_in(third)
            assert node.peers.advertiser.take_in(first) is Hearing.OLD
            assert node.peers.view.advert_of(first.signer) == third


async def test_a_search_answered_with_forged_adverts_blames_who_answered_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S)
        await network.settled()
        async with network.outsider() as rogue:
            theirs = honest.peers.mine().raw
            forged = theirs[:-1] + bytes((theirs[-1] ^ 1,))

            async def forge(call: TypedCall, message: Message) -> None:
                await call.send(Newer(adverts=(forged,) * 8, wanted=b"", same_key=None))

            rogue.answer(Seek, forge)
            await network.settled()
            async with asker.peers.call(rogue.key.peer, deadline_s=5):
                pass
            for _ in range(3):
                await asker.peers.seek(V, None, deadline_s=5)
                await trio.sleep(5)
            now_at_s = trio.current_time()
            assert rogue.asked
            assert asker.peers.scores.cost(rogue.key.peer, now_at_s) > 0.0
            assert asker.peers.scores.cost(honest.peers.me, now_at_s) == 0.0
            assert asker.peers.view.advert_of(honest.peers.me) is not None
