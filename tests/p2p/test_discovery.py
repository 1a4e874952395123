"""Seeking: what the view does not hold is found by asking on, and a search always ends."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from p2p.discovery import AT_ONCE, HOPS_MAX, Search
from p2p.typed_call import TypedCall
from tests.p2p.adverts import MODEL, NOW_S, advert_of
from tests.p2p.keepers import Neighbourhood, open_neighbourhood
from tests.p2p.transports import key_of
from wire.advert import ModelOffer
from wire.content import ContentId
from wire.kinds import Role
from wire.message import Message, Newer, Seek

RARE = ContentId.of(b"rare")


@pytest.fixture
async def hood() -> AsyncIterator[Neighbourhood]:
    async with open_neighbourhood() as neighbourhood:
        yield neighbourhood


def test_a_search_asks_nobody_twice_and_ends_after_so_many_hops() -> None:
    search = Search(Role.INFER, RARE)
    search.begin([key_of("first").peer])
    asked = []
    number = 0
    while chosen := search.round():
        assert len(chosen) <= AT_ONCE
        asked += chosen
        # Everybody names others, for ever, and themselves again.
        for peer in chosen:
            names = [advert_of(f"peer {number + it}") for it in range(3)]
            number += 3
            search.told([*names, advert_of("first")])
            assert peer not in search.found
    assert len(asked) == len(set(asked))
    assert search.hops == HOPS_MAX


def test_only_who_plays_the_role_with_the_model_is_found() -> None:
    search = Search(Role.INFER, MODEL)
    rare = ModelOffer(model=RARE, name="rare", units_per_s=1.0)
    search.told(
        [
            advert_of("right"),
            advert_of("other model", models=(rare,)),
            advert_of("other role", roles=1 << Role.VERIFY),
        ]
    )
    assert list(search.found) == [key_of("right").peer]


async def test_a_neighbour_tells_who_does_it_and_the_view_holds_it_then(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    provider = advert_of("provider", models=(ModelOffer(model=RARE, name="r", units_per_s=1.0),))
    first.peers.advertiser.take_in(provider)
    found = await second.peers.seek(Role.INFER, RARE, deadline_s=5)
    assert found == [provider]
    assert second.peers.view.candidates(Role.INFER, RARE, NOW_S) == [provider]


async def test_the_same_is_not_sought_again_at_once(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    first, second = await hood.add("first"), await hood.add("second")
    asked: list[Message] = []

    async def nobody(call: TypedCall, message: Message) -> None:
        asked.append(message)
        await call.send(Newer(adverts=(), wanted=b"", same_key=None))

    first.peers.handlers[Seek] = nobody
    for _ in range(5):
        assert await second.peers.seek(Role.INFER, RARE, deadline_s=5) == []
    assert len(asked) == 1
