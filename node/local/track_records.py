"""`audit`: what the answers that are kept here show of one peer, or of one model."""

from typing import Any

from node.asking.answers import Answers
from node.asking.log_watch import LogWatch, kept_fork
from node.asking.track_record import track_record
from node.models.model_store import ModelStore
from wire.content import ContentId, PeerId
from wire.errors import InputError, Malformed
from wire.log import judge


async def audit_of(answers: Answers, whose: str, watch: LogWatch | None = None) -> dict[str, Any]:
    """The track record of a peer by its id, or of a model by its name or id; InputError.

    `watch` knows of the logs of others; None where no peer runs.
    """
    try:
        peer = PeerId.parse(whose)
    except Malformed:
        model = _model(answers, whose)
        record = await track_record(answers, lambda it: it.record.model == model)
        return {"model": str(model), **record.as_map()}
    record = await track_record(answers, lambda it: it.signer == peer, peer)
    return {"peer": str(peer), **record.as_map(), "log": _log_of(answers, peer, watch)}


def _log_of(answers: Answers, peer: PeerId, watch: LogWatch | None) -> dict[str, Any]:
    """What is known of a peer's log: its latest head, and whether it was found to have two."""
    fork = kept_fork(answers, peer)
    head = None if watch is None else watch.role.book.heads.get(peer)
    return {
        "fork": None if fork is None else judge(fork).why,
        "receipts": None if head is None else head.record.size,
        "head": None if head is None else head.record.number,
        "signed_at_ms": None if head is None else head.record.signed_at_ms,
        "not_shown": None if watch is None else watch.not_shown.get(peer),
    }


def _model(answers: Answers, name: str) -> ContentId:
    try:
        return ModelStore(answers.store).resolve(name)
    except InputError as error:
        raise InputError(
            f"{name[:80]!r} is neither a peer's id nor a model that is known here",
            todo="peers' ids begin with 12D3Koo: python -m node peers --json; for models see:"
            " python -m node models",
        ) from error
