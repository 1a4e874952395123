"""What `jury` does: cases out of a ledger that is checked, and findings as orders."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.commands.ask import SOCKET
from node.commands.charge_page import charge_map, show_charge
from node.commands.governed import only_one, whole_id
from node.commands.ledger_file import EXPORT_AGAIN, given_or_exported, replay_file
from node.commands.output import console, short, show_json, show_table
from node.commands.receipt_file import read_receipt
from node.commands.to_type import hint
from node.evidence.charges import charged, disputed_work, jury_finding
from node.ledger.case_places import notices_in
from node.ledger.chain_file import read_parts
from node.ledger.epoch_outcome import EpochOutcome
from node.ledger.juries import JURY_EPOCHS, TELL_EPOCHS, cases_in
from node.ledger.replica import Replica
from node.local.control import call, unheard
from wire.amount import show_credits
from wire.checkpoint import Checkpoint
from wire.content import ContentId, PeerId
from wire.errors import InputError, WireError
from wire.evidence import Evidence
from wire.jury import CaseRow, CaseState, DrawnJury, NoticeRow, case_id
from wire.kinds import Role
from wire.ledger import order_digest
from wire.plural import plural
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed

ORDER_DEADLINE_S = 90.0
_STATES = {
    CaseState.WAITING: "waits for its jury",
    CaseState.JURY: "before its jury",
    CaseState.JURY_TELLS: "its jury tells what it found",
    CaseState.EVERYBODY: "before all stakers",
    CaseState.EVERYBODY_TELLS: "all stakers tell what they found",
    CaseState.WRONG: "the answer is wrong",
    CaseState.RIGHT: "the answer is right",
    CaseState.HUNG: "too few agreed: it may be brought again",
    CaseState.NO_JURY: "there was no jury: it may be brought again",
    CaseState.GAVE_WAY: "it gave way to one with twice its bond",
}


@dataclass(slots=True)
class Cases:
    """What a ledger says of cases, and what their findings rest on."""

    rows: dict[bytes, CaseRow] = field(default_factory=dict)
    notices: dict[bytes, NoticeRow] = field(default_factory=dict)
    # Who is bound to what it found.
    sealed: dict[bytes, set[PeerId]] = field(default_factory=dict)
    found: dict[bytes, dict[PeerId, bool]] = field(default_factory=dict)
    evidence: dict[bytes, bytes] = field(default_factory=dict)
    # Of each case: the header with which its jury was drawn, and all that were drawn with it.
    drawn: dict[bytes, tuple[ContentId, tuple[DrawnJury, ...]]] = field(default_factory=dict)
    orders: dict[bytes, list[bytes]] = field(default_factory=dict)
    # The checkpoint of each of these headers, in bytes.
    checkpoints: dict[ContentId, bytes] = field(default_factory=dict)

    def watch(self, replica: Replica, outcome: EpochOutcome) -> None:
        """Note what an epoch says of cases."""
        for jury in outcome.juries.drawn:
            self.drawn[jury.case] = outcome.header.id, outcome.juries.drawn
        orders = [replica.orders[it] for it in outcome.orders]
        for order in sorted(orders, key=lambda it: it.record.sequence):
            for accusation in order.record.accuse:
                self.evidence[case_id(order_digest(order))] = accusation.evidence
            for charge in order.record.charge:
                self.evidence[charge.case] = charge.evidence
            for sealed in order.record.commit:
                self.sealed.setdefault(sealed.case, set()).add(order.signer)
            for finding in order.record.find:
                self.found.setdefault(finding.case, {})[order.signer] = finding.wrong
                self.orders.setdefault(finding.case, []).append(order.raw)


async def read_cases(state: Path, offline: Path | None) -> Cases:
    """From a file, or of the running peer's network; InputError if the ledger does not hold."""
    async with given_or_exported(state, offline) as file:
        return await trio.to_thread.run_sync(cases_of, file)


