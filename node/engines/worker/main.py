"""The worker process of the tinygrad engine: models in, jobs' messages in, answers out. No network.

Started by `node.engines.host.engine` as `python -m node.engines.worker.main`. A model's
fault is answered; any other error ends this process with a traceback on its standard error, and
the engine takes it from there. It also ends when its standard input does: with its parent. A GPU's
driver that fails is told of in words first: what it has of this process is no longer of use.
"""

import functools
import importlib
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from node.engines.frames import read_frame, to_frame
from node.engines.worker.device import WorkerDevice
from node.engines.worker.driver_words import running_advice
from node.engines.worker.load_progress import LoadProgress
from wire.codec import Value
from wire.errors import EngineError
from wire.model import Manifest

# Each is `load(manifest, files, place) -> Model`, and may raise ModelRefused or EngineMissing.
LOADERS = {
    "bert-first-safetensors": "node.engines.worker.embedding:load",
    "bert-safetensors": "node.engines.worker.embedding:load",
    "bert-rerank-safetensors": "node.engines.worker.embedding:load",
    "exact": "node.engines.worker.exact:load",
    "exact-text": "node.engines.worker.exact_text:load",
    "gguf": "node.engines.worker.language_model:load",
    "gguf-embed": "node.engines.worker.text_vectors:load",
    "gguf-rerank": "node.engines.worker.text_vectors:load",
    "nomic-bert-safetensors": "node.engines.worker.embedding:load",
    "onnx": "node.engines.worker.onnx:load",
}


# What is done of a load before the model is run for the first time.
LOADED = 0.95


class LoadedModel(Protocol):
    """One model, ready to run."""

    @property
    def memory_bytes(self) -> int: ...

    def warm_up(self) -> tuple[float, float]:
        """Run once what jobs will run; units of work in a second, of many jobs at once and of one.

        ModelRefused.
        """

    def answer(self, message: dict[str, Any]) -> dict[str, Value]:
        """Do what a message asks of this model; ModelRefused if the model is at fault."""


class Worker:
    """Holds one model, and answers one message after the other."""

    def __init__(self, place: WorkerDevice, index: int = 0) -> None:
        self.place = place
        self._index = index
        self._model: LoadedModel | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Value]:
        """Do what one message asks, and return the answer's fields; EngineError if it cannot."""
        match message["do"]:
            case "device":
                return self._opened()
            case "load":
                if self.place.on_gpu:
                    self._opened()
                files = {name: Path(path) for name, path in message["files"].items()}
                manifest = Manifest.from_bytes(message["manifest"])
                place = replace(
                    self.place,
                    layers=tuple(message["layers"]) if "layers" in message else None,
                    threads=message["threads"],
                )
                with self.place.progress.part(0.0, LOADED):
                    model = self._load(manifest, files, place)
                with self.place.progress.part(LOADED, 1.0):
                    speed, alone = model.warm_up()
                self._model = model
                return {
                    "memory_bytes": model.memory_bytes,
                    "units_per_s": speed,
                    "job_units_per_s": alone,
                }
            case _:
                assert self._model is not None, "the engine has loaded one"
                return self._model.answer(message)

    def _opened(self) -> dict[str, Value]:
        """What the GPU is, once it is open; EngineMissing."""
        # Imports what drives GPUs, which a worker on the processor does without.
        from node.engines.worker.opened_device import choose, open_device

        choose(self._index)
        found = open_device()
        self.place = self.place.opened(found)
        return found.to_plain()

    def _load(self, manifest: Manifest, files: dict[str, Path], place: WorkerDevice) -> LoadedModel:
        module, _, name = LOADERS[manifest.format].partition(":")
        model: LoadedModel = getattr(importlib.import_module(module), name)(manifest, files, place)
        return model


def serve(worker: Worker, source: BinaryIO, target: BinaryIO) -> None:
    """Answer until the other side closes, or until the GPU is lost."""
    for message in iter(functools.partial(read_frame, source), None):
        lost = False
        try:
            reply = worker.answer(message)
        except EngineError as error:
            kind = type(error).__name__
            reply = {"error": kind, "message": error.message, "todo": error.todo}
        except (MemoryError, OSError, RuntimeError) as error:
            if not worker.place.on_gpu:
                raise
            advice = running_advice(worker.place.kind, error)
            reply = {"error": "EngineFailed", "message": advice.message, "todo": advice.todo}
            lost = True
        target.write(to_frame(reply))
        target.flush()
        if lost:
            return


def main(
    cache: str, versions: str, kind: str, index: int, address_bytes_max: int, memory_bytes_max: int
) -> None:
    """Serve one parent. `index` is which device of its kind; `address_bytes_max`: 0 is no bound."""
    # Whatever a library prints goes to standard error, never into the answers.
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if address_bytes_max:
        resource.setrlimit(resource.RLIMIT_AS, (address_bytes_max, address_bytes_max))

    def report(millionths: int) -> None:
        target.write(to_frame({"progress": millionths}))
        target.flush()

    def ask(question: dict[str, Value]) -> dict[str, Any]:
        target.write(to_frame({"asks": question}))
        target.flush()
        reply = read_frame(sys.stdin.buffer)
        if reply is None:
            # The parent is gone, and this process with it.
            sys.exit()
        return reply

    place = WorkerDevice(
        Path(cache), versions, memory_bytes_max, LoadProgress(report), kind, asking=ask
    )
    serve(Worker(place, index), sys.stdin.buffer, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
