"""A signature holds for one body, of one kind, by one key, and for nothing else."""

import itertools

import pytest

from tests.wire.samples import BY_NAME, KEY, OTHER_KEY, SIGNED, altered, name_of
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.errors import BadSignature, Malformed, Oversize
from wire.kinds import Kind
from wire.signed import SignedRecord, open_signed, sign
from wire.signing import SigningKey, check_signature

# The order of the curve's group: s and s + ORDER would satisfy the same equation.
ORDER = 2**252 + 27742317777372353535851937790883648493

every_signed_record = pytest.mark.parametrize("record", SIGNED, ids=name_of)


def forged(record: SignedRecord, at: int, part: object) -> bytes:
    """The record's envelope with one of its four parts replaced."""
    parts = unpack(sign(record, KEY).raw)
    parts[at] = part
    return pack(parts)


@every_signed_record
def test_a_signed_record_opens_and_keeps_the_bytes_that_were_signed(record: SignedRecord) -> None:
    signed = sign(record, KEY)
    opened = open_signed(signed.raw, type(record))
    assert (opened.record, opened.signer, opened.raw) == (record, KEY.peer, signed.raw)
    assert opened.id == signed.id


@every_signed_record
def test_another_key_did_not_sign_it(record: SignedRecord) -> None:
    with pytest.raises(BadSignature):
        open_signed(forged(record, 2, bytes(OTHER_KEY.peer)), type(record))


@every_signed_record
def test_another_signature_by_the_same_key_does_not_fit(record: SignedRecord) -> None:
    signature = KEY.sign(record.KIND.name.lower(), record.to_bytes() + b"\0")
    with pytest.raises(BadSignature):
        open_signed(forged(record, 3, signature), type(record))


@every_signed_record
def test_an_altered_body_is_not_what_was_signed(record: SignedRecord) -> None:
    body = bytearray(record.to_bytes())
    body[-1] ^= 1
    with pytest.raises(BadSignature):
        open_signed(forged(record, 1, bytes(body)), type(record))


@pytest.mark.parametrize(
    ("record", "kind"),
    [(record, type(other)) for record, other in itertools.permutations(SIGNED, 2)],
    ids=lambda item: getattr(item, "__name__", name_of(item)),
)
def test_a_record_is_not_opened_as_another_kind(
    record: SignedRecord, kind: type[SignedRecord]
) -> None:
    raw = sign(record, KEY).raw
    if len(raw) > kind.SIZE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX:
        # It is too large for one of that kind, and not even parsed.
        with pytest.raises(Oversize):
            open_signed(raw, kind)
        return
    with pytest.raises(Malformed, match=r"^kind \d+ where"):
        open_signed(raw, kind)
    # Nor when the envelope lies about its kind: the signature was made for the true one.
    with pytest.raises(BadSignature):
        open_signed(forged(record, 0, int(kind.KIND)), kind)


def test_a_signature_for_one_domain_is_not_one_for_another() -> None:
    signature = KEY.sign("receipt", b"body")
    check_signature(KEY.peer, "receipt", b"body", signature)
    for domain in ("verdict", "receip", "receipt\0", "", "RECEIPT"):
        with pytest.raises(BadSignature):
            check_signature(KEY.peer, domain, b"body", signature)


def test_no_body_continues_one_domain_into_another() -> None:
    # Without a separator "ans" + "wer…" and "answer" + "…" would be the same words.
    signature = KEY.sign("answer", b"body")
    with pytest.raises(BadSignature):
        check_signature(KEY.peer, "ans", b"wer\0body", signature)
    with pytest.raises(BadSignature):
        check_signature(KEY.peer, "", b"answer\0body", signature)


def test_bytes_signed_without_a_domain_are_worth_nothing_here() -> None:
    body = BY_NAME["Receipt"].to_bytes()
    for words in (body, b"receipt\0" + body, b"baton/1/receipt" + body):
        with pytest.raises(BadSignature):
            check_signature(KEY.peer, "receipt", body, KEY._private.sign(words))


