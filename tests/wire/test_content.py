"""Content ids and peer ids are what the rest of the world says they are."""

import base64
import hashlib

import cid
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID

from tests.wire.samples import BLOCK, KEY, OTHER_KEY, TREE
from wire.base32 import base32
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.signing import SigningKey


@given(st.binary(max_size=100), st.sampled_from(["raw", "messagepack"]))
def test_another_library_writes_the_same_content_id(data: bytes, codec: str) -> None:
    ours = ContentId.of(data) if codec == "raw" else ContentId.of_tree(data)
    # A sha2-256 multihash: the function's number, the digest's length, the digest.
    theirs = cid.make_cid(1, codec, b"\x12\x20" + hashlib.sha256(data).digest())
    assert theirs.buffer == ours
    assert theirs.encode("base32").decode() == str(ours)


@given(st.binary(max_size=40))
def test_our_base32_is_everybodys(data: bytes) -> None:
    assert base32(data) == base64.b32encode(data).decode().lower().rstrip("=")


@pytest.mark.parametrize(("ours", "codec"), [(BLOCK, "raw"), (TREE, "messagepack")])
def test_another_library_reads_our_content_ids(ours: ContentId, codec: str) -> None:
    theirs = cid.from_string(str(ours))
    assert (theirs.version, theirs.codec) == (1, codec)
    assert theirs.multihash == b"\x12\x20" + ours.digest


def test_the_empty_block_has_the_id_that_ipfs_gives_it() -> None:
    known = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert str(ContentId.of(b"")) == known


@given(st.binary(max_size=50))
def test_a_content_id_is_read_back_from_its_text_and_its_bytes(data: bytes) -> None:
    for found in (ContentId.of(data), ContentId.of_tree(data)):
        assert ContentId.parse(str(found)) == found == ContentId(bytes(found))
        assert found.matches(data)
        assert found.matches(memoryview(data))
        assert not found.matches(data + b"\0")
        assert found.digest == hashlib.sha256(data).digest()


def test_a_block_and_a_node_of_the_same_bytes_have_two_ids() -> None:
    assert ContentId.of(b"node") != TREE
    assert TREE.is_tree
    assert not BLOCK.is_tree


TEXT = str(BLOCK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        TEXT[1:],
        TEXT.upper(),
        TEXT[:-1] + TEXT[-1].upper(),
        # The last character holds bits that the bytes do not: another text for the same id.
        TEXT[:-1] + "z",
        TEXT[:-1] + "7",
        TEXT + "=",
        TEXT + "======",
        TEXT + " ",
        TEXT + "\n",
        " " + TEXT,
        TEXT + "a",
        TEXT[:-1],
        TEXT[:10] + "1" + TEXT[11:],
        TEXT[:10] + "ß" + TEXT[11:],
        TEXT[:10] + "\ud800" + TEXT[11:],
        "b" * 65,
        "b" * 1_000_000,
        # The same hash as CIDv0, in base58, and under other codecs and hashes.
        cid.make_cid(0, "dag-pb", b"\x12\x20" + BLOCK.digest).encode().decode(),
        cid.make_cid(1, "raw", b"\x12\x20" + BLOCK.digest).encode("base58btc").decode(),
        cid.make_cid(1, "dag-pb", b"\x12\x20" + BLOCK.digest).encode("base32").decode(),
        cid.make_cid(1, "raw", b"\x1b\x20" + BLOCK.digest).encode("base32").decode(),
    ],
    ids=lambda text: repr(text[-12:]),
)
def test_any_other_text_is_no_content_id(text: str) -> None:
    with pytest.raises(Malformed):
        ContentId.parse(text)


def test_any_other_bytes_are_no_content_id() -> None:
    for found in (BLOCK, TREE):
        for binary in (b"", found[:-1], found + b"\0", found[1:], b"\0" + found[1:]):
            with pytest.raises(Malformed):
                ContentId(binary)
        for at in range(len(found) - 32):
            with pytest.raises(Malformed):
                ContentId(found[:at] + bytes((found[at] ^ 1,)) + found[at + 1 :])


@given(st.text(max_size=70))
def test_any_text_is_the_text_of_a_content_id_or_refused(text: str) -> None:
    try:
        found = ContentId.parse(text)
    except Malformed:
        return
    assert str(found) == text


@given(st.binary(min_size=32, max_size=32))
def test_libp2p_writes_the_same_peer_id(seed: bytes) -> None:
    ours = SigningKey(seed).peer
    theirs = ID.from_pubkey(
        Ed25519PublicKey.from_bytes(
            ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        )
    )
    assert theirs.to_base58() == str(ours)
    assert ID.from_base58(str(ours)) == theirs
    assert PeerId.parse(str(ours)) == ours


PEER = str(KEY.peer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        PEER[:-1],
        PEER + "1",
        "1" + PEER,
        PEER + " ",
        PEER + "\n",
        " " + PEER,
        PEER[:9] + "0" + PEER[10:],
        PEER[:9] + "é" + PEER[10:],
        PEER[:9] + "\ud800" + PEER[10:],
        PEER.lower(),
        "1" * 65,
        "z" * 1_000_000,
        # A peer id of an RSA key: a hash, not a key.
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        str(BLOCK),
    ],
    ids=lambda text: repr(text[-12:]),
)
def test_any_other_text_is_no_peer_id(text: str) -> None:
    with pytest.raises(Malformed):
        PeerId.parse(text)


@given(st.text(max_size=70) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZ \n", max_size=70))
def test_any_text_is_the_text_of_a_peer_id_or_refused(text: str) -> None:
    try:
        found = PeerId.parse(text)
    except Malformed:
        return
    assert str(found) == text


@pytest.mark.parametrize("size", [0, 31, 33, 36])
def test_a_peer_id_is_32_bytes(size: int) -> None:
    with pytest.raises(Malformed):
        PeerId(bytes(size))


def test_short_forms_show_the_end_where_ids_differ() -> None:
    assert BLOCK.short == "…" + str(BLOCK)[-8:]
    assert KEY.peer.short == "…" + str(KEY.peer)[-6:]
    assert KEY.peer.short != OTHER_KEY.peer.short


def test_the_debugging_form_names_the_kind_and_the_whole_text() -> None:
    assert repr(BLOCK) == f"ContentId({BLOCK})"
    assert repr(KEY.peer) == f"PeerId({KEY.peer})"
