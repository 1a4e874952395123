"""What `evidence` and `slash` do: what this peer holds against whom, judged offline, and shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.commands.ask import SOCKET
from node.commands.genesis import read_genesis
from node.commands.output import console, safe, short, show_aside, show_json
from node.commands.receipt_file import read_file
from node.commands.to_type import hint
from node.engines.exact.model import MODEL_BYTES_MAX
from node.evidence.charges import ShownFinding, charged, shown_finding
from node.evidence.offences import LEAST, OffenceFinding, forked_log, judged, lost_dispute
from node.ledger.case_places import NOTICE_EPOCHS
from node.ledger.committee import Committee
from node.local.control import call, unheard
from wire import limits
from wire.amount import read_credits, show_credits
from wire.content import PeerId
from wire.dispute import Dispute
from wire.errors import InputError, Malformed, WireError
from wire.evidence import MAGIC, Evidence, OffenceKind
from wire.jury import case_id
from wire.kinds import Kind
from wire.log import LogFork
from wire.plural import plural
from wire.signed import open_signed

FOLDER = "receipts"
SUFFIXES = (".evidence", ".fork", ".dispute")
SHOWN_MAX = 256
SLASH_DEADLINE_S = 90.0
FILE_BYTES_MAX = Dispute.SIZE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX
# A list of four things, and the kind.
_FORK, _DISPUTE = bytes((0x94, Kind.LOG_FORK)), bytes((0x94, Kind.DISPUTE))


@dataclass(frozen=True, slots=True)
class HeldEvidence:
    """A file that may convict somebody: what it proves, or why it does not."""

    path: Path
    finding: OffenceFinding | None
    why: str
    # Of whom it proves nothing yet.
    suspect: PeerId | None = None


def evidence_in(path: Path, model: Path | None) -> Evidence:
    """The evidence in a file: as such, or the record of a fork or of a dispute; InputError."""
    raw = read_file(path, FILE_BYTES_MAX)
    try:
        if Evidence.is_file(raw):
            return Evidence.from_bytes(raw[len(MAGIC) :])
        if raw.startswith(_FORK):
            return forked_log(open_signed(raw, LogFork).record)
        if raw.startswith(_DISPUTE):
            return lost_dispute(raw, _model_of(path, model))
    except WireError as error:
        raise InputError(
            f"{path} is no evidence that can be read: {error.message}",
            todo="ask whoever gave it to you for another copy",
        ) from error
    raise InputError(
        f"{path} is no evidence, no record of a fork and none of a dispute",
        todo="list what this peer holds: python -m node evidence",
    )


def _model_of(path: Path, model: Path | None) -> bytes:
    if model is None:
        raise InputError(
            f"{path} is the record of a dispute: the model's file is needed to judge it",
            todo="name the file with --model; its content id is in the manifest: models pull ID",
        )
    return read_file(model, MODEL_BYTES_MAX)


def _held(path: Path) -> HeldEvidence:
    try:
        evidence = evidence_in(path, None)
        if evidence.offence is OffenceKind.DISPUTED_WORK:
            charge = charged(evidence)
            why = f"a jury has to look at its answer of {charge.manifest.name}: slash FILE"
            return HeldEvidence(path, None, why, charge.culprit)
        return HeldEvidence(path, judged(evidence.to_bytes()), "")
    except (InputError, WireError) as error:
        return HeldEvidence(path, None, error.message)


def show_evidence(state: Path, *, as_json: bool) -> None:
    """Every file of this peer that may convict somebody, and what each proves."""
    folder = state / FOLDER
    try:
        paths = sorted(it for it in folder.iterdir() if it.suffix in SUFFIXES)
    except FileNotFoundError:
        paths = []
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    held = [_held(path) for path in paths[:SHOWN_MAX]]
    if as_json:
        show_json({"folder": str(folder), "evidence": [_document(it) for it in held]})
        return
    pieces = plural(len(held), "piece")
    console.print(f"[bold]{pieces} of evidence in {safe(str(folder))}[/bold]")
    for one in held:
        # A whole line for the name, which is typed after `slash`.
        console.print(f"{safe(one.path.name)}\n  {_proves(one)}", soft_wrap=False)
    if held:
        console.print(hint("to have stake taken: python -m node slash FILE"))


def _proves(held: HeldEvidence) -> str:
    if held.finding is not None:
        who = " ".join(short(str(it.culprit)) for it in held.finding.convictions)
        return f"against {who}, {_costs(held.finding)}: {safe(held.finding.why)}"
    if held.suspect is not None:
        return f"against {short(str(held.suspect))}: {safe(held.why)}"
    return f"nothing yet: {safe(held.why)}"


def _costs(finding: OffenceFinding) -> str:
    return f"{finding.share_millionths // 10_000} % of the stake"


def _document(held: HeldEvidence) -> dict[str, Any]:
    suspect = {} if held.suspect is None else {"suspect": str(held.suspect)}
    return {"file": str(held.path), "why": held.why, **_finding_map(held.finding), **suspect}


def _finding_map(finding: OffenceFinding | None) -> dict[str, Any]:
    if finding is None:
        return {"holds": False, "offence": None, "against": [], "share_millionths": 0}
    return {
        "holds": True,
        "offence": finding.offence.name.lower(),
        "against": [str(it.culprit) for it in finding.convictions],
        "share_millionths": finding.share_millionths,
        "why": finding.why,
    }


def _not_holding(error: WireError) -> InputError:
    return InputError(
        f"the evidence does not hold: {error.message}", todo="nothing was sent to the ledger"
    )


def _show_convicted(finding: OffenceFinding) -> None:
    for conviction in finding.convictions:
        console.print(f"[bold red]{conviction.culprit}[/bold red]: {safe(finding.why)}")


def _show_finding(
    path: Path,
    shown: ShownFinding,
    finding: OffenceFinding,
    genesis: Path | None,
    *,
    as_json: bool,
) -> None:
    """Say what a jury found; InputError unless its checkpoint is of the network of `genesis`."""
    network = shown.header.network
    if genesis is not None:
        begun = read_genesis(genesis)
        try:
            if begun.id != network:
                raise Malformed(f"it is of the network {network.short}")
            Committee(begun.members).check_checkpoint(shown.checkpoint, shown.header)
        except WireError as error:
            raise InputError(
                f"the finding is not of the network {begun.name!r}: {error.message}",
                todo="if its members were changed by vote since it began, check the whole ledger:"
                " python -m node ledger check FILE",
            ) from error
    if as_json:
        known = {"network": str(network), "checkpoint_checked": genesis is not None}
        show_json({"file": str(path), **known, **_finding_map(finding)})
        return
    _show_convicted(finding)
    console.print(f"  the ledger of network {network} has taken what that costs")
    if genesis is None:
        console.print(
            "  [yellow]whether the jury was drawn by that ledger is not checked: name its genesis"
            " with --genesis FILE[/yellow]"
        )


async def _ask_jury(
    state: Path, path: Path, asked: dict[str, Any], *, only_check: bool, as_json: bool
) -> None:
    """Have a jury look at an answer that no rule decides."""
    try:
        charge = charged(Evidence.from_bytes(asked["evidence"]))
    except WireError as error:
        raise _not_holding(error) from error
    document: dict[str, Any] = {"file": str(path), "against": str(charge.culprit)}
    if not only_check:
        order = await call(state / SOCKET, "slash", asked, unheard, deadline_s=SLASH_DEADLINE_S)
        document |= {"order": order, "case": case_id(bytes.fromhex(order["order"])).hex()}
    if as_json:
        show_json(document)
        return
    console.print(
        f"{charge.culprit} answered as {charge.receipt.id}: no rule decides whether wrong"
    )
    if only_check:
        console.print("  a jury can be asked: slash FILE, without --only-check")
        return
    console.print(f"[green]settled[/green]: case {document['case']} is announced")
    bond = show_credits(document["order"]["spent"])
    console.print(
        "  this peer shows the evidence by itself once this epoch has ended, so that nobody copies"
        f" it before: let it run. Unshown after {NOTICE_EPOCHS} epochs, the bond is lost"
    )
    console.print(
        f"  the bond of {bond} credits comes back if the jury finds the answer wrong, and pays the"
        " jury if it finds it right"
    )


async def slash(
    state: Path,
    path: Path,
    typed: tuple[Path | None, Path | None, str | None],
    *,
    only_check: bool,
    as_json: bool,
) -> None:
    """Judge evidence here, and, unless `only_check`, have the ledger take stake for it.

    `typed` are the model's file, the network's genesis, and the bond, as far as they were given.
    """
    model, genesis, bond = typed
    order_of = {} if bond is None else {"bond": read_credits(bond)}
    evidence = evidence_in(path, model)
    if evidence.offence is OffenceKind.DISPUTED_WORK:
        asked = order_of | {"evidence": evidence.to_bytes()}
        await _ask_jury(state, path, asked, only_check=only_check, as_json=as_json)
        return
    try:
        raw = evidence.to_bytes()
        finding = judged(raw)
    except WireError as error:
        raise _not_holding(error) from error
    if evidence.offence is OffenceKind.JURY_FINDING:
        _show_finding(path, shown_finding(evidence), finding, genesis, as_json=as_json)
        return
    document = {"file": str(path), **_finding_map(finding)}
    if not as_json:
        _show_convicted(finding)
        console.print(
            f"  it costs {_costs(finding)}, at least {show_credits(LEAST)} credits; everything was"
            " found here, and nobody's word was needed"
        )
    if only_check:
        if as_json:
            show_json(document)
        return

    def tell(event: Mapping[str, Any]) -> None:
        if not as_json and event["event"] == "renewed":
            show_aside("the epoch has ended before it was settled: it is signed again")

    found = await call(
        state / SOCKET, "slash", order_of | {"evidence": raw}, tell, deadline_s=SLASH_DEADLINE_S
    )
    if as_json:
        show_json(document | {"order": found})
        return
    console.print(
        f"[green]settled[/green]: stake is taken at the end of epoch {found['epoch']}, and the bond"
        f" of {show_credits(found['spent'])} credits comes back then, if nobody was earlier"
    )
