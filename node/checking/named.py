"""What an answer names by content: the inputs and outputs of its legs, and the models that ran.

Pure. With all of that beside it an answer can be judged by whoever has nothing else.
"""

from dataclasses import dataclass

from wire.chain import source_of
from wire.content import ContentId, PeerId
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed
from wire.task import Task


@dataclass(frozen=True, slots=True)
class NamedContent:
    """Ids in the order of the legs, each once, with who may still have the content."""

    # The content of inputs and outputs, with the peer that read it or made it.
    blobs: dict[ContentId, PeerId]
    # Manifests of models: small, and needed to say what a model id stands for.
    models: tuple[ContentId, ...]


def named_by(answer: Signed[Answer]) -> NamedContent:
    """What an answer names; WireError if its parts cannot be read."""
    task = open_signed(answer.record.task, Task)
    receipts = [open_signed(it, Receipt) for it in answer.record.receipts]
    blobs: dict[ContentId, PeerId] = {}
    for stage, receipt in enumerate(receipts):
        source = source_of(task, receipts, stage)
        if source is not None:
            blobs.setdefault(source, receipt.signer)
        blobs.setdefault(receipt.record.output, receipt.signer)
    models = [it.record.model for it in receipts if it.record.model is not None]
    return NamedContent(blobs, tuple(dict.fromkeys(models)))
