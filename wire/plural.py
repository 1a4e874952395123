"""Counts as people read them. Pure."""

_WITH_ES = ("s", "x", "ch", "sh")


def plural(count: int, word: str) -> str:
    """A count with its word: 1 answer, 2 answers, 1 entry, 2,000 entries, 3 batches."""
    if count == 1:
        many = word
    elif word.endswith("y") and word[-2] not in "aeou":
        many = f"{word[:-1]}ies"
    else:
        many = f"{word}es" if word.endswith(_WITH_ES) else f"{word}s"
    return f"{count:,} {many}"
