"""The verifiable random function: the standard's own vectors, and proofs that are none."""

from random import Random

import pytest

from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import BadSignature
from wire.signing import SigningKey
from wire.vrf import OUTPUT_BYTES, PROOF_BYTES, output_of, prove

# RFC 9381, appendix B.3, examples 16 to 18: seed, public key, words, proof, output.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f"
        "26f8a57ccaed74ee1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab12"
        "68a1b0db10836d9826a528ca76567805",
        "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff"
        "66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed593"
        "3bf0864a62558b3ed7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926d"
        "a3ef39226bbc355bdc9850112c8f4b02",
        "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb"
        "5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf80"
        "96bb474e53895c362d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a"
        "2d41b00b05081ed0f58ee5e31b3a970e",
        "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45"
        "2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493
# The eight points of small order, and encodings of such that are not the one way to write them.
SMALL = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
KEY, WORDS = key_of("contributor"), b"a root"


@pytest.mark.parametrize("vector", VECTORS)
def test_proofs_and_outputs_are_those_of_the_standard(vector: tuple[str, ...]) -> None:
    seed, public, words, proof, output = map(bytes.fromhex, vector)
    key = SigningKey(seed)
    assert key.peer == public
    assert prove(key, words) == proof
    assert output_of(PeerId(public), words, proof) == output


def test_there_is_one_proof_and_one_output() -> None:
    proof = prove(KEY, WORDS)
    assert len(proof) == PROOF_BYTES
    assert prove(KEY, WORDS) == proof
    output = output_of(KEY.peer, WORDS, proof)
    assert len(output) == OUTPUT_BYTES
    assert output != output_of(KEY.peer, b"others", prove(KEY, b"others"))


def test_a_proof_holds_for_its_own_words_and_key_alone() -> None:
    proof = prove(KEY, WORDS)
    for peer, words in [(key_of("another").peer, WORDS), (KEY.peer, b"others")]:
        with pytest.raises(BadSignature):
            output_of(peer, words, proof)


def test_a_proof_altered_in_any_byte_or_of_another_length_is_none() -> None:
    proof, chance = prove(KEY, WORDS), Random(1)
    for at in range(PROOF_BYTES):
        damaged = bytearray(proof)
        damaged[at] ^= 1 << chance.randrange(8)
        with pytest.raises(BadSignature):
            output_of(KEY.peer, WORDS, bytes(damaged))
    for wrong in (b"", proof[:-1], proof + b"\0"):
        with pytest.raises(BadSignature):
            output_of(KEY.peer, WORDS, wrong)


def test_a_response_beyond_the_order_is_refused_though_it_satisfies_the_equation() -> None:
    proof = prove(KEY, WORDS)
    beyond = int.from_bytes(proof[48:], "little") + ORDER
    with pytest.raises(BadSignature, match="malformed"):
        output_of(KEY.peer, WORDS, proof[:48] + beyond.to_bytes(32, "little"))


@pytest.mark.parametrize("small", SMALL)
def test_points_of_small_order_and_odd_encodings_are_no_keys_and_no_part_of_a_proof(
    small: str,
) -> None:
    point, proof = bytes.fromhex(small), prove(KEY, WORDS)
    with pytest.raises(BadSignature):
        output_of(KEY.peer, WORDS, point + proof[32:])
    with pytest.raises(BadSignature):
        output_of(PeerId(point), WORDS, proof)


def test_a_point_with_a_part_of_small_order_is_refused() -> None:
    """Times eight it would give the same output, so one output would have several proofs."""
    from nacl.bindings import crypto_core_ed25519_add

    proof = prove(KEY, WORDS)
    mixed = crypto_core_ed25519_add(proof[:32], bytes.fromhex(SMALL[1]))
    with pytest.raises(BadSignature):
        output_of(KEY.peer, WORDS, mixed + proof[32:])
