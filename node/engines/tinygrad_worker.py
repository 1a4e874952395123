"""The worker process of the tinygrad engine: models in, texts in, vectors out. No network, no loop.

Started by `node.engines.tinygrad_engine` as `python -m node.engines.tinygrad_worker`. A model's
fault is answered; any other error ends this process with a traceback on its standard error, and
the engine takes it from there. It also ends when its standard input does: with its parent.
"""

import functools
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tinygrad import Device
from tinygrad.helpers import DEV

from node.engines.bert import BertShape, BertWeights, fill
from node.engines.frames import read_frame, to_frame
from node.engines.safetensors import read_table
from node.engines.tinygrad_bert import Encoder
from node.engines.tinygrad_cache import GraphCache
from node.engines.tinygrad_products import Products
from node.engines.tokenizer import Tokens, read_tokens
from wire.codec import Value
from wire.content import ContentId
from wire.errors import EngineError, ModelRefused
from wire.model import Manifest


@dataclass(frozen=True, slots=True)
class Model:
    """One model, ready to run."""

    shape: BertShape
    tokens: Tokens
    encoder: Encoder
    graphs: dict[int, Any]

    def embed(self, texts: list[str]) -> dict[str, Value]:
        """The vectors of those texts that fit one pass; `done` says which."""
        lines = self.tokens.of(texts)
        now = fill([len(line) for line in lines], self.shape.buckets)
        chosen = [lines[number] for number in now.texts]
        vectors = self.encoder.run(self.graphs[now.bucket], now.bucket, chosen)
        if not np.isfinite(vectors).all():
            raise ModelRefused("the model answered with numbers that are not finite")
        return {
            "done": now.texts,
            "data": vectors.astype("<f4").tobytes(),
            "tokens": sum(map(len, chosen)),
        }


def load(manifest: Manifest, files: dict[str, Path], cache: Path, versions: str) -> Model:
    """Check, read, compile (or find compiled) and try one model; ModelRefused, EngineMissing."""
    shape = BertShape.of(manifest)
    weights = BertWeights.read(read_table(files["model.safetensors"]), shape)
    tokens = read_tokens(
        files["tokenizer.json"], tokens_max=shape.tokens_max, vocabulary=len(weights.words)
    )
    encoder = Encoder(shape, weights, Products(blocked=Device.DEFAULT == "CPU"))
    key = " ".join((str(manifest.id), versions, str(DEV.value)))
    graphs = GraphCache(cache, key).collect(shape.buckets, encoder.capture)
    model = Model(shape, tokens, encoder, graphs)
    # The first replay of a graph links its kernels; no job should wait for that.
    for bucket, graph in graphs.items():
        encoder.run(graph, bucket, tokens.of(["ready?"]))
    return model


class Worker:
    """Answers one message after the other."""

    def __init__(self, cache: Path, versions: str) -> None:
        self._cache = cache
        self._versions = versions
        self._models: dict[bytes, Model] = {}

    def answer(self, message: dict[str, Any]) -> dict[str, Value]:
        match message["do"]:
            case "load":
                files = {name: Path(path) for name, path in message["files"].items()}
                manifest = Manifest.from_bytes(message["manifest"])
                model = load(manifest, files, self._cache, self._versions)
                self._models[manifest.id] = model
                return {"memory_bytes": _memory_bytes()}
            case "unload":
                self._models.pop(ContentId(message["model"]), None)
                return {}
            case "embed":
                return self._models[message["model"]].embed(message["texts"])
            case other:
                raise AssertionError(f"the engine asked for {other!r}")


def serve(worker: Worker, source: BinaryIO, target: BinaryIO) -> None:
    """Answer until the other side closes."""
    for message in iter(functools.partial(read_frame, source), None):
        try:
            reply = worker.answer(message)
        except EngineError as error:
            kind = type(error).__name__
            reply = {"error": kind, "message": error.message, "todo": error.todo}
        target.write(to_frame(reply))
        target.flush()


def _memory_bytes() -> int:
    # The kernel counts in KiB, macOS in bytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main(cache: str, versions: str, memory_bytes_max: int) -> None:
    # Whatever a library prints goes to standard error, never into the answers.
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if memory_bytes_max:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    serve(Worker(Path(cache), versions), sys.stdin.buffer, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