def cases_of(file: Path) -> Cases:
    """Every case in a ledger's file, of which all is checked; InputError if it does not hold."""
    found = Cases()
    replayed = replay_file(file, found.watch, todo=EXPORT_AGAIN)
    rows = replayed.books.motions.rows
    found.rows, found.notices = cases_in(rows), notices_in(rows.items())
    wanted = {header for header, _ in found.drawn.values()}
    with file.open("rb") as source:
        for part in read_parts(source):
            try:
                header = ContentId.of(Checkpoint.from_bytes(part).header)
            except WireError:
                continue
            if header in wanted:
                found.checkpoints[header] = part
    return found


def _find(cases: Cases, typed: str) -> bytes:
    names = [it for it in cases.rows if it.hex().startswith(typed.lower())]
    if not names and any(it.hex().startswith(typed.lower()) for it in cases.notices):
        raise InputError(
            "this case is announced, and its evidence is not shown yet",
            todo="that is done in the next epoch, by the peer that announced it",
        )
    return only_one(typed, names, "case")


async def list_cases(state: Path, offline: Path | None, *, as_json: bool) -> None:
    """All cases, the latest first."""
    cases = await read_cases(state, offline)
    rows = sorted(cases.rows.items(), key=lambda it: -it[1].begun)
    if as_json:
        announced = [
            {"case": name.hex(), "accuser": str(it.accuser), "bond": it.bond, "epoch": it.epoch}
            for name, it in sorted(cases.notices.items())
        ]
        found = {"cases": [case_map(cases, name) for name, _ in rows], "announced": announced}
        show_json(found)
        return
    table = [
        (name.hex()[:12], "", "announced, not shown yet", "", it.epoch)
        for name, it in sorted(cases.notices.items(), key=lambda it: -it[1].epoch)
    ]
    table += [
        (name.hex()[:12], it.culprit.short, _STATES[it.state], _counts(it), it.begun)
        for name, it in rows
    ]
    columns = ("case", "against", "state", "wrong : right", "since epoch")
    show_table(plural(len(table), "case"), columns, table)


def _counts(row: CaseRow) -> str:
    if row.state is CaseState.WAITING:
        return ""
    if max(row.wrong, row.right) <= len(row.seats):
        return f"{row.wrong} : {row.right}"
    return f"{show_credits(row.wrong)} : {show_credits(row.right)}"


def case_map(cases: Cases, name: bytes) -> dict[str, Any]:
    """A case for programs."""
    row = cases.rows[name]
    return {
        "case": name.hex(),
        "state": row.state.name.lower(),
        "against": str(row.culprit),
        "accuser": str(row.accuser),
        "bond": row.bond,
        "begun": row.begun,
        "until": row.until,
        "attempt": max(1, row.attempt),
        "seats": {str(it): count for it, count in Counter(row.seats).items()},
        "sealed": sorted(map(str, cases.sealed.get(name, ()))),
        "wrong": row.wrong,
        "right": row.right,
        "found": {
            str(juror): "wrong" if it else "right"
            for juror, it in sorted(cases.found.get(name, {}).items())
        },
    }


async def show_case(state: Path, typed: str, offline: Path | None, *, as_json: bool) -> None:
    """One case: who is accused of what, by whom, what a juror looks at, and what was found."""
    cases = await read_cases(state, offline)
    name = _find(cases, typed)
    document, row = case_map(cases, name), cases.rows[name]
    charge = charged(Evidence.from_bytes(cases.evidence[name]))
    document |= charge_map(charge)
    if as_json:
        show_json(document)
        return
    console.print(f"[bold]case {name.hex()[:12]}[/bold]: {_STATES[row.state]}")
    show_charge(charge, row.accuser, row.bond, row.begun)
    said = document["found"]
    sealed = dict.fromkeys(document["sealed"], "sealed, not told")
    rows = [
        (short(it), count, said.get(it, sealed.get(it, "")))
        for it, count in document["seats"].items()
    ]
    if rows:
        until = f"the jury, until epoch {row.until} at most" if row.state.is_open else "the jury"
        show_table(until, ("juror", "seats", "found"), rows)
    elif row.state is CaseState.WAITING:
        console.print(
            f"its jury has {JURY_EPOCHS} epochs to look once it is drawn, and {TELL_EPOCHS} to"
            " tell what it found"
        )
    if row.wrong or row.right:
        console.print(f"wrong : right = {_counts(row)}")
    if row.state in (CaseState.JURY, CaseState.EVERYBODY):
        console.print(
            hint(
                "whoever is asked looks by itself if it has the model; by hand:\n"
                f"  python -m node jury find {name.hex()[:12]} wrong|right"
            )
        )


