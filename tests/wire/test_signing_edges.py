"""Two libraries, one opinion: every peer accepts and refuses the same signatures.

Libraries differ about keys and points of small order, about points with two encodings, and about
parts of small order in what is otherwise sound. The signatures here are made of these.
"""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.edwards import (
    BASE,
    ORDER,
    SMALL,
    P,
    encoded,
    encodings,
    hashed,
    plus,
    point_at,
    scalar,
    times,
)
from tests.wire.samples import KEY
from wire import signing
from wire.content import PeerId
from wire.errors import BadSignature
from wire.signing import (
    SigningKey,
    check_signature,
    libsodium_accepts,
    openssl_accepts,
    separated,
    verifier_with,
)

# A private scalar and a nonce of ours.
SECRET, NONCE = 12345678901234567890123456789, 987654321987654321
KEY_POINT, NONCE_POINT = times(SECRET, BASE), times(NONCE, BASE)
BODIES = [b"%d" % at for at in range(4)]
Edge = tuple[bytes, bytes, bytes]


def with_parts_of_small_order() -> Iterator[Edge]:
    """Signatures by a known key, with a small part added to the key, to R, or to both."""
    for small_r in SMALL:
        r = encoded(plus(NONCE_POINT, small_r))
        for small_key in SMALL:
            key = encoded(plus(KEY_POINT, small_key))
            for body in BODIES:
                s = (NONCE + hashed(r, key, separated("task", body)) * SECRET) % ORDER
                yield key, body, r + scalar(s)


def under_keys_of_small_order() -> Iterator[Edge]:
    for key in (key for small in SMALL for key in encodings(small)):
        for body in BODIES:
            yield key, body, encoded(NONCE_POINT) + scalar(NONCE)
            for r in (r for small in SMALL for r in encodings(small)):
                yield key, body, r + scalar(0)


def with_r_of_small_order() -> Iterator[Edge]:
    key = encoded(KEY_POINT)
    for r in (r for small in SMALL for r in encodings(small)):
        for body in BODIES:
            yield key, body, r + scalar(hashed(r, key, separated("task", body)) * SECRET % ORDER)


def with_s_beyond_the_order() -> Iterator[Edge]:
    r, key = encoded(NONCE_POINT), encoded(KEY_POINT)
    for body in BODIES:
        s = (NONCE + hashed(r, key, separated("task", body)) * SECRET) % ORDER
        for beyond in (s + ORDER, s + 2 * ORDER, s | 1 << 253, s | 1 << 254, s | 1 << 255):
            yield key, body, r + scalar(beyond)


def under_keys_with_two_encodings() -> Iterator[Edge]:
    """Keys y + p, which is no canonical encoding: of points and of none."""
    for key in ((y + P | odd << 255).to_bytes(32, "little") for y in range(19) for odd in (0, 1)):
        for body in BODIES:
            yield key, body, encoded(NONCE_POINT) + scalar(NONCE)


EDGES = {
    "parts of small order": (with_parts_of_small_order, 29),
    "keys of small order": (under_keys_of_small_order, 85),
    "R of small order": (with_r_of_small_order, 4),
    "s beyond the order": (with_s_beyond_the_order, 0),
    "keys with two encodings": (under_keys_with_two_encodings, 12),
}


def accepted(key: bytes, body: bytes, signature: bytes) -> bool:
    try:
        check_signature(PeerId(key), "task", body, signature)
    except BadSignature:
        return False
    return True


@pytest.mark.parametrize("name", EDGES)
def test_the_edges_of_the_curve_are_judged_as_the_reference_judges_them(name: str) -> None:
    edges, taken = EDGES[name]
    verdicts = []
    for key, body, signature in edges():
        verdict = accepted(key, body, signature)
        words = separated("task", body)
        assert verdict is openssl_accepts(key, words, signature)
        # What libsodium alone would accept, nothing takes back.
        assert verdict or not libsodium_accepts(key, words, signature)
        verdicts.append(verdict)
    # Golden: another version of a library that judges otherwise would split the network.
    assert sum(verdicts) == taken, (name, sum(verdicts), len(verdicts))


def test_what_libsodium_refuses_is_asked_of_the_reference() -> None:
    # The neutral point as a key: s = 0 and R = 0 satisfy the equation for any words.
    key = encoded(SMALL[0])
    signature = key + scalar(0)
    assert not libsodium_accepts(key, separated("task", b"body"), signature)
    assert accepted(key, b"body", signature)


def test_a_library_that_checks_the_equation_times_eight_is_not_used() -> None:
    def lax(key: bytes, words: bytes, signature: bytes) -> bool:
        return True

    assert verifier_with(lax) is openssl_accepts
    # It is used otherwise, and its yes is enough.
    asked = []

    def strict(key: bytes, words: bytes, signature: bytes) -> bool:
        asked.append(words)
        return words == b"yes"

    verifier = verifier_with(strict)
    assert verifier(KEY.peer, b"yes", bytes(64))
    assert not verifier(KEY.peer, b"no", bytes(64))
    assert asked[1:] == [b"yes", b"no"]


def test_the_one_that_only_holds_times_eight_is_what_it_says() -> None:
    key, words, signature = signing._ONLY_TIMES_EIGHT
    s = int.from_bytes(signature[32:], "little")
    challenge = hashed(signature[:32], key, words)
    number = int.from_bytes(signature[:32], "little")
    r = point_at(number % 2**255, number >> 255)
    assert r is not None
    right = plus(r, times(challenge, KEY_POINT))
    assert encoded(KEY_POINT) == key
    assert times(s, BASE) != right
    assert times(8 * s, BASE) == times(8, right)
    assert not libsodium_accepts(*signing._ONLY_TIMES_EIGHT)
    assert not openssl_accepts(*signing._ONLY_TIMES_EIGHT)


def test_bytes_do_not_move_between_a_signature_and_what_it_is_over() -> None:
    # libsodium reads one piece: a signature one byte longer would move that byte into the words.
    words = separated("task", b"body")
    for odd in (b"x", bytes(64), b"baton"):
        assert not accepted(KEY.peer, b"body", KEY._private.sign(odd + words) + odd)
    plain = KEY._private.sign(words)
    assert accepted(KEY.peer, b"body", plain)
    assert not accepted(KEY.peer, b"ody", plain + words[:-4] + b"b")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_both_libraries_write_the_same_signature(seed: bytes, body: bytes) -> None:
    key = SigningKey(seed)
    assert key.sign("task", body) == key._private.sign(separated("task", body))
    assert accepted(key.peer, body, key.sign("task", body))


@given(st.data())
def test_a_signature_with_anything_altered_is_judged_alike(data: st.DataObject) -> None:
    words = separated("task", b"body")
    whole = bytearray(KEY.peer + KEY.sign("task", b"body"))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, 95))] = data.draw(st.integers(0, 255))
    key, signature = bytes(whole[:32]), bytes(whole[32:])
    assert accepted(key, b"body", signature) is openssl_accepts(key, words, signature)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80))
def test_any_bytes_are_no_signature(key: bytes, signature: bytes) -> None:
    assert not accepted(key, b"body", signature)
