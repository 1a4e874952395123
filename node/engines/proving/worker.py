"""The process that makes one key or one proof, or checks one: the only place ezkl is imported.

Started by `node.engines.proving.prover`, with bounds on its memory, its time and what it writes. It
answers one message. What is wrong with a model or a proof is answered in words; whatever kills it
is the end of that one job.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import ezkl

from node.engines.formats.onnx_file import read_model
from node.engines.frames import read_frame, to_frame
from node.engines.proving.circuit import (
    DECOMPOSITION_BASE,
    DECOMPOSITION_LEGS,
    LOGROWS,
    LOOKUP_MAX,
    SCALE_BITS,
    canonical,
    check_provable,
    open_sizes,
    public_of,
)
from node.engines.proving.worker_limits import bound
from wire.codec import Value
from wire.errors import EngineError, EngineMissing

MODEL, SETTINGS, COMPILED = "model.onnx", "settings.json", "model.compiled"
VERIFYING_KEY, PROVING_KEY = "verifying.key", "proving.key"
_PROOF, _INPUT, _WITNESS = "proof.json", "input.json", "witness.json"


def _settings(folder: Path, names: list[str], rows: int) -> dict[str, Any]:
    """Have ezkl lay out the circuit, with the settings that every peer has."""
    wanted = ezkl.PyRunArgs()
    wanted.input_visibility = wanted.output_visibility = "public"
    wanted.param_visibility = "fixed"
    wanted.input_scale = wanted.param_scale = SCALE_BITS
    wanted.logrows = LOGROWS
    wanted.lookup_range = (-LOOKUP_MAX, LOOKUP_MAX)
    wanted.decomp_base, wanted.decomp_legs = DECOMPOSITION_BASE, DECOMPOSITION_LEGS
    wanted.variables = [(name, rows) for name in names]
    ezkl.gen_settings(str(folder / MODEL), str(folder / SETTINGS), wanted)
    found = canonical(json.loads((folder / SETTINGS).read_text()))
    (folder / SETTINGS).write_text(json.dumps(found))
    return found


def make_key(message: dict[str, Any]) -> dict[str, Value]:
    """The circuit of the model in a folder, and its keys, which are written there."""
    folder = Path(message["folder"])
    model = read_model(folder / MODEL)
    check_provable(model)
    settings = _settings(folder, open_sizes(model), message["rows"])
    compiled, proving = folder / COMPILED, folder / PROVING_KEY
    ezkl.compile_circuit(str(folder / MODEL), str(compiled), str(folder / SETTINGS))
    ezkl.setup(str(compiled), str(folder / VERIFYING_KEY), str(proving), message["srs"])
    if not message["proves"]:
        proving.unlink()
    key = hashlib.sha256((folder / VERIFYING_KEY).read_bytes()).digest()
    return {"circuit": public_of(model, settings, key).to_plain()}


def prove(message: dict[str, Any]) -> dict[str, Value]:
    """A proof for an input, with the public numbers that it is of."""
    folder, work, srs = Path(message["folder"]), Path(message["work"]), message["srs"]
    compiled, proof = str(folder / COMPILED), work / _PROOF
    (work / _INPUT).write_text(json.dumps({"input_data": message["inputs"]}))
    ezkl.gen_witness(str(work / _INPUT), compiled, str(work / _WITNESS))
    ezkl.prove(str(work / _WITNESS), compiled, str(folder / PROVING_KEY), str(proof), srs)
    made = json.loads(proof.read_text())
    return {"numbers": made["instances"][0], "proof": bytes(made["proof"])}


def check(message: dict[str, Any]) -> dict[str, Value]:
    """Whether a proof is one of these public numbers, and not a byte longer than it has to be."""
    folder, proof = Path(message["folder"]), message["proof"]
    work = Path(message["work"])
    with Path(message["srs"]).open("rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != message["srs_digest"]:
            raise EngineMissing("the SRS is not the file any more that it was")
    reason = _rejected(folder, work, message["srs"], message["numbers"], proof)
    if not reason and not _rejected(folder, work, message["srs"], message["numbers"], proof[:-1]):
        # ezkl reads as many bytes as it needs, and leaves the rest alone.
        reason = "there are bytes behind the proof"
    return {"rejected": reason}


def _rejected(folder: Path, work: Path, srs: str, numbers: list[str], proof: bytes) -> str:
    """Why ezkl rejects a proof; empty if it holds."""
    # Of a proof's file ezkl checks these two; all the rest of it is for people.
    empty = ("protocol", "hex_proof", "split", "pretty_public_inputs", "timestamp", "version")
    document = {**dict.fromkeys(empty), "instances": [numbers], "proof": list(proof)}
    file = work / _PROOF
    file.write_text(json.dumps(document))
    settings, key = str(folder / SETTINGS), str(folder / VERIFYING_KEY)
    try:
        holds = ezkl.verify(str(file), settings, key, srs)
    except RuntimeError as error:
        return str(error)
    return "" if holds is True else "the proof does not hold"


def make_srs(message: dict[str, Any]) -> dict[str, Value]:
    """An SRS from a secret that is forgotten when this process ends."""
    ezkl.gen_srs(message["path"], LOGROWS)
    return {}


JOBS = {"key": make_key, "prove": prove, "check": check, "srs": make_srs}


def answer(message: dict[str, Any]) -> dict[str, Value]:
    """What one message asks for, or in words why not."""
    try:
        return JOBS[message["do"]](message)
    except EngineError as error:
        return {"error": type(error).__name__, "message": error.message, "todo": error.todo}
    except OSError as error:
        # It is this machine's own trouble, and says nothing of a proof.
        return {"error": "EngineMissing", "message": f"no room or no file: {error}", "todo": ""}
    except RuntimeError as error:
        # So ezkl says what it cannot do with a model, or with an input.
        return {"error": "ModelRefused", "message": f"ezkl: {error}"[:500], "todo": ""}


def main(seconds: int, memory_bytes_max: int, file_bytes_max: int) -> None:
    """Answer one message, within so much of the processor's time, memory and disk."""
    target = bound(seconds, memory_bytes_max, file_bytes_max)
    message = read_frame(sys.stdin.buffer)
    if message is not None:
        target.write(to_frame(answer(message)))
        target.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
