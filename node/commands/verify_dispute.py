"""`verify` of a dispute: who is wrong, found anew from its record and the model's file, offline."""

from collections.abc import Iterable
from pathlib import Path

from node.commands.output import console, safe, show_json
from node.engines.exact.model import MODEL_BYTES_MAX
from node.engines.exact.text_file import FILE, FORMAT
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.disputes import Judgement, judge
from node.evidence.text_disputes import judge_words
from store import id_of_file
from wire import limits
from wire.content import ContentId, PeerId
from wire.dispute import Dispute
from wire.errors import InputError, Malformed, ModelRefused, WireError
from wire.kinds import Kind
from wire.model import Manifest
from wire.operations import GENERATE
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.tree import name_of

# A list of four things, and the kind: no receipt begins so.
HEAD = bytes((0x94, Kind.DISPUTE))
_NOT_RELIED = "do not rely on it; ask whoever gave it to you for another copy"


def is_dispute(path: Path) -> bool:
    """Whether a file begins as the record of a dispute does; False for what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(HEAD)) == HEAD
    except OSError:
        return False


def verify_dispute(
    path: Path, content: tuple[Path, ...], model: Path | None, *, as_json: bool
) -> None:
    """Judge the record again and say who is wrong; InputError names what does not hold."""
    if model is None:
        raise InputError(
            f"{path} is the record of a dispute, and the model's file is needed to judge it",
            todo="name the file with --model; its content id is in the manifest: models pull ID",
        )
    raw = _read(path, Dispute.SIZE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
    try:
        dispute = open_signed(raw, Dispute)
        source, output = _payloads(dispute, content)
        receipt = open_signed(dispute.record.receipt, Receipt)
        if receipt.record.operation == GENERATE:
            found = judge_words(dispute, _claims(dispute, receipt, model), source, output)
        else:
            _, found = judge(dispute, _read(model, MODEL_BYTES_MAX), source, output)
    except (WireError, ModelRefused) as error:
        raise InputError(
            f"the record of the dispute does not hold: {error.message}", todo=_NOT_RELIED
        ) from error
    if as_json:
        show_json(_document(dispute, found))
        return
    _show(dispute, receipt, found)


def _payloads(dispute: Signed[Dispute], content: Iterable[Path]) -> tuple[bytes, bytes]:
    """The leg's input and output: of the record, or of files; InputError for what is missing."""
    record = dispute.record
    receipt = open_signed(record.receipt, Receipt).record
    at_hand: dict[ContentId | None, bytes] = {}
    for data in (record.input, record.output):
        if data is not None:
            at_hand[name_of(data)] = data
    for path in content:
        data = _read(path, limits.TENSORS_BYTES_MAX)
        at_hand[name_of(data)] = data
    found = []
    for what, name in (("input", receipt.input), ("output", receipt.output)):
        if name not in at_hand:
            raise InputError(
                f"the leg's {what} is not in the record, because it is large",
                todo=f"give it with --content; it is {name}: get ID",
            )
        found.append(at_hand[name])
    return found[0], found[1]


def _claims(dispute: Signed[Dispute], receipt: Signed[Receipt], path: Path) -> ExactClaims:
    """What computes the model of a record about words; WireError, ModelRefused, InputError."""
    manifest = Manifest.from_bytes(dispute.record.manifest)
    if manifest.id != receipt.record.model or manifest.format != FORMAT:
        raise Malformed("the receipt is not of an answer of this exact transformer")
    try:
        if manifest.file(FILE).content != id_of_file(path):
            raise Malformed("the model's file is not the one that the manifest names")
        return ExactClaims.of(path, manifest.id)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path, size_bytes_max: int) -> bytes:
    try:
        if path.stat().st_size > size_bytes_max:
            raise InputError(f"{path} has more than {size_bytes_max} bytes")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _document(dispute: Signed[Dispute], found: Judgement) -> dict[str, object]:
    return {
        "dispute": str(dispute.id),
        "referee": str(dispute.signer),
        "prover": str(found.prover),
        "challenger": str(found.challenger),
        "lost": sorted(map(str, found.lost)),
        "proven": found.proven,
        "why": found.why,
        "row": found.row,
        "layer": found.layer,
        "operator": found.operator or None,
        "hashes": dict(
            zip(
                ("prover", "challenger", "referee"), (it.hex() for it in found.hashes), strict=False
            )
        ),
    }


def _show(dispute: Signed[Dispute], receipt: Signed[Receipt], found: Judgement) -> None:
    def called(peer: PeerId) -> str:
        return f"…{str(peer)[-6:]}"

    rows = [
        ("model", str(receipt.record.model)),
        ("prover", f"{called(found.prover)}, who signed the receipt {receipt.id}"),
        ("challenger", f"{called(found.challenger)}, who signed a verdict against it"),
        (
            "referee",
            f"{called(dispute.signer)}, who signed this record as the one who asked",
        ),
    ]
    words = receipt.record.operation == GENERATE
    if found.row is not None:
        rows.append(("token" if words else "row", f"{found.row}, counted from 0"))
    if found.layer is not None:
        rows.append(("layer", f"{found.layer} ({found.operator}), the first at which they differ"))
    elif found.operator:
        rows.append(("layer", f"none: the {found.operator}"))
    sides = ("prover says", "challenger says", "it gives")
    rows += [(side, it.hex()) for side, it in zip(sides, found.hashes, strict=False)]
    for name, text in rows:
        console.print(f"[bold]{name:<16}[/bold]{safe(text)}")
    who = {found.prover: "the prover", found.challenger: "the challenger"}
    names = " and ".join(f"{who[it]} {called(it)}" for it in sorted(found.lost))
    if found.proven:
        console.print(f"\n[bold red]{names or 'nobody'} is wrong[/bold red]: {safe(found.why)}.")
        console.print("This was computed here, from the model's file; nobody's word was needed.")
    else:
        console.print(f"\n[bold yellow]{names} lost[/bold yellow]: {safe(found.why)}.")
        console.print("That somebody was silent is the referee's word: nobody else can know it.")
