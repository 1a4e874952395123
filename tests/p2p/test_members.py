"""A private network answers its members alone: admitted once, renewed, and removed at once."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2p.credentials import DAY_S, MEMBERSHIP_S, Credentials
from p2p.dialing import Dial
from p2p.members import UNPROVEN_S
from p2p.peers import Peers
from p2p.typed_call import TypedCall
from tests.p2p.private import OWNER, Club, Given, open_club
from tests.p2p.transports import key_of, until
from wire.content import ContentId, PeerId
from wire.errors import InputError, Refused, RemoteProtocolError, TransportError, Unreachable
from wire.kinds import RefusalCode, Role
from wire.membership import (
    Admitted,
    Admitter,
    ClaimInvite,
    ClaimNonce,
    ClaimSigned,
    ClaimStatement,
    Invite,
    Membership,
    Revoked,
    RevokedNews,
)
from wire.message import BlockReply, Hello, Message, Ping, Refuse, Seek, Swap, Want, Welcome
from wire.signed import Signed, sign
from wire.signing import SigningKey

WANT = Want(block=ContentId.of(b"any"))


@pytest.fixture
async def club() -> AsyncIterator[Club]:
    async with open_club() as opened:
        yield opened


async def asks(asker: Peers, other: PeerId, message: Message = WANT) -> Message:
    async with asker.call(other, deadline_s=8.0) as call:
        await call.send(message)
        return await call.receive()


async def alone(club: Club, name: str) -> Peers:
    """Somebody who knows the network's name and the owner's address, and nothing else."""
    owner = club.peers[OWNER]
    stranger = await club.add(name, open=True, at="nobody")
    await stranger.endpoint.connect(owner.endpoint.addresses[0], deadline_s=5.0)
    return stranger


async def claims(
    asker: Peers,
    at: PeerId,
    given: Given,
    *,
    key: SigningKey | None = None,
    **altered: object,
) -> Message:
    """ClaimInvite by hand, with what is said altered; the answer."""
    invite, own = given
    async with asker.call(at, deadline_s=8.0) as call:
        await call.send(ClaimInvite(invite=invite.raw))
        answer = await call.receive()
        if not isinstance(answer, ClaimNonce):
            return answer
        said = {
            "network": invite.signer,
            "invite": invite.record.id,
            "nonce": answer.nonce,
            "newcomer": asker.me,
            "admitter": at,
        } | altered
        statement = ClaimStatement(**said)  # type: ignore[arg-type]
        await call.send(ClaimSigned(statement=sign(statement, key or own).raw))
        return await call.receive()


async def test_who_is_invited_joins_and_meets_the_others_and_needs_no_invite_again(
    autojump_clock: MockClock, club: Club
) -> None:
    bob, ann = await club.joined("bob"), await club.joined("ann", label="ann")
    await until(lambda: bob.view.advert_of(ann.me) is not None, 60)
    assert isinstance(await asks(bob, ann.me), BlockReply)
    assert isinstance(await asks(ann, bob.me), BlockReply)
    assert club.members("ann").as_map()["member"] is True
    assert club.members(OWNER).credentials.proven[ann.me].label == "ann"
    club.end("bob")
    again = await club.add("bob")
    assert isinstance(await asks(again, club.network), BlockReply)


@pytest.mark.parametrize("message", [WANT, Seek(role=Role.INFER, model=None)])
async def test_nothing_but_joining_is_answered_to_a_stranger_who_is_hung_up_on(
    autojump_clock: MockClock, club: Club, message: Message
) -> None:
    stranger = await alone(club, "stranger")
    answer = await asks(stranger, club.network, message)
    assert isinstance(answer, Refuse)
    assert answer.cause is RefusalCode.STRANGER
    for said in (Ping(instance=bytes(8)), Swap(instance=bytes(8), digest=b"")):
        assert isinstance(await asks(stranger, club.network, said), Refuse)
    hello = stranger.neighbours.hello()
    assert isinstance(await asks(stranger, club.network, hello), Refuse)
    await until(lambda: not stranger.endpoint.is_connected(club.network), 2 * UNPROVEN_S)
    assert club.peers[OWNER].view.advert_of(stranger.me) is None


async def test_a_member_says_nothing_to_whoever_shows_no_membership(
    autojump_clock: MockClock, club: Club
) -> None:
    bob = await club.joined("bob")
    liar = await club.add("liar", open=True, at="nobody")
    heard: list[Message] = []

    async def welcome(call: TypedCall, message: Message) -> None:
        heard.append(message)
        mine = liar.advertiser.mine(liar.endpoint).raw
        await call.send(
            Welcome(
                version=1, instance=bytes(8), wall_ms=1, same_key=None, peers=2, adverts=(mine,)
            )
        )

    liar.handlers = dict.fromkeys(liar.handlers, welcome)
    await bob.endpoint.connect(liar.endpoint.addresses[0], deadline_s=5.0)
    with pytest.raises(Refused, match="no membership"):
        await asks(bob, liar.me)
    assert [type(it).__name__ for it in heard] == ["Hello"]


async def test_an_invite_works_as_often_as_it_says_and_a_newcomer_counts_once(
    autojump_clock: MockClock, club: Club
) -> None:
    given = await club.invite(uses_max=2)
    await club.add("one", given)
    club.end("one")
    club.stores.pop("one")
    # The answer was lost, or its folder: it is the same newcomer.
    await club.add("one", given)
    await club.add("two", given)
    with pytest.raises(Unreachable, match=r"used already.*python -m node invite"):
        await club.add("three", given)


async def test_who_was_removed_comes_not_again_by_what_is_left_of_its_invite(
    autojump_clock: MockClock, club: Club
) -> None:
    given, others = await club.invite(uses_max=3), await club.invite(uses_max=3)
    bob, ann = await club.add("bob", given), await club.add("ann", given)
    owner = club.members(OWNER)
    raw, revoked = await owner.admission.remove(bob.me)
    await owner.take_revoked(raw)
    assert [it.invite.record.id for it in revoked] == [given[0].record.id]
    with pytest.raises(Unreachable, match="revoked"):
        await club.add("bob under another key", given)
    # Who came by the same invite stays, and other invites go on.
    assert isinstance(await asks(ann, club.network), BlockReply)
    await club.add("eve", others)


async def test_uses_are_counted_over_a_restart(autojump_clock: MockClock, club: Club) -> None:
    given = await club.invite()
    await club.add("one", given)
    club.end("one")
    club.end(OWNER)
    await club.add(OWNER)
    with pytest.raises(Unreachable, match="used already"):
        await club.add("two", given)


async def test_of_two_who_claim_one_use_at_once_one_is_admitted(
    autojump_clock: MockClock, club: Club
) -> None:
    given = await club.invite()
    strangers = [await alone(club, name) for name in ("a", "b", "c")]
    answers: list[Message] = []

    async def claim(peers: Peers) -> None:
        answers.append(await claims(peers, club.network, given))

    async with trio.open_nursery() as nursery:
        for stranger in strangers:
            nursery.start_soon(claim, stranger)
    kinds = sorted(type(it).__name__ for it in answers)
    assert kinds == ["Admitted", "Refuse", "Refuse"]


async def test_two_admitters_share_the_uses_and_one_use_cannot_be_shared(
    autojump_clock: MockClock, club: Club
) -> None:
    bob = await club.joined("bob")
    with pytest.raises(InputError, match="cannot share"):
        await club.invite(OWNER, "bob")
    given = await club.invite(OWNER, "bob", uses_max=2)
    await club.add("one", given)
    await club.add("two", given, at="bob")
    for at in (OWNER, "bob"):
        with pytest.raises(Unreachable, match="used already"):
            await club.add(f"three at {at}", given, at=at)
    # Whom an admitter let in is taken by all.
    two = club.peers["two"]
    assert club.members("two").credentials.own.admitter == bob.me  # type: ignore[union-attr]
    await until(lambda: club.peers["one"].view.advert_of(two.me) is not None, 60)
    assert isinstance(await asks(club.peers["one"], two.me), BlockReply)


async def test_at_two_admitters_at_once_no_more_are_admitted_than_the_invite_says(
    autojump_clock: MockClock, club: Club
) -> None:
    bob = await club.joined("bob")
    given = await club.invite(OWNER, "bob", uses_max=2)
    strangers = [await alone(club, name) for name in ("a", "b", "c")]
    for stranger in strangers:
        await stranger.endpoint.connect(bob.endpoint.addresses[0], deadline_s=5.0)
    admitted: list[PeerId] = []

    async def claim(peers: Peers, at: PeerId) -> None:
        if isinstance(await claims(peers, at, given), Admitted):
            admitted.append(at)

    async with trio.open_nursery() as nursery:
        for stranger in strangers:
            for at in (club.network, bob.me):
                nursery.start_soon(claim, stranger, at)
    # One each: neither has to ask the other, so neither gives what is the other's.
    assert sorted(admitted) == sorted([club.network, bob.me])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("revoked", "revoked"),
        ("expired", "expired"),
        ("another network", "another private network"),
        ("another admitter", "admits nobody by this invite"),
        ("no invite", "no invite"),
    ],
)
async def test_an_invite_that_does_not_hold_is_refused_in_words(
    autojump_clock: MockClock, club: Club, wrong: str, words: str
) -> None:
    given = await club.invite()
    invite, key = given
    owner = club.members(OWNER)
    if wrong == "revoked":
        await owner.take_revoked(await owner.admission.revoke_invite(invite.record.id))
    elif wrong == "expired":
        club.ahead_s += 2 * DAY_S
    elif wrong == "another network":
        given = (sign(invite.record, key_of("another owner")), key)
    elif wrong == "another admitter":
        elsewhere = (Admitter(peer=key_of("else").peer, addresses=()),)
        given = (sign(replace(invite.record, admitters=elsewhere), key_of(OWNER)), key)
    stranger = await alone(club, "stranger")
    if wrong == "no invite":
        raw = invite.raw[:-1] + bytes([invite.raw[-1] ^ 1])
        answer = await asks(stranger, club.network, ClaimInvite(invite=raw))
    else:
        answer = await claims(stranger, club.network, given)
    assert isinstance(answer, Refuse)
    assert words in answer.reason
    assert owner.admission.admitted == 0


async def test_a_claim_copied_from_another_handshake_is_worth_nothing(
    autojump_clock: MockClock, club: Club
) -> None:
    given = await club.invite(uses_max=5)
    one, two = await alone(club, "one"), await alone(club, "two")
    assert isinstance(await claims(one, club.network, given), Admitted)
    wrong: tuple[dict[str, object], ...] = (
        {"nonce": bytes(32)},
        {"newcomer": one.me},
        {"admitter": two.me},
        {"network": two.me},
        {"invite": bytes(16)},
    )
    for altered in wrong:
        answer = await claims(two, club.network, given, **altered)
        assert isinstance(answer, Refuse), altered
        assert "secret" in answer.reason
    answer = await claims(two, club.network, given, key=key_of("thief"))
    assert isinstance(answer, Refuse)


async def test_the_secret_of_an_invite_never_travels(autojump_clock: MockClock, club: Club) -> None:
    given = await club.invite()
    said: list[bytes] = []
    owner = club.peers[OWNER]
    on_claim = owner.handlers[ClaimInvite]

    async def noting(call: TypedCall, message: Message) -> None:
        receive = call.channel.receive

        async def heard() -> bytes:
            payload = await receive()
            said.append(payload)
            return payload

        call.channel.receive = heard  # type: ignore[method-assign]
        said.append(message.invite)  # type: ignore[attr-defined]
        await on_claim(call, message)

    owner.handlers[ClaimInvite] = noting
    await club.add("bob", given)
    assert len(said) == 2
    assert all(given[1].seed not in it for it in said)


async def test_a_claim_that_is_never_finished_keeps_nobody_out(
    autojump_clock: MockClock, club: Club
) -> None:
    given = await club.invite()
    stranger = await alone(club, "stranger")

    async def begin() -> None:
        try:
            async with stranger.call(club.network, deadline_s=60.0) as call:
                await call.send(ClaimInvite(invite=given[0].raw))
                await call.receive()
                await call.receive()
        except (TransportError, RemoteProtocolError):
            return

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(begin)
        await trio.sleep(12.0)
        await club.add("bob", given)
        nursery.cancel_scope.cancel()


async def test_a_removed_member_is_cut_off_at_once_everywhere_also_in_mid_call(
    autojump_clock: MockClock, club: Club
) -> None:
    ann, bob = await club.joined("ann"), await club.joined("bob")
    await until(lambda: ann.view.advert_of(bob.me) is not None, 60)
    cut = trio.Event()

    async def working(call: TypedCall, _message: Message) -> None:
        await trio.sleep_forever()

    async def wait() -> None:
        with pytest.raises(TransportError):
            await asks(bob, ann.me)
        cut.set()

    ann.handlers[Want] = working
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await until(lambda: ann.in_calls[bob.me] > 0, 10)
        owner = club.members(OWNER)
        await owner.take_revoked((await owner.admission.remove(bob.me))[0])
        with trio.fail_after(1.0):
            await cut.wait()
    assert bob.me not in club.peers[OWNER].connected()
    with pytest.raises((Refused, TransportError)):
        await asks(bob, club.network)
    await until(lambda: not ann.endpoint.is_connected(bob.me), 10)
    assert ann.view.advert_of(bob.me) is None
    await until(lambda: "removed" in club.members("bob").credentials.problem, 120)
    # Nor does another invite bring it back.
    club.end("bob")
    club.stores.pop("bob")
    with pytest.raises(Unreachable, match="removed you") as refused:
        await club.joined("bob")
    assert "as a new peer: --state DIR" in refused.value.todo


async def test_a_removed_peer_and_whom_it_admitted_learn_of_it_and_keep_no_network_of_their_own(
    autojump_clock: MockClock, club: Club
) -> None:
    ann, bob = await club.joined("ann"), await club.joined("bob")
    carl = await club.add("carl", await club.invite("ann"), at="ann")
    await until(lambda: carl.endpoint.is_connected(club.network), 60)
    owner = club.members(OWNER)
    await owner.take_revoked((await owner.admission.remove(ann.me))[0])
    await until(lambda: bool(club.members("ann").as_map()["removed"]), 60)
    told = club.members("carl").as_map
    await until(lambda: not told()["member"], 60)
    assert "was removed" in str(told()["problem"])
    assert not told()["expired"]
    await until(lambda: not ann.endpoint.is_connected(carl.me), 60)
    # Who is sound is told of what others are, and says nothing like it of itself.
    await bob.endpoint.connect(ann.endpoint.addresses[0], deadline_s=5.0)
    with pytest.raises(Refused, match="is no member here"):
        await asks(bob, ann.me)
    assert club.members("bob").as_map()["member"]
    assert club.members("bob").credentials.problem == ""
    # Nor does it admit anybody any more.
    stranger = await club.add("stranger", open=True, at="nobody")
    await stranger.endpoint.connect(ann.endpoint.addresses[0], deadline_s=5.0)
    answer = await claims(stranger, ann.me, await club.invite("ann"))
    assert isinstance(answer, Refuse)
    assert "no member itself" in answer.reason
    # An invite of the owner's brings back whom nobody removed.
    club.end("carl")
    await club.add("carl", await club.invite())
    assert club.members("carl").as_map()["member"]


async def test_a_list_of_revoked_ids_is_shown_to_whom_it_ends_and_to_no_stranger(
    autojump_clock: MockClock, club: Club
) -> None:
    bob = await club.joined("bob")
    owner = club.members(OWNER)
    await owner.take_revoked((await owner.admission.remove(bob.me))[0])
    news = RevokedNews(version=0, revoked=b"")
    stranger = await alone(club, "stranger")
    assert isinstance(await asks(stranger, club.network, stranger.neighbours.hello()), Refuse)
    answer = await asks(stranger, club.network, news)
    assert isinstance(answer, Refuse)
    assert answer.cause is RefusalCode.STRANGER


async def test_whoever_was_away_learns_with_swaps_who_was_removed(
    autojump_clock: MockClock, club: Club
) -> None:
    ann, bob = await club.joined("ann"), await club.joined("bob")
    club.end("ann")
    owner = club.members(OWNER)
    await owner.take_revoked((await owner.admission.remove(bob.me))[0])
    await club.add("ann")
    await until(lambda: club.members("ann").credentials.is_removed(bob.me), 60)
    # It is kept, and known before anybody is met again.
    await until(lambda: club.members("ann").rows.revoked() is not None, 10)
    club.end("ann")
    club.end(OWNER)
    await club.add("ann", at="nobody")
    assert club.members("ann").credentials.is_removed(bob.me)
    assert ann is not None


async def test_an_older_list_of_revoked_ids_changes_nothing_and_a_strangers_is_an_offence(
    autojump_clock: MockClock, club: Club
) -> None:
    bob = await club.joined("bob")
    owner = club.members(OWNER)
    removed = key_of("removed").peer
    await owner.take_revoked((await owner.admission.remove(removed))[0])
    version = owner.credentials.revoked_version
    for other in (version - 1, version):
        old = sign(Revoked(version=other, invites=(), peers=()), key_of(OWNER))
        await asks(bob, club.network, RevokedNews(version=other, revoked=old.raw))
        assert owner.credentials.is_removed(removed)
        assert owner.credentials.revoked_version == version
    forged = sign(Revoked(version=version + 9, invites=(), peers=()), key_of("bob"))
    with pytest.raises(TransportError):
        await asks(bob, club.network, RevokedNews(version=9, revoked=forged.raw))
    assert owner.credentials.revoked_version == version
    assert club.peers[OWNER].scores.cost(bob.me, trio.current_time()) > 0


async def test_a_membership_is_renewed_when_half_of_it_has_passed(
    autojump_clock: MockClock, club: Club
) -> None:
    bob = await club.joined("bob")
    first = club.members("bob").credentials.own
    assert first is not None
    club.ahead_s += MEMBERSHIP_S * 0.55
    club.members("bob")._renew_at_s = 0.0
    await until(lambda: club.members("bob").credentials.own is not first, 300)
    second = club.members("bob").credentials.own
    assert second is not None
    assert second.until_wall_s - first.until_wall_s > MEMBERSHIP_S * 0.5
    # Others know the new one, long before the first has ended.
    shown = club.members(OWNER).credentials
    await until(lambda: shown.proven[bob.me].serial == second.serial, 30)


async def test_a_membership_that_has_ended_makes_no_member(
    autojump_clock: MockClock, club: Club
) -> None:
    await club.joined("bob")
    club.end("bob")
    club.ahead_s += MEMBERSHIP_S + DAY_S
    with pytest.raises(Unreachable, match=r"no membership|expired"):
        await club.add("bob")
    # A new invite makes it one again.
    await club.joined("bob")
    assert club.members("bob").as_map()["member"] is True


async def test_who_may_only_verify_is_not_heard_when_it_says_that_it_infers(
    autojump_clock: MockClock, club: Club
) -> None:
    bits = 1 << Role.VERIFY
    club.roles["bob"] = 1 << Role.VERIFY | 1 << Role.INFER
    bob = await club.joined("bob", roles=bits)
    mine = bob.mine().record
    assert mine.roles == bits
    members = club.members("bob")
    bob.advertiser.own_roles = lambda: -1
    bob.advertiser.changed()
    owner = club.peers[OWNER]
    await until(lambda: owner.advertiser.refused.get("roles", 0) > 0, 60)
    heard = owner.view.advert_of(bob.me)
    assert heard is None or heard.record.roles == bits
    assert members.credentials.own is not None


def member(
    peer: PeerId, signer: SigningKey, network: PeerId, *, invite: bytes = bytes(16), roles: int = 1
) -> Signed[Membership]:
    record = Membership(
        network=network,
        peer=peer,
        roles=roles,
        label="",
        issued_at_s=1000,
        not_after_s=1000 + MEMBERSHIP_S,
        serial=1,
        invite=invite,
    )
    return sign(record, signer)


def invite_of(owner: SigningKey, admitter: PeerId, roles: int = 1) -> Signed[Invite]:
    record = Invite(
        id=bytes(16),
        name="",
        claim_key=owner.peer,
        issued_at_s=1000,
        not_after_s=2000,
        uses_max=1,
        roles=roles,
        label="",
        admitters=(Admitter(peer=admitter, addresses=()),),
    )
    return sign(record, owner)


def test_only_the_owner_and_whom_its_invite_names_make_members() -> None:
    owner, admitter, other = key_of("owner"), key_of("admitter"), key_of("other")
    bob = key_of("bob").peer
    here = Credentials(owner.peer, key_of("me").peer)
    by_owner = member(bob, owner, owner.peer)
    by_admitter = member(bob, admitter, owner.peer)
    invite = invite_of(owner, admitter.peer)
    assert here.judge(bob, by_owner.raw, b"", 1500.0).admitter == owner.peer
    # The invite has ended; whoever joined by it in time is a member still.
    assert here.judge(bob, by_admitter.raw, invite.raw, 9000.0).admitter == admitter.peer
    assert here.judge(owner.peer, b"", b"", 1500.0).peer == owner.peer
    wrong = [
        (bob, b"", b""),
        (bob, b"x", b""),
        (other.peer, by_owner.raw, b""),
        (bob, by_admitter.raw, b""),
        (bob, member(bob, other, owner.peer).raw, invite.raw),
        (bob, by_admitter.raw, invite_of(other, admitter.peer).raw),
        (bob, member(bob, admitter, owner.peer, invite=bytes([1]) * 16).raw, invite.raw),
        (bob, member(bob, admitter, owner.peer, roles=3).raw, invite.raw),
        (bob, member(bob, owner, other.peer).raw, b""),
    ]
    for peer, membership, shown in wrong:
        with pytest.raises(Refused):
            here.judge(peer, membership, shown, 1500.0)
    with pytest.raises(Refused, match="expired"):
        here.judge(bob, by_owner.raw, b"", 2000.0 + MEMBERSHIP_S)
    with pytest.raises(Refused, match="future"):
        here.judge(bob, by_owner.raw, b"", 10.0)


def test_a_membership_by_a_removed_admitter_ends_with_it() -> None:
    owner, admitter = key_of("owner"), key_of("admitter")
    bob = key_of("bob").peer
    here = Credentials(owner.peer, key_of("me").peer)
    shown = (member(bob, admitter, owner.peer).raw, invite_of(owner, admitter.peer).raw)
    here.proven[bob] = here.judge(bob, *shown, 1500.0)
    assert here.take_revoked(
        sign(Revoked(version=2, invites=(), peers=(admitter.peer,)), owner).raw
    )
    assert here.fallen() == [bob]
    with pytest.raises(Refused, match="admitted by a peer that was removed"):
        here.judge(bob, *shown, 1500.0)
    # A list that goes back brings nobody back.
    assert not here.take_revoked(sign(Revoked(version=1, invites=(), peers=()), owner).raw)
    assert here.is_removed(admitter.peer)


async def test_a_stranger_who_says_that_one_was_removed_is_named_with_its_word(
    autojump_clock: MockClock, club: Club
) -> None:
    ann = await club.joined("ann")
    liar = await alone(club, "liar")

    async def lies(call: TypedCall, _message: Message) -> None:
        words = "the owner of this network has removed this peer"
        await call.send(Refuse(code=RefusalCode.STRANGER, reason=words, retry_after_ms=None))

    liar.handlers[Hello] = lies
    with pytest.raises(Refused):
        await ann.neighbours.call(Dial(peer=liar.me, addresses=tuple(liar.endpoint.addresses)))
    told = club.members("ann").as_map()
    assert not told["removed"]
    assert str(told["problem"]).startswith(f"{liar.me.short} says: ")
    # While a member takes it, it is one.
    assert told["member"]
