"""A line of text as a QR code in the terminal, for a phone or another machine's camera.

The only place where segno is imported; it is an extra.
"""

from node.commands.output import console
from wire.errors import InputError
from wire.plural import plural

# Readers need a margin of so many modules.
_MARGIN = 4
# By whether the upper and the lower module of a character are dark.
_HALVES = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}


def qr_lines(text: str) -> list[str]:
    """Two rows of modules to a line; InputError if the extra is not installed.

    A text of capitals and digits takes a third less room than others.
    """
    try:
        import segno
    except ImportError as error:
        raise InputError(
            "a QR code needs a package that is not installed",
            todo="pip install '.[qr]', or leave out --qr",
        ) from error
    code = segno.make_qr(text, error="l", boost_error=False)
    rows = [[bool(it) for it in row] for row in code.matrix_iter(border=_MARGIN)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return [
        "".join(_HALVES[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


def show_qr(text: str) -> None:
    """Print it, dark on light whatever the terminal's colours; InputError if it does not fit."""
    lines = qr_lines(text)
    if console.is_terminal and console.width < len(lines[0]):
        raise InputError(
            f"the QR code is {plural(len(lines[0]), 'column')} wide, this terminal {console.width}",
            todo="make the window wider, or its letters smaller, and take the line above till then",
        )
    for line in lines:
        console.print(line, style="black on white", markup=False)
