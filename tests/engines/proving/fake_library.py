"""What stands for the processes of ezkl: circuits that add up, and proofs that are hashes.

It keeps the promises that the contract tests, and nothing more: whoever knows how can forge these.
"""

import hashlib
from pathlib import Path
from typing import Any

import trio

from node.engines.formats.onnx_file import read_model
from node.engines.proving.circuit import (
    SCALE_BITS,
    check_provable,
    from_field,
    public_of,
    to_field,
)
from wire.codec import pack
from wire.errors import EngineMissing, ModelRefused

KEY = "verifying.key"
STEPS = 1 << SCALE_BITS


def _key_of(model: bytes, rows: int) -> bytes:
    return hashlib.sha256(model + bytes([rows])).digest()


def _outputs(key: bytes, inputs: list[int], count: int) -> list[int]:
    """A function of a circuit: whole numbers of its own, moved by the sum of the input."""
    return [(key[at % 32] + sum(inputs)) * STEPS for at in range(count)]


def _proof(key: bytes, numbers: list[str]) -> bytes:
    return hashlib.sha512(pack([key, list(numbers)])).digest()


class FakeLibrary:
    """Answers as the worker does. `asked` is what it was asked for, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        # Raised instead of an answer, by what is asked for.
        self.raises: dict[str, Exception] = {}
        self.takes_s = 0.0

    async def ask(
        self, message: dict[str, Any], folder: Path, *, timeout_s: float, checks: bool = False
    ) -> dict[str, Any]:
        self.asked.append(message["do"])
        await trio.sleep(self.takes_s)
        if (error := self.raises.get(message["do"])) is not None:
            raise error
        place = Path(message["folder"])
        return {"key": self._made, "prove": self._proved, "check": self._checked}[message["do"]](
            place, message
        )

    def _made(self, place: Path, message: dict[str, Any]) -> dict[str, Any]:
        model = read_model(place / "model.onnx")
        check_provable(model)
        rows = message["rows"]
        values = [*model.inputs, *model.outputs]
        shapes = [
            [rows if not isinstance(it, int) else it for it in value.shape or ()]
            for value in values
        ]
        scales = [SCALE_BITS if value.kind.startswith("float") else 0 for value in values]
        settings = {
            "model_instance_shapes": shapes,
            "model_input_scales": scales[: len(model.inputs)],
            "model_output_scales": scales[len(model.inputs) :],
        }
        key = _key_of((place / "model.onnx").read_bytes(), rows)
        (place / KEY).write_bytes(key)
        if message["proves"]:
            (place / "proving.key").write_bytes(b"proves")
        digest = hashlib.sha256(key).digest()
        return {"circuit": public_of(model, settings, digest).to_plain()}

    def _proved(self, place: Path, message: dict[str, Any]) -> dict[str, Any]:
        key = (place / KEY).read_bytes()
        inputs = [round(it * STEPS) for some in message["inputs"] for it in some]
        if max(map(abs, inputs)) > 1 << 20:
            raise ModelRefused("ezkl: a look-up of the circuit is out of range")
        # As the digits' MLP gives them: a label, and a number for each of ten.
        rows = len(inputs) // 64
        label = _outputs(key, inputs, rows)
        numbers = inputs + label + _outputs(key, inputs, 10 * rows)
        told = [to_field(it) for it in numbers]
        return {"numbers": told, "proof": _proof(key, told)}

    def _checked(self, place: Path, message: dict[str, Any]) -> dict[str, Any]:
        with Path(message["srs"]).open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != message["srs_digest"]:
                raise EngineMissing("the SRS is not the file any more that it was")
        for it in message["numbers"]:
            from_field(it)
        right = _proof((place / KEY).read_bytes(), message["numbers"])
        return {"rejected": "" if message["proof"] == right else "it is not the proof"}
