"""An invite is shown as a QR code that a camera reads: every module at its place, with a margin."""

import sys

import pytest

from node.commands import qr_code
from node.commands.qr_code import qr_lines, show_qr
from wire.errors import InputError

# As long as the longest that `invite` prints.
LINE = "baton1" + "abcdefghijklmnopqrstuvwxyz234567" * 16


def test_each_module_is_where_it_was_drawn() -> None:
    segno = pytest.importorskip("segno")
    lines = qr_lines(LINE)
    drawn = [[half in "█" + side for half in line] for line in lines for side in ("▀", "▄")]
    code = segno.make_qr(LINE, error="l", boost_error=False)
    wanted = [[bool(it) for it in row] for row in code.matrix_iter(border=4)]
    assert drawn[: len(wanted)] == wanted
    assert not any(any(row) for row in drawn[len(wanted) :])
    assert len(lines[0]) < 100


def test_in_capitals_the_longest_invite_fits_a_terminal_of_eighty_columns() -> None:
    pytest.importorskip("segno")
    assert len(qr_lines("BATON1" + LINE.removeprefix("baton1").upper() + "A" * 100)[0]) <= 80


def test_a_terminal_that_is_too_narrow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("segno")

    class Narrow:
        is_terminal, width = True, 60

    monkeypatch.setattr(qr_code, "console", Narrow())
    with pytest.raises(InputError, match=r"columns wide, this terminal 60"):
        show_qr(LINE)


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(InputError) as caught:
        qr_lines(LINE)
    assert "'.[qr]'" in caught.value.todo
