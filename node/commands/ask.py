"""`ask`: submits one task, shows it step by step, and keeps its receipt."""

import json
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from node.commands.output import console, safe, short, show_json
from node.commands.streamed import WAITING, StreamedAnswer
from node.commands.to_type import hint
from node.local.control import call
from wire import limits
from wire.amount import show_credits
from wire.errors import BatonError, InputError
from wire.plural import plural

SOCKET = "control.sock"
# Of an output that is shown, and of a document that was ranked.
NUMBERS = 8
LINE_CHARS = 200


async def ask(state: Path, arguments: dict[str, Any], *, as_json: bool) -> None:
    """Submit a task through the running peer and show its answer; BatonError if it fails."""
    deadline_s = float(arguments["deadline_s"]) + 30
    tell = _silent if as_json else show_event
    sources = arguments.get("sources")
    if sources:
        # A fetch and then an answer, each in its time.
        result = await call(state / SOCKET, "embed", arguments, tell, deadline_s=2 * deadline_s)
        if "index" not in result:
            from node.commands.beside import keep_call

            show_asked(result, await keep_call(state, result), as_json=as_json)
            return
        if as_json:
            show_json(result)
            return
        count = (
            f"{plural(result['passages'], 'passage')}, {result['verified']} of"
            f" {result['tasks']} checked"
        )
        if result["charged"]:
            count += f", for {show_credits(result['charged'])} credits"
        console.print(f"\n[bold]index {result['index']}[/bold]: {count}")
        if left_out := result.get("skipped"):
            # A peer of before names them only on the way.
            console.print(f"[yellow]left out: {', '.join(map(safe, left_out))}[/yellow]")
        model = arguments["model"]
        console.print(
            hint(f'ask in it: python -m node ask {model} --text "…" --index {result["index"]}')
        )
        return
    streamed = StreamedAnswer(_write, show_event)
    on_event = tell if as_json else streamed.on_event
    try:
        result = await call(state / SOCKET, "ask", arguments, on_event, deadline_s=deadline_s)
    except BatonError:
        streamed.give_up()
        raise
    for row in result["result"].get("ranked", ()):
        row["text"] = arguments["documents"][row["index"]]
    if result["operation"] == "generate" and not as_json:
        streamed.finish(result["result"])
    saved = await trio.to_thread.run_sync(save_receipt, state, result)
    show_asked(result, saved, as_json=as_json)


def show_asked(result: Mapping[str, Any], saved: Path, *, as_json: bool) -> None:
    """An answer, for a program or for a person."""
    if as_json:
        show_json(document(result, saved))
    else:
        show_answer(result, saved)


def json_file(path: Path, option: str) -> Any:
    """What a JSON file says; InputError names the option that named the file."""
    try:
        with path.open("rb") as source:
            data = source.read(limits.PROMPT_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", todo=f"check what {option} names"
        ) from error
    if len(data) > limits.PROMPT_BYTES_MAX:
        raise InputError(
            f"{path} has more than {limits.PROMPT_BYTES_MAX} bytes", todo=f"cut what {option} names"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not JSON: {error}", todo=f"check what {option} names"
        ) from error


def save_receipt(state: Path, result: Mapping[str, Any]) -> Path:
    """Write the receipt, and beside it input, output and manifest, where `verify` finds them."""
    folder = state / "receipts"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{result['receipt']}.receipt"
    path.write_bytes(result["answer"])
    if result["input_payload"]:
        path.with_suffix(".input").write_bytes(result["input_payload"])
    if result["payload"]:
        path.with_suffix(".output").write_bytes(result["payload"])
    # A peer of an earlier version, which runs on, tells none.
    if manifest := result.get("manifest_payload"):
        path.with_suffix(".manifest").write_bytes(manifest)
    return path