async def save(state: Path, typed: str, file: Path, offline: Path | None, *, as_json: bool) -> None:
    """Write a jury's finding as evidence; InputError if it convicts nobody."""
    cases = await read_cases(state, offline)
    name = _find(cases, typed)
    if cases.rows[name].state is not CaseState.WRONG or name not in cases.drawn:
        raise InputError(
            f"no jury found this answer wrong: {_STATES[cases.rows[name].state]}",
            todo="see python -m node jury show CASE",
        )
    header, drawn = cases.drawn[name]
    jury = next(it for it in drawn if it.case == name)
    evidence = jury_finding(
        cases.checkpoints[header], cases.evidence[name], cases.orders[name][-13:], jury, drawn
    )
    _write(file, evidence)
    document = {"file": str(file), "case": name.hex()}
    if as_json:
        show_json(document)
        return
    console.print(f"wrote {file}; anybody judges it with: slash FILE --only-check")


def charge(state: Path, receipt: str, file: Path, leg: int | None, *, as_json: bool) -> None:
    """Write what a jury is shown of a kept answer; InputError if that is not enough for one.

    `leg` is the one that is accused, counted from 1: the last that ran a model if it is None.
    """
    found = read_receipt(state, receipt)
    try:
        answer = open_signed(found.answer, Answer).record
        receipts = [open_signed(it, Receipt) for it in answer.receipts]
        accused = receipts[: _accused(receipts, leg)]
        record = accused[-1].record
        manifest = None if record.model is None else found.have(record.model)
        if manifest is None:
            raise InputError(
                "the model's manifest is not kept with this receipt",
                todo="name the bundle: python -m node receipts export ID",
            )
        parts = [None if it is None else found.have(it) for it in (record.input, record.output)]
        # What is not here either is fetched by the peer that asks the jury.
        payload = [it for it in parts if it is not None] if None not in parts else []
        evidence = disputed_work(answer.task, [it.raw for it in accused], manifest, payload)
        shown = charged(evidence)
    except WireError as error:
        raise InputError(f"no jury looks at this: {error.message}") from error
    _write(file, evidence)
    if as_json:
        show_json({"file": str(file), "against": str(shown.culprit), **charge_map(shown)})
        return
    console.print(f"wrote {file}:")
    show_charge(shown)
    console.print(hint("to ask a jury: python -m node slash FILE"))
    if shown.output is None:
        console.print(
            "question and answer are too large for the ledger: jurors fetch them from this peer,"
            " so let it run"
        )
    else:
        console.print("it shows question and answer to everybody")


def _accused(receipts: Sequence[Signed[Receipt]], leg: int | None) -> int:
    """How many receipts there are up to that of the accused leg; InputError for none such."""
    able = [at for at, it in enumerate(receipts, 1) if it.record.role is Role.INFER]
    if leg is None and able:
        return able[-1]
    if leg not in able:
        there = ", ".join(map(str, able)) or "none"
        raise InputError(
            "no model was run in this leg" if leg else "no model was run for this answer",
            todo=f"legs that ran one: {there} (--leg NUMBER)",
        )
    return leg


def _write(file: Path, evidence: Evidence) -> None:
    try:
        file.write_bytes(evidence.to_file())
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error


async def find(state: Path, typed: str, *, wrong: bool, as_json: bool) -> None:
    """Say what this peer's owner found."""
    name = await whole_id(state, typed, "case")
    arguments = {"case": name, "wrong": wrong}
    done = await call(state / SOCKET, "jury_find", arguments, unheard, deadline_s=ORDER_DEADLINE_S)
    if as_json:
        show_json(done)
        return
    console.print(f"[green]settled[/green]: {'wrong' if wrong else 'right'}, for {name.hex()}")
    console.print(
        "it is sealed, so that nobody copies it; this peer tells it by itself once all have sealed"
    )
