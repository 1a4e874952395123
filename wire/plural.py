"""Counts as people read them. Pure."""

_WITH_ES = ("s", "x", "ch", "sh")
# Said with a k.
_WITH_S = ("och",)


def plural(count: int, word: str) -> str:
    """A count with its word: 1 answer, 2 answers, 2,000 entries, 3 batches, 4 epochs."""
    if count == 1:
        many = word
    elif word.endswith("y") and word[-2] not in "aeou":
        many = f"{word[:-1]}ies"
    else:
        with_es = word.endswith(_WITH_ES) and not word.endswith(_WITH_S)
        many = f"{word}es" if with_es else f"{word}s"
    return f"{count:,} {many}"
