"""Options that several commands share, and how their text becomes what the node understands."""

import os
import pwd
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from node.commands.command import together
from node.console_config import CONSOLE_DEFAULT, ConsoleConfig
from node.gateway_config import (
    HTTP_DEFAULT,
    GatewayConfig,
    HttpPay,
    origin_of,
    place_of,
    verdicts_of,
)
from node.paying_config import read_price
from wire import limits
from wire.errors import InputError
from wire.kinds import Role

F = TypeVar("F", bound=Callable[..., Any])
STATE_DEFAULT = Path("~/.baton")
DEADLINE_S = click.IntRange(1, limits.DEADLINE_S_MAX)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?", re.IGNORECASE)


def deadline_option(default: int, help_text: str) -> Callable[[F], F]:
    """`--deadline`: in how many seconds something has to be done."""
    return click.option(
        "--deadline", default=default, show_default=True, type=DEADLINE_S, help=help_text
    )


def _as_given_before(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """What was given to this command, else to the group before it: `wallet --state X pay …`.

    A group's option that its command did not know would be dropped, and another peer would pay.
    """
    here: click.Context | None = context
    name = str(parameter.name)
    while here is not None:
        if here.get_parameter_source(name) not in (None, ParameterSource.DEFAULT):
            return here.params.get(name, value) if here is not context else value
        here = here.parent
    return value


class _StateFolder(click.Path):
    """A folder; of one that cannot be read, since it is another user's, it is said whose."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            with suppress(OSError):
                if Path(value).stat().st_uid != os.geteuid():
                    raise _of_another_user(Path(value)) from None
            raise


def _of_another_user(folder: Path) -> InputError:
    number = folder.stat().st_uid
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"#{number}"
    return InputError(
        f"{folder} belongs to the user {name}",
        todo=f"run this as that user: sudo -u {name} …; or name another folder with --state",
    )


def state_option(function: F) -> F:
    """`--state`: which peer of this machine a command is about."""
    return click.option(
        "--state",
        callback=_as_given_before,
        type=_StateFolder(path_type=Path, file_okay=False),
        default=STATE_DEFAULT,
        show_default=True,
        help="The folder where this peer keeps its key, its store and its receipts.",
    )(function)


def json_option(function: F) -> F:
    """`--json`: for programs that read what a command prints."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        callback=_as_given_before,
        help="Print one JSON document instead of text.",
    )(function)


def network_option(function: F) -> F:
    """`--network`: the name of the network a peer belongs to."""
    return click.option(
        "--network", default="baton", show_default=True, help="Join only peers of this network."
    )(function)


# Names that tell of peers.
seed_options = together(
    click.option(
        "--seed-dns",
        "seed_names",
        multiple=True,
        metavar="NAME",
        help="A name in the DNS whose text records tell of peers, as"
        " dnsaddr=/ip4/192.0.2.7/tcp/4747/p2p/12D3…: asked a second after the other ways, and"
        " until somebody is met. May be given several times.",
    ),
    click.option(
        "--seed-dns-private",
        "private_seeds",
        is_flag=True,
        help="Call private addresses too, if a name of --seed-dns tells of some.",
    ),
)


def verdicts_option(function: F) -> F:
    """`--verdicts`: how an answer is checked, as `verdicts_of` reads it."""
    return click.option(
        "--verdicts",
        default="2/3",
        show_default=True,
        help="How many verdicts an answer needs, of how many verifiers; 0/0: none.",
    )(function)


# The options of `ask` that are about tables, which it has as one map of their names.
rows_options = together(
    click.option(
        "--rows",
        type=click.Path(path_type=Path),
        help="A table whose rows are asked one by one: .csv, .tsv, .jsonl or .parquet.",
    ),
    click.option("--column", help="The column with the text to ask."),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=COLUMN,…",
        help="Of a function: an input, and the columns with its numbers or lists of them;"
        " NAME:TYPE[SHAPE]=… where it is not float32. May be given several"
        " times.",
    ),
    click.option(
        "--one-by-one",
        is_flag=True,
        help="With --input: call the function for each row by itself, and not for many at once.",
    ),
    click.option(
        "--keep",
        metavar="COLUMN,…",
        help="Columns to copy beside the answers.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="The table of answers to write, in any of these formats. Its receipts lie beside it.",
    ),
    click.option("--resume", is_flag=True, help="Go on with a job that was cut short."),
    click.option("--force", is_flag=True, help="Replace what is there, and begin again."),
    click.option(
        "--bad-rows",
        type=click.Choice(("stop", "mark")),
        default="stop",
        show_default=True,
        help="What to do at a row without a text. stop: name it and end; mark:"
        " leave its answer empty, and say why in the column error.",
    ),
    click.option(
        "--spreadsheet",
        is_flag=True,
        help="To CSV: put ' before an answer that a spreadsheet would run as a formula.",
    ),
)
# The options that are about tables alone, and what those are called that have another name.
_OF_TABLES = ("column", "inputs", "one_by_one", "keep", "out", "resume", "force", "spreadsheet")
_OPTIONS = {"inputs": "input", "one_by_one": "one-by-one"}


