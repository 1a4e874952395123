"""An invite is one line; a line that was altered anywhere is none, and says so in words."""

from dataclasses import replace

import pytest

from tests.wire.samples import BY_NAME, KEY, OTHER_KEY
from wire import limits
from wire.content import PeerId
from wire.errors import InputError, Oversize
from wire.invite_token import PREFIX, TOKEN_CHARACTERS_MAX, read_token, write_token
from wire.membership import Admitter, Invite, Revoked
from wire.signed import sign

INVITE = BY_NAME["Invite"]
assert isinstance(INVITE, Invite)
LINE = write_token(sign(INVITE, KEY), OTHER_KEY.seed)


def test_a_line_is_read_as_it_was_written_also_with_line_ends_around_and_in_it() -> None:
    for text in (LINE, f"\n {LINE}\n", LINE[:70] + "\n" + LINE[70:], LINE.upper()):
        invite, key = read_token(text)
        assert (invite.record, invite.signer) == (INVITE, KEY.peer)
        assert key.seed == OTHER_KEY.seed
    assert len(LINE) < 640


WRAPPED = "\n".join(LINE[place : place + 70] for place in range(0, len(LINE), 70))


@pytest.mark.parametrize(
    "text",
    [
        f"$ python -m node join {LINE} --role infer",
        f'"{LINE}"',
        f"`{LINE}`",
        f"<{LINE}>",
        f'{{"id": "00", "line": "{LINE}", "uses": 1}}',
        f"\ufeff{LINE}\r\n",
        f"{LINE[:300]}\u200b{LINE[300:]}",
        f"{LINE}\n\n  █▀▀▀▀▀█ ▀█▄▀ █▄▄█\n  █ ███ █ ▀▄▀█▄█▀█\n",
        f"# of bob\n{LINE}\ninvite 6c000c71: 1 use\n",
        "On Monday ada wrote:\n> " + WRAPPED.replace("\n", "\n> "),
        WRAPPED + "\n",
    ],
)
def test_a_line_is_found_within_what_people_paste_with_it(text: str) -> None:
    invite, key = read_token(text)
    assert (invite.record, key.seed) == (INVITE, OTHER_KEY.seed)


OTHERS_LINE = write_token(sign(INVITE, OTHER_KEY), OTHER_KEY.seed)


@pytest.mark.parametrize(
    "text",
    [
        f"{OTHERS_LINE}\n{LINE}",
        f"{LINE} or <{OTHERS_LINE}>",
        # The right one cannot be read, as it is wrapped and more follows.
        f"> {WRAPPED.replace(chr(10), chr(10) + '> ')}\n\n{' ' * 400}{OTHERS_LINE}",
        f"'{OTHERS_LINE[:200]}' is old: {LINE}",
    ],
)
def test_of_two_lines_in_one_text_none_is_chosen(text: str) -> None:
    with pytest.raises(InputError, match="2 invites"):
        read_token(text)


def test_a_word_about_invites_or_the_same_line_again_is_no_second_one() -> None:
    for text in (f"it begins with baton1 and is long: {LINE}", f"{LINE}\n> {LINE.upper()}\n"):
        assert read_token(text)[0].signer == KEY.peer


@pytest.mark.parametrize(
    "strange", ["\u0430", "\uff41", "\u0131", "\u017f", "\u212a", ".", '"', "a", "="]
)
def test_a_letter_put_in_or_one_that_only_looks_like_it_is_refused(strange: str) -> None:
    for place in range(0, len(LINE), 11):
        for text in (LINE[:place] + strange + LINE[place + 1 :], f"{LINE[:place]}{strange}a{LINE}"):
            if text[place] != LINE[place]:
                with pytest.raises(InputError):
                    read_token(text)


def test_a_line_altered_in_any_letter_or_cut_anywhere_is_refused() -> None:
    for place, letter in enumerate(LINE):
        other = "a" if letter != "a" else "b"
        with pytest.raises(InputError):
            read_token(LINE[:place] + other + LINE[place + 1 :])
    for place in range(0, len(LINE), 7):
        with pytest.raises(InputError, match=r"cut|not begin"):
            read_token(LINE[:place])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PREFIX,
        PREFIX + "!",
        PREFIX + "a" * 10,
        "é" * 40,
        LINE + "aaaa",
        LINE[:9].upper() + LINE[9:],
    ],
)
def test_what_is_no_invite_is_an_error_of_whoever_typed_it(text: str) -> None:
    with pytest.raises(InputError, match=r"no invite|cut or altered"):
        read_token(text)


def test_a_line_of_any_length_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="at most"):
        read_token(PREFIX + "a" * (TOKEN_CHARACTERS_MAX + 1))
    with pytest.raises(InputError):
        read_token(PREFIX + "a " * 4_000_000)


def test_an_invite_of_somebody_who_does_not_own_its_secret_is_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        read_token(write_token(sign(INVITE, KEY), bytes(32)))


def test_an_invite_cannot_name_ten_thousand_addresses() -> None:
    with pytest.raises(Oversize):
        Admitter(peer=KEY.peer, addresses=("/ip4/45.1.0.10/tcp/4747",) * 10_000)
    with pytest.raises(Oversize):
        replace(INVITE, admitters=INVITE.admitters * 10_000)


def bytes_peer(number: int) -> PeerId:
    return PeerId(bytes([number]) * 32)


def test_the_uses_are_shared_among_admitters_and_are_never_more() -> None:
    assert INVITE.share_of(KEY.peer) == INVITE.uses_max
    both = replace(
        INVITE,
        uses_max=3,
        admitters=tuple(Admitter(peer=it, addresses=()) for it in (KEY.peer, OTHER_KEY.peer)),
    )
    assert [both.share_of(it) for it in (KEY.peer, OTHER_KEY.peer)] == [2, 1]
    assert both.share_of(bytes_peer(9)) == 0


def test_an_admitter_that_is_named_twice_counts_one_share() -> None:
    twice = replace(INVITE, uses_max=2, admitters=INVITE.admitters * 2)
    assert twice.share_of(KEY.peer) == 1


def test_a_list_of_revoked_ids_is_bounded() -> None:
    peers = tuple(bytes_peer(1) for _ in range(limits.REVOKED_PEERS_MAX))
    assert len(Revoked(version=1, invites=(), peers=peers).to_bytes()) < limits.REVOKED_BYTES_MAX
    with pytest.raises(Oversize):
        Revoked(version=1, invites=(), peers=(*peers, peers[0]))