def test_a_signature_has_one_form() -> None:
    # Whoever could write a second one would give the same record a second id.
    signature = KEY.sign("task", b"body")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    with pytest.raises(BadSignature):
        check_signature(KEY.peer, "task", b"body", signature[:32] + scalar.to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_none(size: int) -> None:
    with pytest.raises(BadSignature):
        check_signature(KEY.peer, "task", b"body", (KEY.sign("task", b"body") * 2)[:size])


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\x02" + bytes(31)])
def test_bytes_that_are_no_key_signed_nothing(key: bytes) -> None:
    with pytest.raises(BadSignature):
        check_signature(PeerId(key), "task", b"body", KEY.sign("task", b"body"))


@pytest.mark.parametrize(
    "envelope",
    [
        None,
        {},
        [],
        [1],
        [1, b"", b""],
        [1, b"", b"", b"", b""],
        ["1", b"", bytes(32), bytes(64)],
        [1.0, b"", bytes(32), bytes(64)],
        [1, "", bytes(32), bytes(64)],
        [1, b"", "key", bytes(64)],
        [1, b"", bytes(31), bytes(64)],
        [1, b"", bytes(32), "signature"],
        [0, b"", bytes(32), bytes(64)],
        [99, b"", bytes(32), bytes(64)],
    ],
    ids=repr,
)
def test_an_envelope_of_another_shape_is_malformed(envelope: object) -> None:
    with pytest.raises(Malformed):
        open_signed(pack(envelope), Advert)  # type: ignore[arg-type]


def test_true_is_not_the_number_of_an_advert() -> None:
    # True equals 1, but as a kind it would give the same advert a second id.
    advert = BY_NAME["Advert"]
    assert isinstance(advert, Advert)
    assert int(Kind.ADVERT) == int(True)
    with pytest.raises(Malformed):
        open_signed(forged(advert, 0, True), Advert)


def test_a_body_signed_but_not_canonical_is_refused() -> None:
    # 0xdf is a map of 32 bits: the same fields in another encoding, under a true signature.
    body = BY_NAME["Advert"].to_bytes()
    long_form = b"\xdf" + (body[0] & 0x0F).to_bytes(4, "big") + body[1:]
    raw = pack([1, long_form, bytes(KEY.peer), KEY.sign("advert", long_form)])
    with pytest.raises(Malformed):
        open_signed(raw, Advert)


@every_signed_record
def test_an_envelope_beyond_its_kinds_size_is_not_even_parsed(record: SignedRecord) -> None:
    with pytest.raises(Oversize):
        open_signed(b"\xc1" * (record.SIZE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX + 1), type(record))


def advert_of(size_bytes: int) -> SignedRecord:
    """An advert with many models, whose last address is as long as the size asks for."""
    models = tuple(
        ModelOffer(model=ContentId.of(bytes((at,))), name="m" * 64, units_per_s=1.0)
        for at in range(12)
    )
    shortest = altered("Advert", models=models, addresses=("/" * 150, "/" * 32))
    address = "/" * (32 + size_bytes - len(pack(shortest.to_fields())))
    advert = altered("Advert", models=models, addresses=("/" * 150, address))
    assert isinstance(advert, Advert)
    return advert


def test_a_record_at_its_largest_size_is_signed_and_opened() -> None:
    signed = sign(advert_of(limits.ADVERT_BYTES_MAX), KEY)
    assert open_signed(signed.raw, Advert) == signed


def test_a_record_beyond_its_size_is_not_signed_and_not_opened() -> None:
    advert = advert_of(limits.ADVERT_BYTES_MAX + 1)
    with pytest.raises(Oversize):
        sign(advert, KEY)
    body = pack(advert.to_fields())
    with pytest.raises(Oversize):
        open_signed(pack([1, body, bytes(KEY.peer), KEY.sign("advert", body)]), Advert)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_is_32_bytes(size: int) -> None:
    with pytest.raises(Malformed):
        SigningKey(bytes(size))


def test_a_key_does_not_show_its_seed() -> None:
    shown = repr(KEY) + str(KEY)
    assert str(KEY.peer) in shown
    assert KEY.seed.hex() not in shown
    assert repr(KEY.seed) not in shown
