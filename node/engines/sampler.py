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

Sums, products and quotients are rounded as IEEE 754 says; ln and exp are those of
`node.engines.elementary`, which are made of them, and a sum of p is made in the order of the ranks.
So equal logits give equal tokens on every machine.

A token's log probability is of the model's logits as they are, before any of these steps.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from node.engines.elementary import exponentials, logarithms
from wire import limits
from wire.errors import ModelRefused

Floats = np.ndarray[Any, np.dtype[np.float64]]
Words = np.ndarray[Any, np.dtype[np.uint32]]
TOKENS_DEFAULT = 16
TOKENS_MAX = 1 << 20
WORD_BITS = 32
# Below it the best one is taken: divided by less, numbers leave the range of floats.
TEMPERATURE_MIN = 1e-6
# So many tokens of the greatest z are looked at first.
LIKELY = 512
# So many are put in order first where some are cut off.
RANKED = 2048
# Sums that are further apart than this are in the same order whatever order they were added in.
SURE = 1e-9
# The margin of a token that cannot be; no smaller one is as great.
MARGIN_MAX = 1000.0
MILLION = 1_000_000
LOGPROB_LEAST = -(10**9)


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
    # Whether a sketch of the model's last states is told (`node.engines.sketch`).
    sketch: int = 0

    @property
    def cuts(self) -> bool:
        """Whether some tokens are cut off before one is drawn."""
        return bool(self.top_k or self.min_p or self.top_p < 1)

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
    "sketch": (0, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitRules:
    """What one request changes of the model's logits: see steps 0 to 2."""

    bias: Mapping[int, float] = field(default_factory=dict)
    # The tokens that the prompt has, and those that end an answer.
    prompt: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()


NO_RULES = LogitRules()


@dataclass(frozen=True, slots=True)
class Claim:
    """A token that somebody says is next; `slack` is how far logits may honestly differ there."""

    token: int
    slack: float = 0.0


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
    z = _adjusted(logits, sampling, position, counts, allowed, rules)
    if sampling.temperature < TEMPERATURE_MIN:
        return int(np.argmax(z))
    z = z / sampling.temperature
    words = _words(sampling, model, position, len(z))
    if sampling.cuts:
        # In the order of their numbers, so that the lower one wins a tie.
        return _best_of(z, words, np.sort(_kept(z, sampling)))[0]
    return _best(z, words)[0]


def margin(
    logits: Any,
    sampling: Sampling,
    model: bytes,
    position: int,
    counts: Mapping[int, int],
    claim: Claim,
    allowed: Any = None,
    rules: LogitRules = NO_RULES,
) -> float:
    """By how much of a logit a token misses being the one at `position`; 0.0 if it is.

    `MARGIN_MAX` for a token that cannot be. A token so near to a cut (step 4) that the slack may
    keep it counts as kept; one that the slack may cut is not what the claimed one has to reach.
    """
    claimed, slack = claim.token, claim.slack
    z = _adjusted(logits, sampling, position, counts, allowed, rules)
    if not 0 <= claimed < len(z) or z[claimed] == -np.inf:
        return MARGIN_MAX
    # What the penalty multiplies is as much less exact.
    unit = 1.0 / max(1.0, sampling.repetition_penalty, 1.0 / sampling.repetition_penalty)
    if sampling.temperature < TEMPERATURE_MIN:
        return min(MARGIN_MAX, float(z.max() - z[claimed]) * unit)
    z = z / sampling.temperature
    words = _words(sampling, model, position, len(z))
    score = z[claimed] + noise(words[claimed : claimed + 1])[0]
    if sampling.cuts:
        clear, wide = _about_cut(z, sampling, slack / sampling.temperature / unit)
        if not wide[claimed]:
            return MARGIN_MAX
        if not len(clear):
            return 0.0
        _, best = _best_of(z, words, clear)
    else:
        _, best = _best(z, words)
    return min(MARGIN_MAX, max(0.0, float(best - score)) * sampling.temperature * unit)


def _adjusted(
    logits: Any,
    sampling: Sampling,
    position: int,
    counts: Mapping[int, int],
    allowed: Any,
    rules: LogitRules,
) -> Floats:
    """The logits after steps 0 to 2."""
    z: Floats = _ruled(np.asarray(logits, np.float64), sampling, counts, rules)
    if counts and (sampling.frequency_penalty or sampling.presence_penalty):
        z = z.copy()
        for token, count in counts.items():
            z[token] -= sampling.frequency_penalty * count + sampling.presence_penalty
    if allowed is not None:
        z = np.where(allowed, z, -np.inf)
    if sampling.ignore_eos or position < sampling.min_tokens:
        z = _going_on(z, rules.ends)
    return z


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
    """The tokens that step 4 leaves, by their ranks."""
    if (likely := _likely_ranks(z, sampling)) is not None and (
        kept := _certainly_kept(z, likely, sampling)
    ) is not None:
        return kept
    possible = np.flatnonzero(z > -np.inf)
    ranks = possible[np.argsort(-z[possible], kind="stable")]
    if sampling.top_k:
        ranks = ranks[: sampling.top_k]
    p = exponentials(z[ranks] - z[ranks[0]])
    p /= np.cumsum(p)[-1]
    return ranks[: _count_kept(p, sampling)]


def _count_kept(p: Floats, sampling: Sampling) -> int:
    """How many of the first ranks are kept, by their probabilities."""
    keep = len(p)
    if sampling.min_p:
        keep = min(keep, int(np.count_nonzero(p >= sampling.min_p * p[0])))
    if sampling.top_p < 1:
        keep = min(keep, int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1)
    return max(1, keep)


def _likely_ranks(z: Floats, sampling: Sampling) -> Any:
    """The first ranks, in order; None where they may lack one of `top_k`."""
    if not max(1, sampling.top_k) <= RANKED < len(z):
        return None
    # All that are as great as the last one, so that the lower of equal ones is among them.
    least = np.partition(z, len(z) - RANKED)[len(z) - RANKED]
    if least == -np.inf:
        return None
    likely = np.flatnonzero(z >= least)
    ranks = likely[np.argsort(-z[likely], kind="stable")]
    return ranks[: sampling.top_k] if sampling.top_k else ranks


def _certainly_kept(z: Floats, ranks: Any, sampling: Sampling) -> Any:
    """What is kept of these first ranks, unless rounding or a later rank could change it: None."""
    p = exponentials(z[ranks] - z[ranks[0]])
    if sampling.top_k:
        # These are all that there are: as in the whole computation.
        p /= np.cumsum(p)[-1]
        return ranks[: _count_kept(p, sampling)]
    p /= exponentials(z - z[ranks[0]]).sum()
    apart = [np.inf]
    if sampling.min_p:
        apart.append(float(np.abs(p / p[0] - sampling.min_p).min()))
    if sampling.top_p < 1:
        apart.append(float(np.abs(np.cumsum(p) - sampling.top_p).min()))
    keep = _count_kept(p, sampling)
    return ranks[:keep] if keep < len(ranks) and min(apart) > SURE else None


def _about_cut(z: Floats, sampling: Sampling, slack: float) -> tuple[Any, Any]:
    """What step 4 keeps though numbers differ by `slack`, in order; a mask of what it may keep."""
    possible = np.flatnonzero(z > -np.inf)
    ranks = possible[np.argsort(-z[possible], kind="stable")]
    ordered = z[ranks]
    least, most = np.inf, -np.inf
    if sampling.top_k and sampling.top_k < len(ranks):
        most = max(most, ordered[sampling.top_k])
        least = min(least, ordered[sampling.top_k - 1])
        ranks, ordered = ranks[: sampling.top_k], ordered[: sampling.top_k]
    # The floors of what is surely kept, and of what may be.
    sure, maybe = most + slack, least - slack if least < np.inf else -np.inf
    if sampling.min_p:
        floor = ordered[0] + math.log(sampling.min_p)
        sure, maybe = max(sure, floor + slack), max(maybe, floor - slack)
    if sampling.top_p < 1:
        sums = np.cumsum(exponentials(ordered - ordered[0]))
        sums /= sums[-1]
        # If what is kept is all too great and the rest all too small, the sum moves so much.
        drift = slack * sampling.top_p * (1 - sampling.top_p)
        first, last = (
            min(len(ranks) - 1, int(np.searchsorted(sums, sampling.top_p + by)))
            for by in (-drift, drift)
        )
        maybe = max(maybe, ordered[last] - slack)
        if first + 1 < len(ranks):
            sure = max(sure, ordered[first + 1] + slack)
    return np.sort(ranks[ordered > sure]), z >= maybe


def _best_of(z: Floats, words: Words, kept: Any) -> tuple[int, float]:
    """The token of the greatest z + g among those of `kept`, which are in order; and that sum."""
    scores = z[kept] + noise(words[kept])
    at = int(np.argmax(scores))
    return int(kept[at]), float(scores[at])


def _best(z: Floats, words: Words) -> tuple[int, float]:
    """The token of the greatest z + g among all, and that sum; few of them are looked at."""
    if len(z) <= LIKELY:
        kept = np.flatnonzero(z > -np.inf)
    else:
        likely = np.argpartition(z, len(z) - LIKELY)[-LIKELY:]
        found = z[likely]
        # What the others would have to be given to reach the best of these.
        lacking = float((found + noise(words[likely])).max() - found.min())
        others = np.flatnonzero(words >= _least_word(lacking))
        # One that is there twice changes nothing.
        kept = np.sort(np.concatenate([likely, others]))
        kept = kept[z[kept] > -np.inf]
    return _best_of(z, words, kept)


def _least_word(gumbel: float) -> int:
    """A word below which every g is less than this."""
    share = math.exp(-math.exp(min(700.0, -gumbel)))
    # One less for the half, and one for what rounding may do.
    return max(0, min((1 << WORD_BITS) - 1, int(share * 2**WORD_BITS) - 2))


def _words(sampling: Sampling, model: bytes, position: int, count: int) -> Words:
    key = hashlib.sha256(sampling.seed.to_bytes(8, "little") + model).digest()
    return keystream(key, position.to_bytes(12, "little"), count)


def noise(words: Words) -> Floats:
    """g of tokens, by their words."""
    found: Floats = -logarithms(-logarithms((words.astype(np.float64) + 0.5) / 2**WORD_BITS))
    return found


def keystream(key: bytes, nonce: bytes, count: int) -> Words:
    """The first `count` words of ChaCha20's keystream, its block counter beginning at 0."""
    # What this library calls the nonce begins with the counter.
    cipher = Cipher(algorithms.ChaCha20(key, bytes(4) + nonce), mode=None)
    return np.frombuffer(cipher.encryptor().update(bytes(4 * count)), "<u4")


def log_probabilities(logits: Any) -> Floats:
    """The natural logarithms of the softmax of the model's logits."""
    z: Floats = np.asarray(logits, np.float64)
    z = z - z.max()
    return z - logarithms(np.cumsum(exponentials(z))[-1:])


def millionths(logprob: float) -> int:
    """A log probability as it is told: a whole number, the same on every machine."""
    return max(LOGPROB_LEAST, min(0, round(logprob * MILLION)))


def best(logprobs: Floats, count: int) -> list[int]:
    """The tokens of the greatest probabilities, the greatest first."""
    if count == 0:
        return []
    found = np.argsort(-logprobs, kind="stable")[:count]
    return [int(token) for token in found]
