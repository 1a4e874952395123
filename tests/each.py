"""Which of the many things that one test goes through a failure is about."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def named(thing: object) -> Iterator[None]:
    """What fails inside says that it is about this thing."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"this is about {thing}")
        raise
