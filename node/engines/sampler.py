"""Which token comes next: exactly specified, so that a run can be repeated and checked.

`z` are the model's logits for the token at `position` (0 for the first of the answer), as 64-bit
floats. Ties always go to the lower token. In this order:

0. Bias: z[t] += bias[t], for every token that the request gives a bias.
1. Penalties: where `repetition_penalty` r (1: off) is not 1, every token t of the prompt or of the
   answer so far has z[t] / r where z[t] > 0, else z[t] * r. Then z[t] -= frequency_penalty * n +
   presence_penalty, for every token t that the answer has n > 0 times already.
2. What a schema does not allow becomes minus infinity; and so do the tokens that end an answer
   while `position` < `min_tokens`, and always where `ignore_eos` is 1; but where nothing else would
   be left, they stay.
3. Temperature 0: the greatest z is the token.
4. Otherwise z /= temperature, and tokens are ranked by z. `top_k` (0: off) keeps the first so many.
   p is the softmax over what is kept. `min_p` (0: off) keeps p >= min_p * the greatest p. `top_p`
   (1: off) keeps the shortest beginning of the ranks whose sum of p (of step 4's softmax, summed in
   that order) reaches top_p; the first is always kept.
5. Of what is kept, the greatest z + g is the token. g = -ln(-ln((k + 0.5) / 2**32)), k being the
   32-bit little-endian word number t of the ChaCha20 keystream (RFC 8439, block counter from 0)
   with the key SHA-256(seed as 8 little-endian bytes || model id) and the nonce `position` as 12
   little-endian bytes.

A token's log probability is of the model's logits as they are, before any of these steps.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from wire import limits
from wire.errors import ModelRefused

Floats = np.ndarray[Any, np.dtype[np.float64]]
Words = np.ndarray[Any, np.dtype[np.uint32]]
TOKENS_DEFAULT = 16
TOKENS_MAX = 1 << 20
WORD_BITS = 32
BLOCK_WORDS = 16
ROUNDS = 20
# The greatest g and the least differ by less than this: what lies further behind cannot win.
# Below it the best one is taken: divided by less, numbers leave the range of floats.
TEMPERATURE_MIN = 1e-6
NOISE_SPAN = 26.1
MILLION = 1_000_000
LOGPROB_LEAST = -(10**9)
_CONSTANT = b"expand 32-byte k"
_TURNED = [[(at + by) % 4 for at in range(4)] for by in range(4)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The parameters of one answer, checked. `logprobs`: -1 none, else how many alternatives."""

    tokens: int = TOKENS_DEFAULT
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int = -1
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    ignore_eos: int = 0
    # Whether the prompt's tokens are told too.
    echo: int = 0

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Read a stage's parameters; ModelRefused names what is not as it should be."""
        found: dict[str, Any] = {}
        for name, value in parameters.items():
            if name not in _BOUNDS:
                raise ModelRefused(f"{name[:40]!r} is not a parameter of a language model")
            least, most = _BOUNDS[name]
            whole = isinstance(least, int)
            fits = type(value) is int or (not whole and type(value) is float)
            if not fits or not least <= value <= most:
                what = "whole number" if whole else "number"
                raise ModelRefused(f"{name!r} is a {what} from {least} to {most}")
            found[name] = value if whole else float(value)
        return cls(**found)


