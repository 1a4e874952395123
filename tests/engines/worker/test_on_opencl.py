"""On OpenCL, which is the path of GPUs, a language model says what it says on the processor."""

import subprocess
import sys
from pathlib import Path

import pytest

from node.engines.formats.smollm2 import SMOLLM2
from node.engines.host.launch import default_device
from tests.engines.families import FAMILIES as ALL_FAMILIES
from tests.engines.families import weights_of, write_family
from tests.engines.opencl import CL, WEBGPU, driver_environment, need_opencl, need_webgpu
from tests.engines.tiny_gguf import TINY, write_gguf

FAMILIES = ("llama", "qwen2", "qwen3")
TOKENS = 64
# Of three models one after the other, in one process, so that they share what is compiled. Each of
# their files has norms in 32-bit floats, which are read from where the file is mapped.
PROGRAM = """
import sys
from pathlib import Path
from tinygrad import Device
from node.engines.formats.gguf import describe
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.slots import SlotRow
from node.engines.worker.transformer import LanguageModel

prompt = [int(token) for token in sys.argv[1].split(",")]
for path in sys.argv[2:]:
    products, progress = Matmul(blocked=Device.DEFAULT == "CPU"), LoadProgress(lambda _: None)
    model = LanguageModel(describe(Path(path)), 2, products, progress)
    model.ready({8: model.capture(8)})
    logits = model.run([SlotRow(token, 1, at, (1, 0)) for at, token in enumerate(prompt)])[-1]
    made = []
    while len(made) < min(64, model.context - len(prompt)):
        made.append(int(logits.argmax()))
        logits = model.run([SlotRow(made[-1], 1, len(prompt) + len(made) - 1, (1, 0))])[0]
    print(*made)
"""


def greedy(device: str, cache: Path, prompt: str, paths: list[Path]) -> list[list[str]]:
    """The tokens that each model says after the prompt."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, prompt, *map(str, paths)],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": ":".join([str(Path(__file__).parents[3]), *filter(None, sys.path)]),
            "DEV": device,
            **driver_environment(),
            "CACHEDB": str(cache / "kernels.db"),
            "XDG_CACHE_HOME": str(cache),
            "PARALLEL": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("kind", "families"),
    [
        # It has all that the others have, and norms of its own.
        ("q8_0", ("qwen3",)),
        *(
            pytest.param(it, FAMILIES, marks=pytest.mark.soak)
            for it in ("q8_0", "f32", "f16", "q4_0")
        ),
    ],
)
def test_every_family_says_the_same_64_tokens_as_on_the_processor(
    kind: str, families: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    need_opencl()
    sizes = (TINY[0], 1, *TINY[2:])
    paths = [
        write_gguf(tmp_path / f"{family}.gguf", family, kind, sizes=sizes, seed=10)
        for family in families
    ]
    prompt = "5,17,33,99,200,70,301,44"
    wanted = greedy(default_device(), cache, prompt, paths)
    assert [len(line) for line in wanted] == [TOKENS] * len(families)
    assert greedy(CL, cache, prompt, paths) == wanted


# WebGPU runs a twentieth as fast here, and is tried with what families have all together.
@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("device", "names"),
    [(CL, tuple(ALL_FAMILIES)), (WEBGPU, ("gemma 3", "granite", "phi 4 mini", "qwen 3"))],
    ids=("opencl", "webgpu"),
)
def test_all_families_of_the_table_say_the_same_64_tokens_there(
    device: str, names: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    need_opencl() if device == CL else need_webgpu()
    paths = []
    for name in names:
        family = ALL_FAMILIES[name]
        path = tmp_path / f"{name}.gguf"
        paths.append(write_family(path, family, weights_of(family, seed=5), context=128))
    prompt = "5,17,33,99,200,70,301,44"
    wanted = greedy(default_device(), cache, prompt, paths)
    # A file of theirs may say that its context is shorter.
    assert all(len(line) in (TOKENS, TOKENS - 8) for line in wanted)
    found = greedy(device, cache, prompt, paths)
    assert dict(zip(names, found, strict=True)) == dict(zip(names, wanted, strict=True))


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_smollm2_says_the_same_64_tokens_as_on_the_processor(cache: Path) -> None:
    need_opencl()
    paths = list(SMOLLM2.files().values())
    # "Once upon a time, there was a"
    prompt = "6403,3013,253,655,28,665,436,253"
    wanted = greedy(default_device(), cache, prompt, paths)
    assert len(wanted[0]) == TOKENS
    assert greedy(CL, cache, prompt, paths) == wanted
