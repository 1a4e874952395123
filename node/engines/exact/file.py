"""Reads the file of an integer model, whatever its bytes are: a proven model, or ModelRefused."""

from pathlib import Path

from node.engines.exact.model import MODEL_BYTES_MAX, ExactModel
from node.engines.exact.overflow import prove
from wire.errors import ModelRefused, WireError

_AGAIN = "is this the right file? make one with: python -m node models quantize --exact"


def read_bytes(data: bytes, name: str = "the model") -> ExactModel:
    """The model that these bytes encode, with its sums proved to fit; ModelRefused otherwise."""
    try:
        model = ExactModel.from_bytes(data)
    except WireError as error:
        raise ModelRefused(
            f"{name} is no whole integer model: {error.message}", todo=_AGAIN
        ) from error
    prove(model)
    return model


def read_file(path: Path) -> ExactModel:
    """The model in a file, with its sums proved to fit; ModelRefused otherwise."""
    try:
        size = path.stat().st_size
        if not 0 < size <= MODEL_BYTES_MAX:
            raise ModelRefused(
                f"{path.name} has {size} bytes: integer models have 1 to {MODEL_BYTES_MAX}",
                todo=_AGAIN,
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"{path.name} cannot be read: {error.strerror}") from error
    return read_bytes(data, path.name)
