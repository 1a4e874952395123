"""In a terminal of 80 columns no word is cut in two, and what is copied stays in one piece."""

from rich.console import Console

from node.commands.terminal import LineConsole, broken, table_of

ADDRESS = "/ip4/127.0.0.1/tcp/21881/p2p/12D3KooWMtyZ6uFugQCsuFKhZS7Fp3EXHjRASzxb8r9dAx7XynTA"
SENTENCE = "  of unchecked answers 5% are checked afterwards, more of peers seldom checked: 0 held"
ROW = ("…YUC47c", "infer verify", "hash", "yes", "good", "18 s", ADDRESS)
COLUMNS = ("peer", "roles", "models", "connected", "standing", "heard", "address")


def shown(what: object, *, terminal: bool = True) -> list[str]:
    kind = LineConsole if isinstance(what, str) else Console
    console = kind(width=80, force_terminal=terminal, soft_wrap=True, color_system=None)
    with console.capture() as seen:
        console.print(what)
    return seen.get().splitlines()


def test_a_long_sentence_is_broken_between_words_and_goes_on_indented() -> None:
    lines = shown(SENTENCE)
    assert all(len(it) <= 80 for it in lines)
    assert len(lines) == 2
    assert lines[1].startswith("    ")
    assert " ".join(" ".join(lines).split()) == " ".join(SENTENCE.split())
    assert shown(SENTENCE, terminal=False) == [SENTENCE]


def test_commands_and_addresses_stay_whole() -> None:
    command = f"  python -m node join {ADDRESS} --genesis FILE"
    for line in (command, f"  listening on {ADDRESS}"):
        assert shown(line) == [line]


def test_colours_are_kept_over_a_break() -> None:
    console = LineConsole(width=20, force_terminal=True)
    text = broken(console.render_str("[red]one two three four five six seven[/red]"), console)
    first, second, *_ = text.split("\n")
    assert all(it.spans for it in (first, second))


def test_a_table_that_does_not_fit_says_its_widest_column_below_each_row() -> None:
    console = Console(width=80, force_terminal=True)
    lines = shown(table_of("2 peers", COLUMNS, [ROW, ROW], console))
    assert lines[0] == "2 peers"
    assert lines[1].split() == list(COLUMNS[:-1])
    assert lines[3] == lines[5] == f"  address: {ADDRESS}"
    assert all(len(it) <= 80 for it in (lines[2], lines[4]))
    assert "infer verify" in lines[2]


def test_a_table_that_fits_and_one_in_a_file_are_as_ever() -> None:
    narrow = table_of("t", ("a", "b"), [("1", "two words")], Console(width=80, force_terminal=True))
    assert [it.split() for it in shown(narrow)] == [["t"], ["a", "b"], ["1", "two", "words"]]
    wide = Console(width=200, force_terminal=False)
    with wide.capture() as seen:
        wide.print(table_of("t", COLUMNS, [ROW], wide))
    assert seen.get().splitlines()[2].split()[-1] == ADDRESS
