"""Token buckets, and one for each of many keys that strangers choose. A pure core."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """Fills by `per_s` tokens up to `burst`; it starts full. Times are any monotonic clock's.

    Both may be changed at any time; what was filled since the last call counts by the new ones.
    """

    burst: float
    per_s: float
    _tokens: float = field(init=False)
    _at_s: float | None = None

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now_at_s: float) -> bool:
        """Take one token, if there is one."""
        if self.tokens(now_at_s) < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def spend(self, tokens: float, now_at_s: float) -> None:
        """Take tokens for what has happened already, also more than there are: a debt."""
        self._tokens = self.tokens(now_at_s) - tokens

    def wait_s(self, now_at_s: float) -> float:
        """How long it will be until there is a token."""
        return max(0.0, 1.0 - self.tokens(now_at_s)) / self.per_s

    def drain(self) -> None:
        """Leave nothing in it."""
        self._tokens = 0.0

    def tokens(self, now_at_s: float) -> float:
        """How many there are now."""
        if self._at_s is not None:
            self._tokens += max(0.0, now_at_s - self._at_s) * self.per_s
        self._at_s = now_at_s
        self._tokens = min(self.burst, self._tokens)
        return self._tokens

    def is_full(self, now_at_s: float) -> bool:
        return self.tokens(now_at_s) >= self.burst


@dataclass(slots=True)
class TokenBuckets:
    """One bucket for each key, the latest `keys_max` of them.

    A key that was forgotten starts with a full bucket. So the fullest of the oldest goes first: to
    be forgotten gives its owner least.
    """

    burst: float
    per_s: float
    keys_max: int = 4096
    _buckets: dict[str, TokenBucket] = field(default_factory=dict)

    def take(self, key: str, now_at_s: float, times: float = 1.0) -> bool:
        """Take a token of `key`; `times` as large is a bucket that is made now."""
        return self._bucket(key, now_at_s, times).take(now_at_s)

    def spend(self, key: str, tokens: float, now_at_s: float) -> None:
        """Take tokens of `key` for what has happened already; it may owe some then."""
        self._bucket(key, now_at_s).spend(tokens, now_at_s)

    def wait_s(self, key: str, now_at_s: float) -> float:
        """How long it will be until `key` has a token."""
        return self._bucket(key, now_at_s).wait_s(now_at_s)

    def _bucket(self, key: str, now_at_s: float, times: float = 1.0) -> TokenBucket:
        """The bucket of a key, which is the latest then."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(self.burst * times, self.per_s * times)
            if len(self._buckets) >= self.keys_max:
                self._forget_one(now_at_s)
        self._buckets[key] = bucket
        return bucket

    def __len__(self) -> int:
        return len(self._buckets)

    def _forget_one(self, now_at_s: float) -> None:
        oldest = list(zip(self._buckets, range(_LOOKED_AT), strict=False))
        key = max((it for it, _ in oldest), key=lambda it: self._share(it, now_at_s))
        del self._buckets[key]

    def _share(self, key: str, now_at_s: float) -> float:
        bucket = self._buckets[key]
        return bucket.tokens(now_at_s) / bucket.burst


_LOOKED_AT = 16