def check_table(table: Mapping[str, Any], others: int) -> None:
    """InputError unless the options about tables go together; `others` are things asked besides."""
    if table["rows"] is None:
        for name in _OF_TABLES:
            if table[name]:
                option = _OPTIONS.get(name, name)
                raise InputError(
                    f"--{option} says nothing without --rows", todo="give a table: --rows"
                )
        return
    if others:
        raise InputError(
            "one thing is asked at a time", todo="give --rows, or a text, not both of them"
        )
    if table["inputs"] and table["column"]:
        raise InputError(
            "a model reads one column of texts or inputs of numbers, not both",
            todo="give --column, or --input for a function",
        )
    if table["one_by_one"] and not table["inputs"]:
        raise InputError("--one-by-one says nothing without --input", todo="leave it out")
    for name, example in (("column", "text"), ("out", "results.parquet")):
        if not table[name] and not (name == "column" and table["inputs"]):
            or_input = "; of a function --input NAME=COLUMN" if name == "column" else ""
            raise InputError(
                f"--rows needs --{name}", todo=f"for example --{name} {example}{or_input}"
            )
    if table["resume"] and table["force"]:
        raise InputError("--resume goes on and --force begins again", todo="give one of the two")


def roles_of(names: tuple[str, ...]) -> frozenset[Role]:
    """`--role` values; InputError names those there are."""
    roles = set()
    for name in names:
        if name.upper() not in Role.__members__:
            known = ", ".join(role.name.lower() for role in Role)
            raise InputError(f"there is no role {name!r}", todo=f"use one of {known}")
        roles.add(Role[name.upper()])
    return frozenset(roles)


def bytes_of(text: str) -> int:
    """`20GB`, `512 MB`, `1000000` as bytes; InputError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a size", todo="for example 20GB or 512MB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def layers_of(text: str) -> tuple[int, int]:
    """`0-17` as the first and the last layer; InputError for anything else."""
    match = re.fullmatch(r"(\d{1,3})-(\d{1,3})", text.strip())
    if match is None or int(match[1]) > int(match[2]):
        raise InputError(
            f"{text[:40]!r} is no range of layers", todo="give the first and the last, as 0-17"
        )
    return int(match[1]), int(match[2])


def gateway_of(
    http: str | None,
    names: tuple[str, ...],
    origins: tuple[str, ...],
    verdicts: str,
    pay: HttpPay | None = None,
    price: str | None = None,
    *,
    apps: bool = False,
) -> GatewayConfig:
    """What `--http` and the options that begin so say; InputError if they make no sense."""
    host, port = place_of(http or HTTP_DEFAULT)
    needed, verifiers = verdicts_of(verdicts)
    return GatewayConfig(
        host=host,
        port=port,
        names=tuple(it.lower().rstrip(".") for it in names),
        origins=frozenset(map(origin_of, origins)),
        needed=needed,
        verifiers=verifiers,
        price=None if price is None else read_price(price),
        pay=pay,
        apps=apps,
    )


def console_of(place: str | None) -> ConsoleConfig:
    """`--console-at` as an address and a port; InputError for anything else."""
    host, port = place_of(place or CONSOLE_DEFAULT, "--console-at", CONSOLE_DEFAULT)
    return ConsoleConfig(host=host, port=port)


def text_of(text: str | None, file: Path | None) -> str | None:
    """`--text`, or what is in `--file`; InputError unless it is UTF-8 and within the limit."""
    if file is None and text is None:
        return None
    if file is None:
        assert text is not None
        # What a shell hands over need not be text; the bytes that are none come as surrogates.
        data, where, size_bytes = text.encode(errors="surrogateescape"), "the text", 0
    else:
        where = str(file)
        try:
            with file.open("rb") as source:
                data = source.read(limits.TEXT_BYTES_MAX + 1)
            size_bytes = file.stat().st_size
        except OSError as error:
            raise InputError(
                f"{file} cannot be read: {error.strerror}", todo="check what --file names"
            ) from error
    size_bytes = max(size_bytes, len(data))
    if size_bytes > limits.TEXT_BYTES_MAX:
        raise InputError(
            f"{where} has {size_bytes} bytes, at most {limits.TEXT_BYTES_MAX} are taken",
            todo="cut it, or bring it in as files: join --role data --files PATH",
        )
    if not data:
        raise InputError(f"{where} is empty", todo="give some text, in --text or in --file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not UTF-8 (byte {error.start})",
            todo="convert it first, for example with iconv",
        ) from error


offline_option = click.option(
    "--offline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A ledger that was exported, instead of asking the network for it.",
)
