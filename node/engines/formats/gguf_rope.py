"""How a language model turns keys and queries by their places, as its GGUF file says it. Pure."""

import math
from dataclasses import dataclass

from node.engines.formats.architectures import Architecture, LayerKind
from node.engines.formats.gguf_keys import GgufKeys

LONG, SHORT, FREQUENCIES = (
    "rope_factors_long.weight",
    "rope_factors_short.weight",
    "rope_freqs.weight",
)
WINDOW_MAX = 1 << 30
# Fewer turns within a context make no ramp; of very few the length is infinite.
BETA_LEAST = 1e-3
# Places are divided by it, and have to stay numbers.
FACTOR_LEAST = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Yarn:
    """Slow pairs are turned as places divided by the factor, quick ones as they are.

    Between `slow` and `quick` turns within the original context lies a ramp.
    """

    quick: float
    slow: float
    original_context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """One turning: the first `turned` numbers of each head, in pairs half of them apart.

    Speeds are powers of `base`, divided by `factor` (by `yarn`, of slow pairs only) and by the
    numbers of the tensor `divisors`, if that is named; turned numbers are multiplied by
    `magnitude`.
    """

    turned: int
    base: float
    factor: float = 1.0
    yarn: Yarn | None = None
    divisors: str = ""
    magnitude: float = 1.0


@dataclass(frozen=True, slots=True)
class LayerPlaces:
    """A model's turnings, which of them each layer has, and how long a context they are right."""

    ropes: tuple[Rope, ...]
    kinds: tuple[LayerKind, ...]
    context_max: int


def read_places(keys: GgufKeys, family: Architecture, head_size: int, layers: int) -> LayerPlaces:
    """What the file says of places; ModelRefused names what is not run."""
    context = keys.count("context_length", 1 << 30)
    turned = keys.count("rope.dimension_count", head_size, head_size)
    if turned % 2 or (turned != head_size and not family.partly_turned):
        raise keys.refused(f"{keys.prefix}.rope.dimension_count", turned)
    base = keys.real("rope.freq_base", 1.0, 1e12, 10_000.0)
    rope, context_max = _scaled(keys, turned, base, context)
    if keys.get("attention.temperature_scale"):
        # Within the original context the scale of scores by place is one.
        context_max = min(context_max, keys.count("rope.scaling.original_context_length", 1 << 30))
    ropes = [rope]
    window = 0
    if family.full_every is not None and keys.get("attention.sliding_window"):
        window = keys.count("attention.sliding_window", WINDOW_MAX)
        if family.window_rope_base is not None:
            default = family.window_rope_base or base
            own = keys.real("rope.freq_base_swa", 1.0, 1e12, default)
            ropes.append(Rope(turned=turned, base=own))
    full = _full_layers(keys, family, layers)
    turns = not family.turning_told or keys.get("rope.scaling.finetuned") is not False
    kinds = []
    for number in range(layers):
        seen = 0 if full[number] else window
        at = len(ropes) - 1 if seen else 0
        skipped = family.unturned_every and (number + 1) % family.unturned_every == 0
        kinds.append(LayerKind(seen, at if turns and not skipped else None))
    return LayerPlaces(tuple(ropes), tuple(kinds), min(context, context_max))


def _full_layers(keys: GgufKeys, family: Architecture, layers: int) -> list[bool]:
    """Which layers see everything before them."""
    if family.full_every is None:
        return [True] * layers
    said = keys.get("attention.sliding_window_pattern")
    if isinstance(said, list):
        if len(said) != layers or any(type(it) is not bool for it in said):
            raise keys.refused(f"{keys.prefix}.attention.sliding_window_pattern", said)
        return [not it for it in said]
    every = family.full_every
    if said is not None:
        every = keys.count("attention.sliding_window_pattern", 1 << 16)
    return [bool(every) and (number + 1) % every == 0 for number in range(layers)]


def _scaled(keys: GgufKeys, turned: int, base: float, context: int) -> tuple[Rope, int]:
    """The turning of layers without a window, and the longest context it is right for."""
    kind = keys.get("rope.scaling.type")
    plain = Rope(turned=turned, base=base, divisors=_divisors(keys))
    if keys.has_tensor(SHORT) or keys.has_tensor(LONG) or kind == "longrope":
        return _long(keys, plain, context)
    if kind in (None, "none"):
        return plain, context
    if kind not in ("linear", "yarn"):
        raise keys.refused(f"{keys.prefix}.rope.scaling.type", kind)
    factor = keys.real("rope.scaling.factor", FACTOR_LEAST, 1e6)
    if kind == "linear":
        return Rope(turned=turned, base=base, factor=factor, divisors=plain.divisors), context
    if plain.divisors:
        raise keys.refused(f"{keys.prefix}.rope.scaling.type", f"yarn with {plain.divisors}")
    if keys.real("rope.scaling.yarn_ext_factor", -2.0, 1.0, 1.0) not in (-1.0, 1.0):
        raise keys.refused(
            f"{keys.prefix}.rope.scaling.yarn_ext_factor", keys.get("rope.scaling.yarn_ext_factor")
        )
    yarn = Yarn(
        quick=keys.real("rope.scaling.yarn_beta_fast", BETA_LEAST, 1e6, 32.0),
        slow=keys.real("rope.scaling.yarn_beta_slow", BETA_LEAST, 1e6, 1.0),
        original_context=keys.count("rope.scaling.original_context_length", 1 << 30),
    )
    magnitude = _magnitude(keys, factor)
    rope = Rope(turned=turned, base=base, factor=factor, yarn=yarn, magnitude=magnitude)
    return rope, context


def _magnitude(keys: GgufKeys, factor: float) -> float:
    """The attention's growth with yarn's factor, over the part of it that scores have besides."""
    besides = keys.real("rope.scaling.yarn_log_multiplier", -1.0, 1e3, 0.0)
    if besides < 0:
        # The growth would be divided by a number that can be zero.
        raise keys.refused(f"{keys.prefix}.rope.scaling.yarn_log_multiplier", besides)
    growth = math.log(max(1.0, factor))
    magnitude = (0.1 * growth + 1.0) / (0.1 * besides * growth + 1.0)
    magnitude *= keys.real("rope.scaling.yarn_attn_factor", 0.0, 1e3, 1.0)
    magnitude *= keys.real("rope.scaling.attn_factor", 0.0, 1e3, 1.0)
    if not 0 < magnitude < math.inf:
        raise keys.refused(f"{keys.prefix}.rope.scaling.attn_factor", magnitude)
    return magnitude


def _divisors(keys: GgufKeys) -> str:
    return FREQUENCIES if keys.has_tensor(FREQUENCIES) else ""


def _long(keys: GgufKeys, plain: Rope, context: int) -> tuple[Rope, int]:
    """Speeds divided one by one: by other numbers within the original context than beyond it.

    A context is kept as it was turned, so only the former are run.
    """
    if not (keys.has_tensor(SHORT) and keys.has_tensor(LONG)) or plain.divisors:
        raise keys.refused(f"{keys.prefix}.rope.scaling.type", "longrope")
    original = keys.count("rope.scaling.original_context_length", 1 << 30)
    growth = context / original
    default = math.sqrt(1 + math.log(growth) / math.log(original)) if growth > 1 < original else 1.0
    rope = Rope(
        turned=plain.turned,
        base=plain.base,
        divisors=SHORT,
        magnitude=keys.real("rope.scaling.attn_factor", 0.0, 1e3, default),
    )
    return rope, min(context, original)
