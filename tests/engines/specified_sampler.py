"""The sampler as its specification says it, word by word: what the fast one is compared with."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from node.engines.sampler import NO_RULES, TEMPERATURE_MIN, LogitRules, Sampling

Floats = np.ndarray[Any, np.dtype[np.float64]]
Words = np.ndarray[Any, np.dtype[np.uint32]]
WORD_BITS = 32
BLOCK_WORDS = 16
ROUNDS = 20
# The greatest g and the least differ by less than this: what lies further behind cannot win.
NOISE_SPAN = 26.1
_CONSTANT = b"expand 32-byte k"
_TURNED = [[(at + by) % 4 for at in range(4)] for by in range(4)]


def choose_slowly(
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
