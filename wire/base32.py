"""Base32 (RFC 4648) in lower case without padding, for what is at most 40 bytes. Pure.

Python's own takes each group of five bits by itself. Here all groups are moved to whole bytes at
once, as one number: its upper half first, then the upper quarter of each half, and so on; and the
bytes are looked up in one table.
"""

_GROUPS = 64
_BITS = 5
_BYTES_MAX = _GROUPS * _BITS // 8
_LETTERS = bytes.maketrans(bytes(range(32)), b"abcdefghijklmnopqrstuvwxyz234567")


def _moves() -> list[tuple[int, int, int]]:
    """For each step: which bits move, how far, and which stay."""
    found = []
    size = _GROUPS // 2
    while size:
        moved = stays = 0
        half = (1 << size * _BITS) - 1
        for place in range(0, _GROUPS * 8, 2 * size * 8):
            stays |= half << place
            moved |= half << place + size * _BITS
        found.append((moved, size * (8 - _BITS), stays))
        size //= 2
    return found


_MOVES = _moves()


def base32(data: bytes) -> str:
    """The text of `data`, which has at most 40 bytes."""
    assert len(data) <= _BYTES_MAX
    number = int.from_bytes(data) << 8 * (_BYTES_MAX - len(data))
    for moved, by, stays in _MOVES:
        number = (number & moved) << by | number & stays
    letters = -(-len(data) * 8 // _BITS)
    return number.to_bytes(_GROUPS).translate(_LETTERS)[:letters].decode()
