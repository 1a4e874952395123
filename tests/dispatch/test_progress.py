"""What was shown of a stream: each unit once, whoever streams, and never as more than it is."""

from dataclasses import dataclass, field
from random import Random

import pytest

from node.dispatch.progress import RESTARTS_MAX, UNITS_MAX, StreamProgress
from node.engines.interface import Part
from node.task.events import Event, Restarted, Streamed
from wire import limits
from wire.errors import RemoteProtocolError
from wire.message import Progress

LETTERS = "abcdefghij"


@dataclass(slots=True)
class Screen:
    """What somebody who watches has before them, and whether it ever made sense."""

    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    restarts: int = 0

    @property
    def units(self) -> int:
        return sum(units for units, _ in self.pieces)

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    def on_event(self, event: Event) -> None:
        match event:
            case Streamed():
                # None left out, none twice.
                assert event.position == self.units
                self.pieces.append((event.units, event.data))
            case Restarted():
                self.restarts += 1
                while self.units > event.position:
                    self.pieces.pop()
                assert self.units == event.position
            case _:
                return


def letter(position: int) -> Part:
    return Part(position, 1, LETTERS[position].encode())


def take(shown: StreamProgress, screen: Screen, *parts: Part) -> None:
    for part in parts:
        for event in shown.apply(part):
            screen.on_event(event)


def letters(*positions: int) -> list[Part]:
    return [letter(it) for it in positions]


def test_another_goes_on_where_the_first_broke() -> None:
    shown, screen = StreamProgress(), Screen()
    assert shown.begin() is None
    take(shown, screen, *letters(0, 1, 2))
    assert shown.begin() == Progress(units=3, data=b"abc")
    take(shown, screen, *letters(3, 4))
    assert (screen.data, screen.restarts) == (b"abcde", 0)
    assert shown.remainder(b"abcde", 5) == []


def test_what_is_left_out_or_too_much_is_the_fault_of_who_streams() -> None:
    for parts in ([letter(1)], letters(0, 2), [Part(0, UNITS_MAX + 1, b"")]):
        shown, screen = StreamProgress(), Screen()
        shown.begin()
        with pytest.raises(RemoteProtocolError):
            take(shown, screen, *parts)
    shown, screen = StreamProgress(), Screen()
    shown.begin()
    with pytest.raises(RemoteProtocolError, match="again and again"):
        take(shown, screen, *([letter(0)] * (RESTARTS_MAX + 2)))


def test_one_that_begins_earlier_says_that_what_was_shown_is_wrong() -> None:
    shown, screen = StreamProgress(), Screen()
    shown.begin()
    take(shown, screen, letter(0), Part(1, 1, b"X"), Part(2, 1, b"Y"))
    shown.begin()
    take(shown, screen, *letters(1, 2, 3))
    assert (screen.data, screen.restarts) == (b"abcd", 1)
    assert shown.begin() == Progress(units=4, data=b"abcd")


def test_one_that_begins_in_the_middle_of_a_piece_is_not_shown_but_the_output_is() -> None:
    shown, screen = StreamProgress(), Screen()
    shown.begin()
    take(shown, screen, Part(0, 3, b"aXX"))
    shown.begin()
    take(shown, screen, *letters(1, 2, 3))
    assert (screen.data, screen.restarts) == (b"", 1)
    for event in shown.remainder(b"abcd", 4):
        screen.on_event(event)
    assert (screen.data, screen.units) == (b"abcd", 4)


def test_after_that_a_third_streams_from_the_beginning() -> None:
    shown, screen = StreamProgress(), Screen()
    shown.begin()
    take(shown, screen, Part(0, 3, b"aXX"))
    shown.begin()
    take(shown, screen, letter(1))
    assert shown.begin() is None
    take(shown, screen, *letters(0, 1, 2))
    assert screen.data == b"abc"


def test_a_stream_too_large_to_pass_on_is_made_anew_and_shown_once() -> None:
    large = bytes(limits.INLINE_BYTES_MAX)
    shown, screen = StreamProgress(), Screen()
    shown.begin()
    take(shown, screen, Part(0, 1, large), Part(1, 1, b"b"))
    assert shown.begin() is None
    take(shown, screen, Part(0, 1, large))
    with pytest.raises(RemoteProtocolError):
        take(shown, screen, Part(2, 1, b"c"))
    take(shown, screen, Part(1, 1, b"b"), Part(2, 1, b"c"))
    assert (screen.units, screen.data, screen.restarts) == (3, large + b"bc", 0)
    assert shown.remainder(large + b"bc", 3) == []
    # One whose pieces are others is shown at the end.
    shown.begin()
    take(shown, screen, Part(0, 2, large), Part(2, 3, b"cde"))
    assert (screen.units, screen.restarts) == (0, 1)


@pytest.mark.parametrize(
    ("streamed", "output", "units", "restarts"),
    [
        ("abc", "abcdef", 6, 0),
        ("", "abc", 3, 0),
        ("abX", "abcdef", 6, 1),
        ("abcdef", "abc", 3, 1),
        ("abc", "abcd", 3, 1),
        ("abc", "abc", 4, 1),
    ],
)
def test_at_the_end_what_was_shown_is_the_output(
    streamed: str, output: str, units: int, restarts: int
) -> None:
    shown, screen = StreamProgress(), Screen()
    shown.begin()
    take(shown, screen, *[Part(at, 1, it.encode()) for at, it in enumerate(streamed)])
    for event in shown.remainder(output.encode(), units):
        screen.on_event(event)
    assert (screen.data, screen.units) == (output.encode(), units)
    assert screen.restarts == restarts


def test_whoever_goes_on_from_a_holder_in_the_middle_is_told_what_that_was_told() -> None:
    progress = Progress(units=2, data=b"ab")
    shown = StreamProgress.after(progress)
    assert shown.begin() == progress
    assert shown.apply(letter(2)) == [Streamed(2, 1, b"c")]
    assert shown.begin() == Progress(units=3, data=b"abc")
    assert StreamProgress.after(None).begin() is None


@pytest.mark.parametrize("seed", range(50))
def test_whatever_peers_stream_the_screen_makes_sense_and_ends_with_the_output(seed: int) -> None:
    random = Random(seed)
    shown, screen = StreamProgress(), Screen()
    for _ in range(6):
        resumed = shown.begin()
        at = random.choice((0, resumed.units if resumed else 0))
        for _ in range(random.randrange(8)):
            units = random.choice((1, 1, 1, 2))
            data = random.choice((LETTERS[at % 10 :][:units], "?", "")).encode()
            try:
                take(shown, screen, Part(at, units, data))
            except RemoteProtocolError:
                break
            at = random.choice((at + units, at + units, at + units, at, at + 9))
    for event in shown.remainder(LETTERS.encode(), len(LETTERS)):
        screen.on_event(event)
    assert (screen.units, screen.data) == (10, LETTERS.encode())
