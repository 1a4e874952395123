"""Swaps: each side tells what is newer, a few of whom the other never heard, and never too much."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2p.anti_entropy import NEWS_MAX, NEWS_TO_NEWCOMER_MAX, SCARCE_MAX, AntiEntropy
from p2p.gossip_rate import GossipRateConfig, GossipRateLimit
from p2p.view import View, ViewConfig
from tests.p2p.adverts import NOW_S, advert_of
from tests.p2p.transports import key_of
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.content import ContentId
from wire.kinds import Role
from wire.signed import Signed

SEQ = int(NOW_S * 1000)


class Side:
    """One of the two."""

    def __init__(self, name: str, **config: int) -> None:
        self.peer = key_of(name).peer
        self.mine = advert_of(name)
        self.view = View(self.peer, b"instance", ViewConfig(**config))
        self.anti_entropy = AntiEntropy(self.view, Random(name))

    def hear(self, *adverts: Signed[Advert]) -> None:
        for advert in adverts:
            # By its own word: only of whom a peer has met does it tell others.
            self.view.hear(advert, NOW_S, advert.signer)

    def digest(self) -> bytes:
        return self.anti_entropy.digest(self.mine, NOW_S)


def offer_of(name: str) -> ModelOffer:
    return ModelOffer(model=ContentId.of(name.encode()), name=name, units_per_s=1.0)


def swap(asker: Side, answerer: Side) -> tuple[int, int]:
    """One whole swap; how many adverts each told."""
    told = answerer.anti_entropy.compare(asker.digest(), answerer.mine, asker.peer, NOW_S)
    back = asker.anti_entropy.wanted(told.wanted, asker.mine, NOW_S)
    asker.hear(*told.adverts)
    answerer.hear(*back)
    return len(told.adverts), len(back)


def test_after_a_swap_both_know_the_newer_of_each_and_a_second_tells_nothing() -> None:
    a, b = Side("a"), Side("b")
    a.hear(advert_of("old there", seq=SEQ + 5), advert_of("old here"))
    b.hear(advert_of("old there"), advert_of("old here", seq=SEQ + 7), advert_of("only here"))
    swap(a, b)
    for side in (a, b):
        for name, seq in (("old there", SEQ + 5), ("old here", SEQ + 7), ("only here", SEQ)):
            heard = side.view.advert_of(key_of(name).peer)
            assert heard is not None
            assert heard.record.seq == seq
    assert a.view.advert_of(b.peer) == b.mine
    assert b.view.advert_of(a.peer) == a.mine
    assert swap(a, b) == (0, 0)


def test_a_newcomer_is_told_many_and_who_has_enough_only_a_few() -> None:
    rich = Side("rich", adverts_max=200)
    rich.hear(*(advert_of(f"peer {number}") for number in range(200)))
    newcomer = Side("newcomer", adverts_max=200)
    told, _ = swap(newcomer, rich)
    assert told == NEWS_TO_NEWCOMER_MAX + 1
    full = Side("full", adverts_max=200)
    full.hear(*(advert_of(f"stranger {number}") for number in range(200)))
    told, back = swap(full, rich)
    assert told == NEWS_MAX + 1
    assert back == NEWS_MAX


def test_a_digest_and_what_it_is_answered_stay_small_also_where_all_is_rare() -> None:
    rich = Side("rich", adverts_max=100)
    rich.hear(*(advert_of(f"peer {it}", models=(offer_of(f"model {it}"),)) for it in range(100)))
    full = Side("full", adverts_max=100)
    full.hear(*(advert_of(f"stranger {number}") for number in range(100)))
    assert swap(full, rich)[0] == SCARCE_MAX + NEWS_MAX + 1


def test_of_the_unknown_the_rare_are_told_first() -> None:
    rich = Side("rich", adverts_max=400)
    rare = offer_of("rare")
    rich.hear(*(advert_of(f"common {number}") for number in range(300)))
    rich.hear(*(advert_of(f"rare {number}", models=(rare,)) for number in range(3)))
    newcomer = Side("newcomer")
    swap(newcomer, rich)
    assert newcomer.view.count((Role.INFER, rare.model)) == 3


def test_who_is_gone_is_not_asked_for_again() -> None:
    a, b = Side("a"), Side("b")
    dead = advert_of("dead")
    a.hear(dead)
    b.hear(dead)
    b.view.forget(dead.signer)
    told = b.anti_entropy.compare(a.digest(), b.mine, a.peer, NOW_S)
    assert dead.signer[: limits.DIGEST_KEY_BYTES] not in told.wanted


def test_what_ends_in_a_moment_is_not_told() -> None:
    a, b = Side("a"), Side("b")
    b.hear(advert_of("ending", ttl_s=4))
    assert swap(a, b) == (1, 1)


@given(st.binary(max_size=512))
def test_any_digest_is_answered_within_bounds(noise: bytes) -> None:
    side = Side("a")
    side.hear(*(advert_of(f"peer {number}") for number in range(4)))
    digest = noise[: len(noise) // limits.DIGEST_ENTRY_BYTES * limits.DIGEST_ENTRY_BYTES]
    told = side.anti_entropy.compare(digest, side.mine, key_of("b").peer, NOW_S)
    assert len(told.adverts) <= limits.ADVERTS_PER_MESSAGE_MAX
    assert len(told.wanted) <= limits.ADVERTS_PER_MESSAGE_MAX * limits.DIGEST_KEY_BYTES


def test_the_size_of_the_network_is_told_from_what_two_samples_share() -> None:
    random = Random(3)
    everybody = [advert_of(f"peer {number}") for number in range(600)]
    me = Side("me", adverts_max=100)
    me.hear(*random.sample(everybody, 100))
    for number in range(15):
        other = Side(f"other {number}", adverts_max=100)
        other.hear(*random.sample(everybody, 100))
        me.anti_entropy.compare(other.digest(), me.mine, other.peer, NOW_S)
    assert 400 <= me.anti_entropy.peers() <= 900


def test_while_the_view_has_room_what_it_holds_is_the_size_but_for_what_we_were_told() -> None:
    side = Side("a")
    assert side.anti_entropy.peers() == 1
    side.anti_entropy.told_peers = 50
    assert side.anti_entropy.peers() == 50
    # A liar does not make us think that the network is without end.
    side.anti_entropy.told_peers = 1 << 60
    assert side.anti_entropy.peers() == 4 * side.view.config.adverts_max


def test_the_period_grows_with_the_network_and_what_is_heard_does_not() -> None:
    rate_limit = GossipRateLimit(GossipRateConfig(), view_max=256)
    periods = [rate_limit.period_s(peers) for peers in (1, 50, 200, 1000, 10_000, 1_000_000)]
    assert periods == sorted(periods)
    assert periods[0] == 30
    assert periods[-1] <= limits.ADVERT_TTL_S_MAX / 3
    heard_per_s = [
        min(peers, 256) / rate_limit.period_s(peers) for peers in (50, 200, 1000, 10_000, 1_000_000)
    ]
    assert max(heard_per_s) <= 2.51


def test_everybody_may_be_told_something_at_once_in_a_small_network_only() -> None:
    small, large = (
        GossipRateLimit(GossipRateConfig(), 256),
        GossipRateLimit(GossipRateConfig(), 256),
    )
    assert [small.may_tell_all(20, 0.0) for _ in range(4)] == [True, True, True, False]
    # Of twenty one message a second.
    assert not small.may_tell_all(20, 19.0)
    assert small.may_tell_all(20, 21.0)
    assert not large.may_tell_all(1000, 0.0)
    assert not large.may_tell_all(1000, 900.0)
    assert large.may_tell_all(1000, 1100.0)
