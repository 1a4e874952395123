"""The structured reference string (SRS) of proofs: whoever knows how it was made can forge them.

It is a file of points of a curve, made from one secret number. From a ceremony of many, one honest
participant is enough for nobody to know that number; one that somebody made alone is as good as
that one's word. Baton tells the two apart by the hashes of the ceremony's files.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from node.engines.proving.circuit import LOGROWS
from wire.errors import InputError

LOGROWS_MAX = 20
# A file's size: its height, points of two kinds, and two of the other group.
_HEAD_BYTES, _POINT_BYTES, _TAIL_BYTES = 4, 128, 256
# sha256 of the files that were cut from the perpetual powers of tau, by their height.
CEREMONY = {
    14: "c09129f064c08ecb07ea3689a2247dcc177de6837e7d2f5f946e30453abbccef",
    15: "90807800a1c3b248a452e1732c45ee5099f38b737356f5542c0584ec9c3ebb45",
    16: "2a1a494630e71bc026dd5c0eab4c1b9a5dbc656228c1f0d48f5dbd3909b161d3",
    17: "41509f380362a8d14401c5ae92073154922fe23e45459ce6f696f58607655db7",
    18: "d0148475717a2ba269784a178cb0ab617bc77f16c58d4a3cbdfe785b591c7034",
    19: "d1a1655b4366a766d1578beb257849a92bf91cb1358c1a2c37ab180c5d3a204d",
    20: "54ef75911da76d7a6b7ea341998aaf66cb06c679c53e0a88a4fe070dd3add963",
}


def trust_words(digest: bytes) -> str:
    """What a proof under the SRS of this sha256 rests on, in one sentence."""
    if digest.hex() in CEREMONY.values():
        return (
            f"its SRS {digest.hex()[:16]}… is the one of the perpetual powers of tau: forging needs"
            " all who took part in that ceremony together"
        )
    return (
        f"its SRS {digest.hex()[:16]}… is home-made, of no ceremony known here: whoever made that"
        " file can forge proofs of anything with it"
    )


@dataclass(frozen=True, slots=True)
class Srs:
    """An SRS file as it was when it was read; made by `read_srs`."""

    path: Path
    digest: bytes

    @property
    def is_of_ceremony(self) -> bool:
        """Whether it is a file of the published ceremony."""
        return self.digest.hex() in CEREMONY.values()


def read_srs(path: Path) -> Srs:
    """An SRS that is large enough for every circuit made here; InputError says what is wrong."""
    todo = "make one with: python -m node models srs FILE, or fetch one of a ceremony"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            height = int.from_bytes(file.read(_HEAD_BYTES), "little")
            if (
                not LOGROWS <= height <= LOGROWS_MAX
                or size != _HEAD_BYTES + (_POINT_BYTES << height) + _TAIL_BYTES
            ):
                raise InputError(
                    f"{path} is no SRS of a height from {LOGROWS} to {LOGROWS_MAX}", todo=todo
                )
            file.seek(0)
            return Srs(path.absolute(), hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise InputError(f"the SRS {path} cannot be read: {error.strerror}", todo=todo) from error
