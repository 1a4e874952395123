"""Ed25519 in plain arithmetic: it makes the signatures that no library makes.

Points are pairs of integers. Nothing here is fast or safe against timing; only tests use it.
"""

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
ZERO: Point = (0, 1)


def plus(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    twist = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + twist, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - twist, -1, P)
    return x % P, y % P


def times(factor: int, point: Point) -> Point:
    found = ZERO
    while factor:
        if factor & 1:
            found = plus(found, point)
        point, factor = plus(point, point), factor >> 1
    return found


def point_at(y: int, odd: int = 0) -> Point | None:
    """The point with this y, and an x that is odd or even; None if the curve has none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return (x if x & 1 == odd else -x % P), y % P


def known(point: Point | None) -> Point:
    assert point is not None
    return point


BASE = known(point_at(4 * pow(5, -1, P) % P))


def _torsion() -> list[Point]:
    for y in range(2, 100):
        point = point_at(y)
        small = ZERO if point is None else times(ORDER, point)
        if times(4, small) != ZERO:
            return [times(factor, small) for factor in range(8)]
    raise AssertionError("one point in two has a part of order eight")


# The eight points of small order: what is signed under such a key anybody could have signed.
SMALL = _torsion()


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def encodings(point: Point) -> list[bytes]:
    """The encoding, and every other that a lax reader takes for it: y + p, and a sign for x = 0."""
    x, y = point
    found = [at | (x & 1) << 255 for at in (y, y + P) if at < 2**255]
    if not x:
        found += [at | 1 << 255 for at in found]
    return [at.to_bytes(32, "little") for at in found]


def hashed(r: bytes, key: bytes, words: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + key + words).digest(), "little") % ORDER


def scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")
