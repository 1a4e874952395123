"""How often a proof is repeated: some times in each run, and many times with --soak."""

_soaks: list[bool] = [False]


def with_soak(soaks: bool) -> None:
    """Say, before the tests are read, whether --soak was given."""
    _soaks[0] = soaks


def repeats(usual: int, *, soak: int) -> int:
    """`usual`, or `soak` where a run may take its time."""
    return soak if _soaks[0] else usual
