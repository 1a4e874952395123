"""The hash by which IPFS tools place names in large folders: MurmurHash3 of 128 bits. Pure.

It spreads names, and protects nobody: who chooses names can choose their hashes.
"""

_MASK = (1 << 64) - 1
_FIRST, _SECOND = 0x87C37B91114253D5, 0x4CF5AD432745937F


def murmur3_64(data: bytes) -> bytes:
    """The first 64 bits of the variant for 64-bit processors, with seed 0, the highest first."""
    one = two = 0
    whole = len(data) - len(data) % 16
    for at in range(0, whole, 16):
        one ^= _mixed(int.from_bytes(data[at : at + 8], "little"), _FIRST, 31, _SECOND)
        one = (_turned(one, 27) + two) * 5 + 0x52DCE729 & _MASK
        two ^= _mixed(int.from_bytes(data[at + 8 : at + 16], "little"), _SECOND, 33, _FIRST)
        two = (_turned(two, 31) + one) * 5 + 0x38495AB5 & _MASK
    one ^= _mixed(int.from_bytes(data[whole : whole + 8], "little"), _FIRST, 31, _SECOND)
    two ^= _mixed(int.from_bytes(data[whole + 8 :], "little"), _SECOND, 33, _FIRST)
    one ^= len(data)
    two ^= len(data)
    one = one + two & _MASK
    two = two + one & _MASK
    return (_ended(one) + _ended(two) & _MASK).to_bytes(8, "big")


def _mixed(part: int, before: int, bits: int, after: int) -> int:
    return _turned(part * before & _MASK, bits) * after & _MASK


def _turned(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _MASK


def _ended(value: int) -> int:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _MASK
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33
