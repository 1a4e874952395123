"""What an owner revokes stays revoked, however many members and removals there are."""

import pytest
from trio.testing import MockClock

from p2p import member_rows
from p2p.credentials import DAY_S, MEMBERSHIP_S
from tests.p2p.private import OWNER, open_club
from tests.p2p.transports import key_of
from wire import limits
from wire.errors import InputError, Refused
from wire.membership import Revoked
from wire.signed import open_signed, sign


async def test_a_member_is_removed_however_many_there_are(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_rows, "ROWS_MAX", 2)
    async with open_club() as club:
        admission = club.members(OWNER).admission
        gone = [key_of(f"gone {it}").peer for it in range(7)]
        for number, peer in enumerate(gone, 1):
            raw, _ = await admission.remove(peer)
            # A key is at any place among the others: none of them is left out.
            assert set(open_signed(raw, Revoked).record.peers) == set(gone[:number])
        assert {it.peer for it in admission.rows.members()} == set(gone)


async def test_a_removal_that_there_is_no_room_for_stops_no_other(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REVOKED_PEERS_MAX", 3)
    async with open_club() as club:
        admission = club.members(OWNER).admission
        invite, _ = await club.invite()
        for number in range(3):
            await admission.remove(key_of(f"gone {number}").peer)
        late = key_of("one too many").peer
        with pytest.raises(InputError, match="can be revoked"):
            await admission.remove(late)
        assert admission.rows.member(late).removed_until_wall_s == 0
        # Removing one of them again, and revoking an invite, go on as before.
        await admission.remove(key_of("gone 0").peer)
        raw = await admission.revoke_invite(invite.record.id)
        assert open_signed(raw, Revoked).record.invites == (invite.record.id,)


async def test_who_is_removed_while_it_claims_another_invite_stays_removed(
    autojump_clock: MockClock,
) -> None:
    """It has held the claim open, and signs it before the list has come to the admitter."""
    async with open_club() as club:
        owner = club.members(OWNER)
        peer = (await club.joined("liar")).me
        other, _ = await club.invite(label="another")
        await owner.admission.remove(peer)
        with pytest.raises(Refused, match="has removed you"):
            await owner.admission._admit(other, peer)
        # It is on the next list too.
        raw, _ = await owner.admission.remove(key_of("somebody").peer)
        assert peer in open_signed(raw, Revoked).record.peers


async def test_an_owner_whose_folder_went_back_gives_nobody_a_membership_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_club() as club:
        owner = club.members(OWNER)
        bob = (await club.joined("bob")).me
        kept, _ = await club.invite(label="kept", uses_max=9)
        removed = key_of("of another copy").peer
        lost = bytes(range(len(kept.record.id)))
        # What the owner had signed, as a member tells it; its own rows know nothing of it.
        newer = Revoked(
            version=owner.credentials.revoked_version + 2_000_000_000,
            invites=tuple(sorted((kept.record.id, lost))),
            peers=tuple(sorted((bob, removed))),
        )
        await owner.take_revoked(sign(newer, key_of(OWNER)).raw)
        other = key_of("other").peer
        raw, _ = await owner.admission.remove(other)
        said = open_signed(raw, Revoked).record
        assert said.version == newer.version + 1
        assert set(said.peers) == {bob, removed, other}
        assert set(said.invites) == {kept.record.id, lost}
        # It is known here from now on, and ends as others do.
        assert owner.admission.rows.member(removed).removed_until_wall_s > 0
        club.ahead_s += MEMBERSHIP_S + 3 * DAY_S
        monkeypatch.setattr(limits, "REVOKED_INVITES_MAX", 1)
        raw, _ = await owner.admission.remove(other)
        assert set(open_signed(raw, Revoked).record.peers) == {other}
