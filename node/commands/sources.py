"""What `sources` does: the owner's sources kept and tried, and fetched by others with a receipt."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from node.commands.agreed import AGREEMENT_SUFFIX
from node.commands.ask import SOCKET, show_event, show_route
from node.commands.beside import CONTENT_S, FETCH_BESIDE, get_content, keep_fetch
from node.commands.output import (
    console,
    plain_text,
    safe,
    short,
    show_json,
    show_table,
)
from node.commands.to_type import hint
from node.commands.typed_file import read_text
from node.ingest.bring import Brought
from node.ingest.dataset import GetContent
from node.ingest.opening import open_ingest
from node.ingest.owned import OwnedSources
from node.ingest.prepare import beginning_of, tensor_of, words_of
from node.ingest.source_file import FILE_BYTES_MAX, read_source
from node.ingest.table import DataTable
from node.local.control import call, unheard
from wire.amount import show_credits
from wire.content import ContentId
from wire.errors import InputError, StoreUnusable
from wire.fetch import AttestedFetch, Extraction, FetchAgreement, Preparation, SourceRecord
from wire.plural import plural

CELL_CHARS = 60
_MORE = ", and there are more: raise pages in its [paging] for those"
ROWS_SHOWN = 10
ALL = 1 << 30


def add(state: Path, name: str, file: Path, *, allow_host: bool, as_json: bool) -> None:
    """Keep a source under a name; InputError if it is not sound."""
    owned, text = OwnedSources(state), read_text(file, FILE_BYTES_MAX)
    record = owned.add(name, text)
    allowed = owned.allow(record) if allow_host else None
    if as_json:
        show_json({"name": name, "id": str(record.id), "allowed": allowed})
        return
    console.print(f"kept the source [bold]{safe(name)}[/bold] as\n{record.id}")
    if allowed:
        console.print(f"this peer may reach {safe(allowed)}, wherever that is")
    console.print(hint(f"see what comes out: python -m node sources test {safe(name)}"))


def list_sources(state: Path, *, as_json: bool) -> None:
    """Show the owner's sources; one whose file is damaged says so."""
    owned = OwnedSources(state)
    rows = []
    for name in owned.names():
        row = {"name": name, "kind": "", "place": "", "format": "", "id": "", "problem": ""}
        try:
            record = owned.get(name)
        except (InputError, StoreUnusable) as error:
            row["problem"] = error.message
        else:
            row |= {"kind": record.kind, "place": record.place, "id": str(record.id)}
            row["format"] = record.extraction.format
        rows.append(row)
    if as_json:
        show_json({"sources": rows})
        return
    if not rows:
        console.print(hint("no sources yet; add one: python -m node sources add NAME FILE.toml"))
        console.print(
            "  besides them a data peer has Python's documentation, as pydoc:try, and the texts of"
            " join --files, as files:NAME"
        )
        return
    columns = ("name", "kind", "place", "format", "id")
    table = [[safe(it[column]) for column in columns] for it in rows]
    show_table("sources", columns, table)
    for row in rows:
        if row["problem"]:
            console.print(f"[yellow]{safe(row['name'])}: {safe(row['problem'])}[/yellow]")


def remove(state: Path, name: str, *, as_json: bool) -> None:
    """Forget a source; InputError if there is none."""
    OwnedSources(state).remove(name)
    if as_json:
        show_json({"name": name})
    else:
        console.print(f"{safe(name)} is no longer a source here")


async def test(
    state: Path, what: str, rows: int, wall_s: Callable[[], float], *, as_json: bool
) -> None:
    """Fetch a source from here, and show it; the error says what is wrong with it."""
    ingest = open_ingest(state, wall_s, _published(state))
    if (source := _given(what)) is not None:
        brought = await ingest.owners(source)
    else:
        brought = await ingest.named(what, None)
    if as_json:
        show_json(_document(brought, rows))
        return
    show_brought(brought, rows)


def _published(state: Path) -> GetContent:
    """How the running peer of the state folder brings published content."""

    async def get(content: ContentId, size_bytes_max: int) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "content"
            asked = {
                "id": str(content),
                "path": str(path),
                "deadline_s": int(CONTENT_S),
                "size_bytes_max": size_bytes_max,
            }
            await call(state / SOCKET, "get", asked, unheard, deadline_s=CONTENT_S)
            return await trio.Path(path).read_bytes()

    return get


async def fetch(
    state: Path,
    what: str,
    deadline_s: int,
    terms: tuple[int, str] | None,
    price_max: int = 0,
    *,
    as_json: bool,
) -> None:
    """Have a data peer fetch a source; keep the receipt, the record, and what came beside it.

    With `terms` (how many, and when they agree) several fetch it, and what they agree on is kept.
    """
    source = _given(what)
    arguments: dict[str, Any] = {
        "name": what if source is None else Path(what).stem[:64],
        "record": None if source is None else source.to_bytes(),
        "deadline_s": deadline_s,
        "price_max": price_max,
    }
    if terms is not None:
        arguments |= {"quorum": terms[0], "terms": terms[1]}
    tell = unheard if as_json else show_event
    wait_s = float(deadline_s) + CONTENT_S
    result = await call(state / SOCKET, "fetch", arguments, tell, deadline_s=wait_s)
    if terms is not None:
        await _keep_agreement(state, result, as_json=as_json)
        return
    saved = await keep_fetch(state, result)
    brought = await trio.to_thread.run_sync(_read_beside, saved)
    if as_json:
        show_json(
            {
                "receipt": result["receipt"],
                "receipt_file": str(saved),
                "charged": result["charged"],
                **_document(brought, ALL),
            }
        )
        return
    show_brought(brought, ROWS_SHOWN)
    show_route(result)
    console.print(hint(f"receipt {result['receipt']}\n  check it: python -m node verify {saved}"))


