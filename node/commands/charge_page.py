"""A charge as people read it: who is accused of what, by whom, and what a juror looks at."""

from typing import Any

from node.commands.output import console, safe, size
from node.evidence.charges import AccusedWork
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import WireError
from wire.generation import Generation, Token, read_frames
from wire.operations import EMBED, GENERATE, RERANK
from wire.payload import Texts
from wire.plural import plural

SHOWN_CHARACTERS = 300


def charge_map(charge: AccusedWork) -> dict[str, Any]:
    """For programs."""
    leg = charge.receipt.record
    return {
        "model": charge.manifest.name,
        "operation": leg.operation,
        "receipt": str(charge.receipt.id),
        "leg": len(charge.receipts),
        "asker": str(charge.task.signer),
        "question": _words(_question(charge)),
        "answer": _words(_answer(charge)),
    }


def show_charge(
    charge: AccusedWork, accuser: PeerId | None = None, bond: int = 0, epoch: int = 0
) -> None:
    """The lines about one charge; `accuser` is None before anybody has announced it."""
    leg, stage = charge.receipt.record, charge.task.record.stages[charge.receipt.record.stage]
    model = safe(charge.manifest.name)
    lines = [("accused", str(charge.culprit))]
    number, of = len(charge.receipts), len(charge.task.record.stages)
    what = f"its answer is not what {model} gives ({leg.operation})"
    lines.append(("of this", what + (f", leg {number} of {of}" if of > 1 else "")))
    lines.append(("receipt", str(charge.receipt.id)))
    lines.append(("asked by", str(charge.task.signer)))
    if accuser is not None:
        lines.append(("accuser", str(accuser)))
        lines.append(("bond", f"{show_credits(bond)} credits, in epoch {epoch}"))
    if stage.parameters:
        told = ", ".join(f"{it} {value!r}" for it, value in sorted(stage.parameters.items()))
        lines.append(("with", safe(told)))
    lines.append(("question", safe(_words(_question(charge)))))
    lines.append(("answer", safe(_words(_answer(charge)))))
    lines.append(("to look at", f"whether {model}, asked this, answers so within its tolerance"))
    for name, text in lines:
        console.print(f"  [dim]{name:<11}[/dim]{text}", soft_wrap=True)


def _question(charge: AccusedWork) -> str | bytes | None:
    data, operation = charge.source, charge.receipt.record.operation
    if data is None:
        return None
    try:
        if operation == GENERATE:
            asked = Generation.from_bytes(data)
            tokens = plural(len(asked.prompt_tokens), "token")
            return asked.prompt or asked.messages or tokens
        if operation in (EMBED, RERANK):
            return " / ".join(Texts.from_bytes(data).texts)
    except WireError:
        # It is shown as what it is: a juror may find the answer wrong for it.
        return data
    return data


def _answer(charge: AccusedWork) -> str | bytes | None:
    data = charge.output
    if data is None or charge.receipt.record.operation != GENERATE:
        return data
    try:
        tokens = [it for it in read_frames(data) if isinstance(it, Token)]
        return b"".join(it.text for it in tokens).decode(errors="replace")
    except WireError:
        return data


def _words(shown: str | bytes | None) -> str:
    if shown is None:
        return "too large for the ledger: jurors fetch it from who accuses"
    if isinstance(shown, bytes):
        try:
            text = shown.decode()
        except UnicodeDecodeError:
            text = ""
        if not text.isprintable() or not text:
            return f"{size(len(shown))} of numbers"
        shown = text
    more = len(shown) - SHOWN_CHARACTERS
    return shown if more <= 0 else f"{shown[:SHOWN_CHARACTERS]}… ({plural(more, 'character')} more)"
