"""How keys and queries are turned by their places. Worker only."""

from tinygrad import Tensor


def turned(parts: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + half) of each head by the place's angles; what lies after them stays.

    The first two times as many numbers as there are angles turn.
    """
    half = int(cosines.shape[-1])
    one, other, rest = parts[..., :half], parts[..., half : 2 * half], parts[..., 2 * half :]
    turned = one * cosines - other * sines, other * cosines + one * sines
    left = [rest] if int(rest.shape[-1]) else []
    return turned[0].cat(turned[1], *left, dim=-1)
