"""An answer that no rule alone shows to be wrong, as it is laid before a jury."""

from dataclasses import dataclass
from typing import Any

from node.evidence.charges import disputed_work
from tests.evidence.crimes import ASKER, SECRET, WORKER
from wire.content import ContentId
from wire.evidence import Evidence
from wire.kinds import Level, Role
from wire.lottery import secret_hash_of
from wire.model import Manifest, ModelFile
from wire.operations import GENERATE
from wire.receipt import Receipt
from wire.signed import sign
from wire.signing import SigningKey
from wire.task import CheckPolicy, Stage, Task
from wire.tree import name_of

MANIFEST = Manifest(
    name="talker",
    format="gguf",
    profile="float32",
    operations=(GENERATE,),
    files=(ModelFile(name="model.gguf", content=ContentId.of(b"weights"), size_bytes=7),),
    parameters={},
    tolerance=0.01,
)


@dataclass
class Answered:
    """One answer of a language model."""

    worker: SigningKey = WORKER
    asker: SigningKey = ASKER
    nonce: int = 0
    question: bytes = b"what is the capital of France?"
    answer: bytes = b"Lyon"

    def __post_init__(self) -> None:
        stage = Stage(role=Role.INFER, operation=GENERATE, model=MANIFEST.id, parameters={})
        policy = CheckPolicy(
            needed=2, verifiers=3, secret_hash=secret_hash_of(SECRET), level=Level.REPLAYED
        )
        self.task = sign(
            Task(
                version=1,
                stages=(stage,),
                input=name_of(self.question),
                checking=policy,
                issued_at_ms=1,
                deadline_s=60,
                price_max=0,
                nonce=self.nonce.to_bytes(16, "big"),
            ),
            self.asker,
        )
        self.receipt = self.signed()

    def signed(self, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "task": self.task.id,
            "stage": 0,
            "role": Role.INFER,
            "operation": GENERATE,
            "model": MANIFEST.id,
            "input": name_of(self.question),
            "output": name_of(self.answer),
            "output_size_bytes": len(self.answer),
            "units": 1,
            "started_at_ms": 1,
            "duration_ms": 1,
            "profile": "",
            "previous": None,
            "reused": False,
        }
        return sign(Receipt(**(fields | changes)), self.worker)

    @property
    def case(self) -> Evidence:
        """The evidence that asks a jury."""
        return disputed_work(
            self.task.raw, [self.receipt.raw], MANIFEST.to_bytes(), (self.question, self.answer)
        )