def document(result: Mapping[str, Any], saved: Path) -> dict[str, Any]:
    """What `ask --json` prints."""
    found = dict(result["result"])
    if "vector_f32" in found:
        data = found.pop("vector_f32")
        found["vector"] = list(struct.unpack(f"<{len(data) // 4}f", data))
    rest = {key: value for key, value in result.items() if key not in _RAW}
    if "fetched" in rest:
        rest["fetched"] = [it["receipt"] for it in rest["fetched"]]
    return {**rest, "result": found, "receipt_file": str(saved)}


_RAW = ("answer", "payload", "input_payload", "manifest_payload", "result")


def show_answer(result: Mapping[str, Any], saved: Path) -> None:
    found = result["result"]
    if "passages" in found:
        show_passages(found["passages"])
    elif "ranked" in found:
        console.print()
        for row in found["ranked"]:
            console.print(f"[bold]{row['score']:.4f}[/bold] {safe(row['text'])[:LINE_CHARS]}")
    elif "vector_f32" in found:
        data = found["vector_f32"]
        first = ", ".join(f"{it:+.4f}" for it in struct.unpack("<6f", data[:24]))
        console.print(
            f"\n[bold]vector of {plural(found['dimensions'], 'number')}[/bold]: {first}, …"
        )
    elif "outputs" in found:
        show_outputs(found["outputs"])
    elif result["operation"] != "generate":
        console.print(f"\n{safe(found['text'])}")
    if result["kept_before"]:
        then = "checked then" if result.get("verdicts") else "nobody checked it"
        console.print(f"\n[dim]this answer was kept from an earlier task, and {then}[/dim]")
    show_route(result)
    for one in result.get("fetched", ()):
        paid = f", for {show_credits(one['charged'])} credits" if one["charged"] else ""
        by = short(one["route"][0]["peer"])
        console.print(f"fetched {one['receipt']} by [cyan]{by}[/cyan]{paid}")
    if result.get("charged_whole"):
        whole, most = show_credits(result["charged_whole"]), show_credits(result["price_max_whole"])
        console.print(f"all of it cost [bold]{whole} credits[/bold], of at most {most}")
    console.print(hint(f"receipt {result['receipt']}\n  check it: python -m node verify {saved}"))


def show_outputs(outputs: Mapping[str, Any]) -> None:
    """The first numbers of each tensor."""
    for name, told in outputs.items():
        shape = "x".join(map(str, told["shape"])) or "scalar"
        first = ", ".join("none" if it is None else f"{it:g}" for it in told["data"][:NUMBERS])
        more = ", …" if len(told["data"]) > NUMBERS else ""
        console.print(f"\n[bold]{safe(name)}[/bold] ({told['type']} {shape}): {first}{more}")


def show_passages(passages: list[Mapping[str, Any]]) -> None:
    for place, passage in enumerate(passages, 1):
        console.print(f"\n[bold]{place}.[/bold] [green]{passage['score']:.3f}[/green]  ", end="")
        lines = safe(passage["text"]).strip().splitlines()
        console.print("\n   ".join(lines[:8]) + ("\n   …" if len(lines) > 8 else ""))


def show_route(result: Mapping[str, Any], name: Callable[[str], str] = short) -> None:
    """Print who did which leg, in how long, and who checked it; `name` turns an id into a name."""
    console.print("\n[bold]route[/bold]")
    for leg in result["route"]:
        reused = " (computed before)" if leg["reused"] else ""
        console.print(
            f"  {leg['role']:<6} {leg['operation']:<15} by [cyan]{name(leg['peer'])}[/cyan]"
            f" in {leg['duration_ms'] / 1000:.2f} s{reused}"
        )
    for verdict in result["verdicts"]:
        console.print("  " + _verdict_words(verdict, name))
    kept = {number for number, leg in enumerate(result["route"], 1) if leg["reused"]}
    for charge in result["charges"]:
        what = _CHARGED[charge["for"]].format(leg=charge["leg"])
        if charge["for"] == "leg" and charge["leg"] in kept:
            what += ", which it had kept: a part of its price"
        console.print(
            f"  paid   {show_credits(charge['amount'])} credits to"
            f" [cyan]{name(charge['peer'])}[/cyan] for {what}"
        )
    if result["charges"]:
        total, most = show_credits(result["charged"]), show_credits(result["price_max"])
        then = " then, and nothing now" if result.get("kept_before") else ""
        console.print(f"  it cost [bold]{total} credits[/bold], of at most {most}{then}")
    if shares := result.get("shares"):
        parts = [f"{show_credits(shares['fund'])} go to the fund"]
        parts += [
            f"{show_credits(it['amount'])} to the author of its model, {name(it['author'])}"
            for it in shares["authors"]
        ]
        console.print(f"  of that {', '.join(parts)}, once it is redeemed")


