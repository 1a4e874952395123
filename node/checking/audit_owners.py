"""The part of an audit that is about owners: what peers declare of them, kept apart or not.

Pure.
"""

from collections import defaultdict

from node.checking.report import AuditReport, ReceiptPart
from wire.chain import doers_of
from wire.content import PeerId
from wire.errors import BadSignature
from wire.ownership import Ownership
from wire.plural import plural
from wire.receipt import Answer, Verdict
from wire.signed import Signed

_PART = ReceiptPart.SELECTION


def say_owners(report: AuditReport, answer: Answer, asker: PeerId) -> None:
    """Say whether verifiers are of declared owners that are apart, and what is not declared."""
    doers = {it for leg in report.receipts for it in doers_of(leg)} | {asker}
    owners = _owners(report, answer)
    _check_apart(report, owners, doers)
    verifiers = {it.signer for it in report.verdicts}
    declared = sum(it in owners for it in verifiers)
    told = f"{declared} of the {plural(len(verifiers), 'verifier')} show an owner's signature"
    if declared:
        told += ", which binds those alone that show it"
    report.note_limit(
        _PART,
        "whether the verifiers belong to one owner, and whether the candidates were all there were",
        f"a signature names a key, not a person; {told}",
    )


def _owners(report: AuditReport, answer: Answer) -> dict[PeerId, PeerId]:
    """The owner of each peer that declares one and whose owner signed that."""
    owners: dict[PeerId, PeerId] = {}
    for one in answer.owned:
        try:
            one.verify()
        except BadSignature as error:
            report.note(
                _PART, False, f"the owner of {one.peer.short} signed that it is", str(error)
            )
        else:
            owners[one.peer] = one.owner
    return owners


def weights_by_owner(answer: Answer) -> dict[PeerId, int]:
    """The weight of the candidates of each owner that is declared, and of each other candidate.

    Of one owner's candidates one alone can give a verdict, so these are as one.
    """
    owners = {it.peer: it.owner for it in answer.owned if _holds(it)}
    found: defaultdict[PeerId, int] = defaultdict(int)
    weights = answer.weights or (0,) * len(answer.candidates)
    for peer, weight in zip(answer.candidates, weights, strict=True):
        found[owners.get(peer, peer)] += weight
    return found


def _holds(one: Ownership) -> bool:
    try:
        one.verify()
    except BadSignature:
        return False
    return True


def _check_apart(report: AuditReport, owners: dict[PeerId, PeerId], doers: set[PeerId]) -> None:
    """No verifier has the owner of who worked or asked, nor on one leg that of another one."""
    if not owners:
        return
    working = {owners.get(it, it): it for it in sorted(doers)}
    seen: dict[bytes, dict[PeerId, list[Signed[Verdict]]]] = defaultdict(lambda: defaultdict(list))
    wrong: list[str] = []
    for verdict in report.verdicts:
        owner = owners.get(verdict.signer, verdict.signer)
        if owner in working:
            wrong.append(f"{verdict.signer.short} has the owner of {working[owner].short}")
        seen[verdict.record.receipt][owner].append(verdict)
    for leg in seen.values():
        for owner, same in leg.items():
            names = sorted({it.signer.short for it in same})
            if len(names) > 1:
                wrong.append(f"{' and '.join(names)} belong to {owner.short}")
    report.note(
        _PART,
        not wrong,
        "of the owners that are declared none checked its own work, or twice",
        "; ".join(wrong) or f"{len(set(owners.values()))} are",
    )