_BOUNDS: dict[str, tuple[float, float]] = {
    "tokens": (0, TOKENS_MAX),
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 20),
    "min_p": (0.0, 1.0),
    "seed": (0, (1 << 63) - 1),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "logprobs": (-1, limits.LOGPROBS_MAX),
    "repetition_penalty": (0.01, 100.0),
    "min_tokens": (0, TOKENS_MAX),
    "ignore_eos": (0, 1),
    "echo": (0, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitRules:
    """What one request changes of the model's logits: see steps 0 to 2."""

    bias: Mapping[int, float] = field(default_factory=dict)
    # The tokens that the prompt has, and those that end an answer.
    prompt: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()


NO_RULES = LogitRules()


def choose(
    logits: Any,
    sampling: Sampling,
    model: bytes,
    position: int,
    counts: Mapping[int, int],
    allowed: Any = None,
    rules: LogitRules = NO_RULES,
) -> int:
    """The token at `position`; `counts` are of the answer so far, `allowed` is a mask or None."""
    z: Floats = _ruled(np.asarray(logits, np.float64), sampling, counts, rules)
    if counts and (sampling.frequency_penalty or sampling.presence_penalty):
        z = z.copy()
        for token, count in counts.items():
            z[token] -= sampling.frequency_penalty * count + sampling.presence_penalty
    if allowed is not None:
        z = np.where(allowed, z, -np.inf)
    if sampling.ignore_eos or position < sampling.min_tokens:
        z = _going_on(z, rules.ends)
    if sampling.temperature < TEMPERATURE_MIN:
        return int(np.argmax(z))
    z = z / sampling.temperature
    kept = _kept(z, sampling)
    kept = kept[z[kept] >= z[kept].max() - NOISE_SPAN]
    # In the order of their numbers, so that the lower one wins a tie.
    kept = np.sort(kept)
    key = hashlib.sha256(sampling.seed.to_bytes(8, "little") + model).digest()
    return int(kept[np.argmax(z[kept] + noise(key, position, kept))])


def _ruled(z: Floats, sampling: Sampling, counts: Mapping[int, int], rules: LogitRules) -> Floats:
    """Step 0, and the repetition penalty of step 1."""
    if rules.bias:
        z = z.copy()
        for token, bias in rules.bias.items():
            # Tokens that the model does not have cannot come.
            if token < len(z):
                z[token] += bias
    if sampling.repetition_penalty != 1.0:
        had = np.array(sorted(rules.prompt | counts.keys()), np.int64)
        z = z.copy()
        z[had] = np.where(
            z[had] > 0, z[had] / sampling.repetition_penalty, z[had] * sampling.repetition_penalty
        )
    return z


def _going_on(z: Floats, ends: frozenset[int]) -> Floats:
    """Without the tokens that end an answer, unless nothing else is left."""
    others = z.copy()
    others[sorted(ends)] = -np.inf
    return others if np.any(others > -np.inf) else z


def _kept(z: Floats, sampling: Sampling) -> Any:
    """The tokens that steps 4 leaves, by their ranks; all where nothing is cut."""
    possible = np.flatnonzero(z > -np.inf)
    if not sampling.top_k and not sampling.min_p and sampling.top_p >= 1:
        return possible
    ranks = possible[np.argsort(-z[possible], kind="stable")]
    if sampling.top_k:
        ranks = ranks[: sampling.top_k]
    p = np.exp(z[ranks] - z[ranks[0]])
    p /= p.sum()
    keep = len(ranks)
    if sampling.min_p:
        keep = min(keep, int(np.count_nonzero(p >= sampling.min_p * p[0])))
    if sampling.top_p < 1:
        keep = min(keep, int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1)
    return ranks[: max(1, keep)]


def noise(key: bytes, position: int, tokens: Any) -> Floats:
    """g of each token, as specified above."""
    blocks, at = np.unique(tokens // BLOCK_WORDS, return_inverse=True)
    words = keystream(key, position.to_bytes(12, "little"), blocks)
    k = words[at, tokens % BLOCK_WORDS].astype(np.float64)
    noise: Floats = -np.log(-np.log((k + 0.5) / 2**WORD_BITS))
    return noise


def keystream(key: bytes, nonce: bytes, counters: Any) -> Words:
    """ChaCha20's blocks number `counters`: [counters, 16] words."""
    state = np.empty((4, 4, len(counters)), np.uint32)
    fixed = np.frombuffer(_CONSTANT + key, "<u4").reshape(3, 4, 1)
    state[:3] = fixed
    state[3, 0] = np.asarray(counters, np.uint32)
    state[3, 1:] = np.frombuffer(nonce, "<u4").reshape(3, 1)
    a, b, c, d = (state[row].copy() for row in range(4))
    for _ in range(ROUNDS // 2):
        # Four columns at once, then four diagonals, which are columns once the rows are turned.
        a, b, c, d = _quarters(a, b, c, d)
        b, c, d = b[_TURNED[1]], c[_TURNED[2]], d[_TURNED[3]]
        a, b, c, d = _quarters(a, b, c, d)
        b, c, d = b[_TURNED[3]], c[_TURNED[2]], d[_TURNED[1]]
    found: Words = (np.stack([a, b, c, d]) + state).reshape(BLOCK_WORDS, -1).T
    return found


def _quarters(a: Words, b: Words, c: Words, d: Words) -> tuple[Words, Words, Words, Words]:
    a += b
    d = _rotated(d ^ a, 16)
    c += d
    b = _rotated(b ^ c, 12)
    a += b
    d = _rotated(d ^ a, 8)
    c += d
    return a, _rotated(b ^ c, 7), c, d


def _rotated(words: Words, by: int) -> Words:
    return (words << np.uint32(by)) | (words >> np.uint32(WORD_BITS - by))


def log_probabilities(logits: Any) -> Floats:
    """The natural logarithms of the softmax of the model's logits."""
    z: Floats = np.asarray(logits, np.float64)
    z = z - z.max()
    return z - math.log(np.exp(z).sum())


def millionths(logprob: float) -> int:
    """A log probability as it is told: a whole number, the same on every machine."""
    return max(LOGPROB_LEAST, min(0, round(logprob * MILLION)))


def best(logprobs: Floats, count: int) -> list[int]:
    """The tokens of the greatest probabilities, the greatest first."""
    if count == 0:
        return []
    found = np.argsort(-logprobs, kind="stable")[:count]
    return [int(token) for token in found]
