"""Bytes that cost their reader far more than their sender: they are not read to their end."""

import threading

import msgpack
import pytest

from wire.advert import Advert
from wire.errors import WireError
from wire.kinds import Kind
from wire.message import MESSAGES, decode
from wire.receipt import Answer, Receipt, Verdict
from wire.schema import items_max
from wire.signed import Envelope, SignedRecord
from wire.task import Task

# Few bytes to send, many values to build: each once cost a peer milliseconds for a kilobyte.
COSTLY = {
    "empty lists": b"\xdc\x3f\xff" + b"\x90" * 0x3FFF,
    "small numbers": b"\xdc\x3f\xff" + b"\x01" * 0x3FFF,
    "nothing but depth": b"\x91" * 0x10000,
    "a huge map of equal keys": b"\xde\x1f\xff" + b"\xa1a\x01" * 0x1FFF,
    "a claim of four billion": b"\xdd\xff\xff\xff\xff" + b"\x90" * 0x10000,
    "extension types": b"\xdc\x3f\xff" + b"\xd4\x01\x01" * 0x3FFF,
}


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the bytes of which values were built."""
    built: list[int] = []
    # Other threads of this process may have a network of their own.
    here = threading.get_ident()
    unpackb = msgpack.unpackb

    def counting(data: bytes, **options: object) -> object:
        value = unpackb(data, **options)
        if threading.get_ident() == here:
            built.append(len(data))
        return value

    monkeypatch.setattr("wire.codec.msgpack.unpackb", counting)
    return built


@pytest.mark.parametrize("what", COSTLY)
@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_a_message_of_many_values_is_not_built(
    kind: Kind, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = _counted(monkeypatch)
    for data in (COSTLY[what], b"\x92" + bytes((kind,)) + COSTLY[what]):
        with pytest.raises(WireError):
            decode(data)
    assert built == []


@pytest.mark.parametrize("what", COSTLY)
@pytest.mark.parametrize("kind", [Advert, Task, Receipt, Verdict, Answer])
def test_a_signed_record_of_many_values_is_not_built(
    kind: type[SignedRecord], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = _counted(monkeypatch)
    with pytest.raises(WireError):
        kind.from_bytes(COSTLY[what][: kind.SIZE_BYTES_MAX])
    with pytest.raises(WireError):
        Envelope.read(COSTLY[what][: kind.SIZE_BYTES_MAX], kind)
    assert built == []


def test_the_longest_record_of_each_kind_is_within_its_items() -> None:
    # All bounds at once: 512 candidates, 16 verdicts, 4 receipts, and the names of nine fields.
    assert items_max(Answer) >= 512 + 16 + 4 + 9 + 9
    assert items_max(Task) >= 4 * (1 + 2 * 4 + 2 * 16)
