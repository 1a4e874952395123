"""What a terminal of few columns shows: sentences broken between words, addresses left whole."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Whoever copies a command, or an address, gets it whole: such a line is broken by nobody.
_COPIED = "python -m node "
_GAP = "  "


class LineConsole(Console):
    """A console that breaks long lines of one text between words, where a person reads them."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As a console prints; what is printed with options, or is no text, is left as it is."""
        if self.is_terminal and not options and len(objects) == 1 and isinstance(objects[0], str):
            objects = (broken(Text.from_markup(objects[0]), self),)
        super().print(*objects, **options)


def broken(text: Text, console: Console) -> Text:
    """A text with no line wider than the console, but for what has to stay whole."""
    return Text("\n").join(
        part for line in text.split("\n", allow_blank=True) for part in _broken(line, console)
    )


def _broken(line: Text, console: Console) -> Sequence[Text]:
    plain = line.plain
    indent = len(plain) - len(plain.lstrip(" "))
    # What goes on is indented by more, so that it is seen to.
    room = console.width - indent - len(_GAP)
    whole = any(Text(it).cell_len > room for it in plain.split())
    if line.cell_len <= console.width or _COPIED in plain or whole:
        return [line]
    first, *rest = line[indent:].wrap(console, room)
    return [Text(" " * indent) + first, *(Text(" " * indent + _GAP) + it for it in rest)]


def table_of(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], console: Console
) -> Table | Text:
    """Rows under their columns' names.

    On a terminal that is too narrow, what cannot be broken of the widest column stands below each
    row, whole.
    """
    cells = [[Text.from_markup(str(it)) for it in row] for row in rows]
    widths = [
        max(len(name), *(row[place].cell_len for row in cells))
        for place, name in enumerate(columns)
    ]
    widest = widths.index(max(widths))
    left = console.width - (sum(widths) + len(_GAP) * (len(widths) - 1) - widths[widest])
    words = [word for row in cells for word in row[widest].plain.split()]
    if console.is_terminal and any(Text(it).cell_len > left for it in words):
        return _below(title, columns, cells, widths, widest)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, style="cyan" if column == "peer" else "", overflow="fold")
    for row in cells:
        table.add_row(*row)
    return table


def _below(
    title: str,
    columns: Sequence[str],
    cells: Sequence[Sequence[Text]],
    widths: Sequence[int],
    widest: int,
) -> Text:
    others = [it for it in range(len(columns)) if it != widest]
    lines = [Text(title, "bold"), Text()]
    for place in others:
        lines[1].append(columns[place].ljust(widths[place]) + _GAP, "bold")
    for row in cells:
        line = Text()
        for place in others:
            cell = row[place].copy()
            cell.truncate(widths[place], pad=True)
            line.append_text(cell).append(_GAP)
        lines += [line, Text(f"{_GAP}{columns[widest]}: ") + row[widest]]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)
