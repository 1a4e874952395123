"""`ask`, `put`, `get`, `rm`: a task and its receipt, content in and out."""

import json
from pathlib import Path
from typing import Any

import click

from node.commands.command import Command, heading, run
from node.commands.options import (
    check_table,
    deadline_option,
    json_option,
    rows_options,
    state_option,
    text_of,
)
from node.task.levels import NEEDED_DEFAULT, VERIFIERS_DEFAULT, terms_of, terms_of_numbers
from wire import limits
from wire.amount import read_credits
from wire.errors import InputError

CONTENT_ID = "bafkr4igzw3drfqx7wgmvdn6ysdjn2dt7ceqmn5p5vkjjxxfxlrxcxqnnxi"
FOLDER_ID = "bafybeiem7coag5mkjdmzv43ve2c4hwk27763sqd5vfqb5fold3iw3lmtgq"


@click.command(
    "ask",
    cls=Command,
    examples=(
        'ask smollm2 "What is a relay race?"',
        f'ask minilm --index {CONTENT_ID} --text "how do I open a file?"',
        "ask minilm --rows data.parquet --column text --out results.parquet",
    ),
)
@click.argument("model")
@click.argument("words", required=False, metavar="[TEXT]")
@heading("What is asked")
@click.option("--text", help="The text to embed or to answer; with --index, the question.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="A UTF-8 file as the text.")
@click.option(
    "--document",
    "documents",
    multiple=True,
    help="A text that a reranker scores by how well it answers the text. May be given several"
    " times.",
)
@click.option("--index", help="The content id of an index in which the text is searched for.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="Data that a data peer brings in, as pydoc:try. May be given several times. It is"
    " embedded, and the id of an index is printed; a function of tensors is called on what its"
    " [[prepare]] gives.",
)
@click.option(
    "--count",
    default=5,
    show_default=True,
    type=click.IntRange(1, 32),
    help="How many passages a search returns.",
)
@heading("What the model is told")
@click.option(
    "--operation", help="What the model is to do, where it can do several things: embed, generate."
)
@click.option(
    "--messages",
    type=click.Path(path_type=Path),
    help="A JSON file with a conversation to answer, as /save of `run` writes it.",
)
@click.option("--system", help="What a language model is told before anything else.")
@click.option(
    "--schema",
    type=click.Path(path_type=Path),
    help="A file with a JSON schema that the answer has to fit.",
)
@click.option(
    "--max-tokens",
    "--tokens",
    "tokens",
    type=click.IntRange(1, 4096),
    help="How many tokens to generate at most.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    help="How freely words are chosen. 0: always the likeliest one.",
)
@click.option("--seed", type=click.IntRange(0, 1 << 62), help="Makes chance repeatable.")
@click.option("--image", hidden=True, help="Refused by name: no model here looks at images.")
@heading("How it is checked, and paid")
@deadline_option(120, "After how many seconds the task has failed.")
@click.option(
    "--level",
    help="How the answer is checked. signed: not at all; spot: one answer in"
    f" {limits.SPOT_ONE_IN}, drawn after it was signed; replayed: always, the default;"
    " exact: always, without tolerance, for what `models quantize --exact` made.",
)
@click.option(
    "--verdicts",
    help="How many verdicts an answer that is checked needs, of how many verifiers; 0/0: it is not"
    " checked. Default: 2/3.",
)
@click.option(
    "--pay-max",
    metavar="CREDITS",
    help="What the answer, or all rows of a table, may cost at most, as 0.02. Default: nothing.",
)
@click.option(
    "--fresh", is_flag=True, help="Do not reuse an answer that was kept for the same question."
)
@heading("With --rows")
@rows_options
@heading("Also")
@state_option
@json_option
def ask_command(
    *,
    model: str,
    words: str | None,
    text: str | None,
    file: Path | None,
    documents: tuple[str, ...],
    index: str | None,
    sources: tuple[str, ...],
    count: int,
    operation: str | None,
    messages: Path | None,
    system: str | None,
    schema: Path | None,
    tokens: int | None,
    temperature: float | None,
    seed: int | None,
    image: str | None,
    deadline: int,
    level: str | None,
    verdicts: str | None,
    pay_max: str | None,
    fresh: bool,
    state: Path,
    as_json: bool,
    **table: Any,
) -> None:
    """Submit a task, show its progress, and keep its receipt.

    The running peer of --state submits it. MODEL is a model's name or content id. TEXT is the same
    as --text. With --rows each row of a table is asked, and the answers become a table.
    """
    from node.commands.ask import ask, json_file

    _check_image(image)
    given = sum(it is not None for it in (words, text, file))
    text = words if text is None else text
    others = given + bool(sources) + (messages is not None) + (index is not None)
    check_table(table, others)
    if table["rows"] is None:
        _check_asked(model, given, bool(sources), messages is not None)
    _check_sources(sources)
    check = terms_of(level, verdicts, terms_of_numbers(NEEDED_DEFAULT, VERIFIERS_DEFAULT))
    settings = {"tokens": tokens, "temperature": temperature, "seed": seed}
    arguments = {
        "model": model,
        "text": text_of(text, file),
        "messages": None if messages is None else json_file(messages, "--messages"),
        "system": text_of(system, None),
        "schema": None if schema is None else json.dumps(json_file(schema, "--schema")),
        "documents": list(documents),
        "index": index,
        "sources": list(sources),
        "count": count,
        "operation": operation,
        "parameters": {key: value for key, value in settings.items() if value is not None},
        "deadline_s": deadline,
        "level": check.level.word,
        "needed": check.needed,
        "verifiers": check.verifiers,
        "fresh": fresh,
        "price_max": 0 if pay_max is None else read_credits(pay_max),
    }
    if table["rows"] is None:
        run(lambda: ask(state.expanduser(), arguments, as_json=as_json))
        return
    from node.commands.rows import ask_rows, rows_asked

    asked = rows_asked(table, arguments)
    run(lambda: ask_rows(state.expanduser(), asked, as_json=as_json))


def _check_image(image: str | None) -> None:
    if image is not None:
        raise InputError(
            "--image: models that look at images are not run", todo="describe it with --text"
        )


def _check_asked(model: str, texts: int, sources: bool, messages: bool) -> None:
    """InputError unless exactly one thing is asked; sources are, of several, one thing."""
    if texts + sources + messages == 0:
        raise InputError(
            "there is nothing to ask",
            todo=f'give a text: python -m node ask {model} "…"; or one of --text, --file or'
            " --source, or a conversation with --messages",
        )
    if texts > 1 or (texts and sources):
        raise InputError(
            "one thing is asked at a time",
            todo="give one of --text, --file or --source, or a conversation with --messages",
        )


def _check_sources(sources: tuple[str, ...]) -> None:
    """InputError for a file of this machine: a source has a name at a data peer."""
    for source in sources:
        if ":" not in source and ("." in source or "/" in source):
            raise InputError(
                f"{source} is no name of a source",
                todo=f"a file that a data peer shares is files:{Path(source).name} (it joined with"
                f" --role data --files FOLDER); one of this machine is asked with --file {source}",
            )


@click.command(
    "put",
    cls=Command,
    examples=("put ./report.txt", "put ./report.txt --copies 3", "put ./photos --copies 3"),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--copies",
    type=click.IntRange(1, 16),
    help="How many peers are to have it, this one included. Other peers are asked to keep it"
    " for a week; put it again for longer. Default: copies of a file are only counted.",
)
@click.option(
    "--pay-max", help="What all copies may cost, in credits; each its part. Default: nothing."
)
@state_option
@json_option
def put_command(
    *, file: Path, copies: int | None, pay_max: str | None, state: Path, as_json: bool
) -> int:
    """Keep a file or a folder, and print its content id.

    The id is the one that IPFS tools compute: ipfs add -r --hidden --cid-version 1 --raw-leaves. Of
    a folder, names and contents are kept, modes and times are not; symbolic links are refused. Of a
    file, the copies are printed too: a peer counts if it gives blocks of it, drawn at random, when
    it is asked for them.
    """
    from node.commands.content import put, put_folder

    if pay_max is not None and not copies:
        raise InputError("--pay-max is for copies at others", todo="add --copies 3")
    most = 0 if pay_max is None else read_credits(pay_max)
    whole, place, count = file.resolve(), state.expanduser(), copies or 0
    if file.is_dir() and whole.parent != whole:
        enough = run(lambda: put_folder(place, file, count, most, as_json=as_json))
        return 0 if enough else 1
    if not file.is_file():
        why = "is not a file" if file.exists() else "does not exist"
        raise InputError(f"{file} {why}", todo="name one file, or a folder, that can be read")
    enough = run(lambda: put(place, file, count, most, as_json=as_json))
    return 0 if enough else 1


@click.command(
    "get",
    cls=Command,
    examples=(
        f"get {CONTENT_ID}",
        f"get {CONTENT_ID} --output report.txt",
        f"get {FOLDER_ID} ./photos",
    ),
)
@click.argument("content_id")
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write. Default: standard output.",
)
@deadline_option(600, "After how many seconds to give up.")
@state_option
@json_option
def get_command(
    *,
    content_id: str,
    folder: Path | None,
    output: Path | None,
    deadline: int,
    state: Path,
    as_json: bool,
) -> None:
    """Fetch content by its id, from the store or from other peers.

    A file goes to standard output, or to --output, and replaces what is there. A folder is fetched
    into DIR, which is made. One that broke off goes on if it is fetched again to the same place;
    whatever else is in that folder is never overwritten.
    """
    from node.commands.content import get, get_folder
    from wire.unixfs import names_node

    place = state.expanduser()
    if names_node(content_id):
        target = folder or output
        if folder is not None and output is not None:
            raise InputError("a place and --output are both given", todo="give one of them")
        run(lambda: get_folder(place, content_id, target, deadline_s=deadline, as_json=as_json))
        return
    if folder is not None:
        raise InputError(
            f"{content_id[:80]} is not the id of a folder, so nothing goes into {folder}",
            todo="for a file's id name the file: --output FILE",
        )
    run(lambda: get(place, content_id, output, deadline_s=deadline, as_json=as_json))


@click.command("rm", cls=Command, examples=(f"rm {CONTENT_ID}", f"rm {FOLDER_ID}"))
@click.argument("content_id")
@state_option
@json_option
def remove_command(*, content_id: str, state: Path, as_json: bool) -> None:
    """Keep a file or a folder that was put here no longer.

    Its room in the store is free for other content then. Pieces that another folder, a model or an
    answer needs too are kept. Copies at other peers end when their time is over.
    """
    from node.commands.content import remove

    run(lambda: remove(state.expanduser(), content_id, as_json=as_json))