_CHARGED = {
    "leg": "leg {leg}",
    "check": "its verdict on leg {leg}",
    "part": "what it showed of leg {leg}",
    "rejected": "its verdict on leg {leg} of an answer that was not accepted",
}


def _verdict_words(verdict: Mapping[str, Any], name: Callable[[str], str]) -> str:
    peer = f"[cyan]{name(verdict['peer'])}[/cyan]"
    if verdict["agrees"]:
        looked = f"{len(verdict['sampled'])} of {plural(verdict['rows'], 'row')}"
        off = f", off by {verdict['worst']:.0e} at most" if verdict["worst"] else ""
        return f"verify [green]agrees[/green]          by {peer}: {looked}{off}"
    why = safe(verdict["reason"]) or f"differs by {verdict['worst']:.1e}"
    return f"verify [red]disagrees[/red]       by {peer}: {why}"


def show_event(event: Mapping[str, Any]) -> None:
    """Print one line for an event of a task under way."""
    match event["event"]:
        case "accepted":
            console.print(f"accepted: task {event['task']} is in the journal")
        case "quote":
            least, most = show_credits(event["least"]), show_credits(event["most"])
            costs = least if least == most else f"{least} to {most}"
            console.print(f"it costs at most {costs} credits, by what the peers that can do it ask")
            if len(event["legs"]) > 1:
                legs = ", ".join(
                    f"{it['operation']} {show_credits(it['most'])}" for it in event["legs"]
                )
                console.print(f"  of that: {legs}, verdicts {show_credits(event['checks'])}")
            if event["locks"]:
                locks = show_credits(event["locks"])
                console.print(
                    f"  up to {locks} credits are locked in channels to them: what is not paid"
                    " there comes back"
                )
        case "offered":
            console.print(f"  {event['role']} leg taken by [cyan]{short(event['peer'])}[/cyan]")
        case "leg":
            took = f"{event['duration_ms'] / 1000:.2f} s"
            peer = f"[cyan]{short(event['peer'])}[/cyan]"
            console.print(f"  {event['operation']} signed by {peer} after {took}")
        case "verdict":
            console.print("  " + _verdict_words(event, short))
        case "few_verifiers":
            known = f"{plural(event['known'], 'verifier')} of this model are"
            if event["known"] == 1:
                known = "1 verifier of this model is"
            console.print(
                f"  {known} known and {event['needed']} have to agree: waiting for more;"
                " --verdicts 0/0 asks for no check"
            )
        case "failed" if event.get("code") in WAITING:
            # It is no failure: whoever loads, or waits for a promise, is asked again soon.
            peer = f"[cyan]{short(event['peer'])}[/cyan]"
            console.print(f"  [dim]waiting for {peer}: {safe(event['why'])}[/dim]")
        case "failed":
            peer = f"[cyan]{short(event['peer'])}[/cyan]"
            console.print(f"  [yellow]{event['what']}: {peer}: {safe(event['why'])}[/yellow]")
        case "again":
            names = ", ".join(map(safe, event["sources"]))
            console.print(f"[yellow]once more: {names}[/yellow]")
        case "skipped":
            source, why = safe(event["source"]), safe(event["why"])
            console.print(f"[yellow]{source} is left out: {why}[/yellow]")
        case "part":
            console.print(
                f"[bold]{safe(event['source'])}[/bold]:"
                f" {plural(event['passages'], 'passage')} so far"
            )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _silent(event: Mapping[str, Any]) -> None:
    """With --json nothing is shown on the way."""
