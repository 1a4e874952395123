"""Which ranges of layers make a whole model together, and in words which are missing. Pure."""

from collections.abc import Iterable

from wire.layers import LayerRange

# So many of the ranges that others offer are named where they do not fit.
TOLD_MAX = 6


def following(here: LayerRange, offered: Iterable[LayerRange]) -> tuple[LayerRange, ...] | None:
    """The fewest of the offered ranges that go on from `here` to the last layer, or None.

    Each begins where the one before ends: no layer is run twice.
    """
    fitting = sorted({it for it in offered if it.count == here.count})
    ways: dict[int, tuple[LayerRange, ...]] = {here.last: ()}
    reached = [here.last]
    while reached:
        last = reached.pop(0)
        if last == here.count - 1:
            return ways[last]
        for layers in fitting:
            if layers.first == last + 1 and layers.last not in ways:
                ways[layers.last] = (*ways[last], layers)
                reached.append(layers.last)
    return None


def missing_words(here: LayerRange, offered: Iterable[LayerRange]) -> str:
    """Why the offered ranges do not make a whole model with `here`; empty if they do."""
    fitting = sorted({it for it in offered if it.count == here.count})
    if following(here, fitting) is not None:
        return ""
    there = {number for it in fitting for number in range(it.first, it.last + 1)}
    gaps = [it for it in range(here.last + 1, here.count) if it not in there]
    if gaps:
        return f"nobody known here offers {_layers(gaps)} of {here.count}"
    offers = ", ".join(f"{it.first}-{it.last}" for it in fitting[:TOLD_MAX])
    more = "" if len(fitting) <= TOLD_MAX else f" and {len(fitting) - TOLD_MAX} more"
    return (
        f"the ranges overlap: after 0-{here.last} of {here.count} layers others offer"
        f" {offers}{more}, and none begins where the one before ends"
    )


def _layers(numbers: list[int]) -> str:
    """Numbers in order as words: ranges where some follow each other."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    told = [f"{it[0]}-{it[-1]}" if len(it) > 1 else str(it[0]) for it in parts]
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(told)}"