async def _keep_agreement(state: Path, result: dict[str, Any], *, as_json: bool) -> None:
    """Write every receipt of an agreement, and the agreement beside them; show what was agreed."""
    for one in result["fetches"]:
        await keep_fetch(state, {**one, "input_payload": result["input_payload"]})
    record = FetchAgreement.from_bytes(result["agreement"])
    name = ContentId.of(result["agreement"])
    saved = state / "receipts" / f"{name}{AGREEMENT_SUFFIX}"
    saved.write_bytes(result["agreement"])
    await get_content(state, result["output"], saved.with_suffix(".extracted"))
    output = await trio.to_thread.run_sync(saved.with_suffix(".extracted").read_bytes)
    source = SourceRecord.from_bytes(result["input_payload"])
    if as_json:
        show_json(
            {
                "agreement": str(name),
                "agreement_file": str(saved),
                "agreeing": result["agreeing"],
                "outliers": result["outliers"],
                "charged": result["charged"],
                "receipts": [it["receipt"] for it in result["fetches"]],
                **_output_document(source.extraction, output, ALL),
            }
        )
        return
    show_output(source.extraction, output, ROWS_SHOWN)
    agreeing = ", ".join(map(short, result["agreeing"]))
    console.print(f"\n{len(record.agreeing)} of {record.quorum} agree ({record.agree}): {agreeing}")
    if result["charged"]:
        whole, most = show_credits(result["charged"]), show_credits(result["price_max"])
        console.print(f"the fetches cost [bold]{whole} credits[/bold], of at most {most}")
    if result["outliers"]:
        named = ", ".join(map(short, result["outliers"]))
        console.print(f"[yellow]outliers, which lose standing: {named}[/yellow]")
    console.print(hint(f"agreement {name}\n  check it: python -m node verify {saved}"))


def _read_beside(saved: Path) -> Brought:
    record, body, output = (saved.with_suffix(it).read_bytes() for it in FETCH_BESIDE)
    return Brought(AttestedFetch.from_bytes(record), body, output)


def show_brought(brought: Brought, rows: int) -> None:
    """The output, and where it came from."""
    show_output(brought.record.extraction, brought.output, rows)
    for name, value in _facts(brought):
        console.print(f"[dim]{name:<12}{safe(value)}[/dim]")


def show_output(extraction: Extraction, output: bytes, rows: int) -> None:
    """The first rows of a table, or the beginning of a text."""
    if extraction.is_table:
        table = DataTable.from_bytes(output)
        shown = [[safe(_short(cell)) for cell in row] for row in table.rows[:rows]]
        show_table(plural(len(table.rows), "row"), [safe(it) for it in table.columns], shown)
    elif extraction.gives == "tensor":
        console.print(f"[bold]{safe(words_of(output))}[/bold]")
        console.print(safe(beginning_of(output)))
    elif extraction.gives != "binary":
        lines = output.decode().splitlines()
        console.print("\n".join(safe(it) for it in lines[:rows]))
        if len(lines) > rows:
            console.print(f"… {plural(len(lines) - rows, 'line')} more")


def _facts(brought: Brought) -> list[tuple[str, str]]:
    record = brought.record
    certificates = [] if record.certificates is None else [record.certificates.hex()]
    return [
        ("from", " → ".join(record.urls)),
        *([("status", str(record.status))] if record.status else []),
        *((it.name, it.value) for it in record.headers),
        *(("certificates", it) for it in certificates),
        ("source", str(record.source)),
        *(("prepared", f"{it.id} ({_steps(it)})") for it in record.extraction.prepare),
        *([("pages", f"{len(record.pages)}{_MORE * record.more}")] if record.pages else []),
        ("body", f"{record.body} ({plural(record.body_size_bytes, 'byte')})"),
        ("output", f"{record.output} ({plural(len(brought.output), 'byte')})"),
    ]


def _steps(preparation: Preparation) -> str:
    return ", ".join(it.name for it in preparation.steps)


def _document(brought: Brought, rows: int) -> dict[str, Any]:
    record = brought.record
    found: dict[str, Any] = {
        "source": str(record.source),
        "urls": list(record.urls),
        "fetched_at_ms": record.fetched_at_ms,
        "status": record.status,
        "headers": {it.name: it.value for it in record.headers},
        "certificates": None if record.certificates is None else record.certificates.hex(),
        "pages": [it.url for it in record.pages],
        "more_pages": record.more,
        "body": str(record.body),
        "body_size_bytes": record.body_size_bytes,
        "preparation": [str(it.id) for it in record.extraction.prepare],
        "output": str(record.output),
    }
    return {**found, **_output_document(record.extraction, brought.output, rows)}


def _output_document(extraction: Extraction, output: bytes, rows: int) -> dict[str, Any]:
    if extraction.is_table:
        table = DataTable.from_bytes(output)
        return {
            "columns": list(table.columns),
            "rows": [list(it) for it in table.rows[:rows]],
            "rows_in_all": len(table.rows),
        }
    if extraction.gives == "tensor":
        tensor = tensor_of(output)
        return {"tensor": {"name": tensor.name, "kind": tensor.kind, "shape": list(tensor.shape)}}
    return {} if extraction.gives == "binary" else {"text": output.decode()}


def _given(what: str) -> SourceRecord | None:
    """The source in a TOML file, if `what` is one."""
    path = Path(what).expanduser()
    if path.suffix == ".toml" or "/" in what.partition(":")[0]:
        return read_source(read_text(path, FILE_BYTES_MAX))
    return None


def _short(cell: object) -> str:
    text = " ".join(plain_text("" if cell is None else cell).split())
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"
