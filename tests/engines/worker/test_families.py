"""Each family of language models computes what its makers say it does.

Tiny models of random weights, beside references of each family's own in float64: the likeliest
tokens are the same one after the other, and the logits nearly so. The prompt is longer than the
windows, and is read in several passes.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.engines.families import FAMILIES, WORDS, weights_of, write_family
from tests.engines.family_references import greedy
from tests.engines.worker.test_language_model import run

PROMPT, ANSWER = 27, 12
# Of the largest logit; measured: at most 2e-6.
NEARLY = 1e-5
# All families in one process, since most of their kernels are the same.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from node.engines.formats.gguf import describe
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.slots import SlotRow
from node.engines.worker.transformer import LanguageModel

for path in Path(sys.argv[1]).glob("*.gguf"):
    model = LanguageModel(describe(path), 2, Matmul(blocked=True), LoadProgress(lambda _: None))
    model.ready({8: model.capture(8)})
    tokens = [int(token) for token in sys.argv[2].split(",")]
    given, lines = len(tokens), []
    for at in range(0, given, 8):
        part = [SlotRow(token, 1, at + n, (1, 0)) for n, token in enumerate(tokens[at : at + 8])]
        logits = model.run(part)[-1]
    for _ in range(int(sys.argv[3])):
        lines.append(logits)
        tokens.append(int(logits.argmax()))
        logits = model.run([SlotRow(tokens[-1], 1, len(tokens) - 1, (1, 0))])[0]
    np.savez(path.with_suffix(".npz"), tokens=tokens[given:], logits=lines)
"""
# Together they have all that a family adds; the others are combinations of it.
ALWAYS = ("gemma 3", "granite", "olmo 3", "phi 4 mini", "qwen 3 moe", "smollm 3")
OTHERS = tuple(it for it in FAMILIES if it not in ALWAYS)


@pytest.mark.parametrize("names", [ALWAYS, pytest.param(OTHERS, marks=pytest.mark.soak)])
def test_families_compute_what_their_makers_say(
    names: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    prompt = [int(it) for it in np.random.default_rng(1).integers(0, WORDS - 3, PROMPT)]
    expected = {}
    for name in names:
        family = FAMILIES[name]
        weights = weights_of(family, seed=5)
        write_family(tmp_path / f"{name}.gguf", family, weights)
        doubles = {key: array.astype(np.float64) for key, array in weights.items()}
        expected[name] = greedy(family.reference, doubles, prompt, family.numbers, ANSWER)
    run(tmp_path, cache, ",".join(map(str, prompt)), str(ANSWER), program=PROGRAM)
    for name, (tokens, logits) in expected.items():
        assert len(set(tokens)) > ANSWER // 3, f"{name} repeats itself, which tells little"
        with np.load(tmp_path / f"{name}.npz") as found:
            assert found["tokens"].tolist() == tokens, name
            difference = np.abs(found["logits"] - logits).max() / np.abs(logits).max()
        assert difference < NEARLY, f"{name}: {difference:.1e}"


BITS = """
import sys
from pathlib import Path
import numpy as np
from node.engines.formats.gguf import describe
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.slots import SlotRow
from node.engines.worker.transformer import LanguageModel

for path in Path(sys.argv[1]).glob("*.gguf"):
    model = LanguageModel(describe(path), 6, Matmul(blocked=True), LoadProgress(lambda _: None))
    model.ready({rows: model.capture(rows) for rows in (1, 4, 8, 32)})
    tokens = [int(token) for token in sys.argv[2].split(",")]

    def through(slot, *sizes):
        found, at = [], 0
        for size in sizes:
            part, pages = tokens[at : at + size], (slot, slot + 3)
            rows = [SlotRow(it, slot, at + n, pages) for n, it in enumerate(part)]
            found.append(model.run(rows))
            at += size
        return found

    alone = np.concatenate(through(0, *[1] * 40))
    eights, fours = np.concatenate(through(1, *[8] * 5)), np.concatenate(through(2, *[4] * 10))
    last = through(1, 32, 8)[-1]
    few = [SlotRow(tokens[at], slot, at, (slot, slot + 3)) for slot, at in enumerate((9, 39, 2))]
    mixed = model.run(few)
    same = np.array_equal(alone, eights), np.array_equal(alone, fours)
    same += np.array_equal(alone[32:], last), np.array_equal(alone[[9, 39, 2]], mixed)
    print(path.stem, *same)
"""


@pytest.mark.soak
def test_a_tokens_numbers_are_the_same_in_every_pass(tmp_path: Path, cache: Path) -> None:
    for name in ALWAYS:
        family = FAMILIES[name]
        write_family(tmp_path / f"{name}.gguf", family, weights_of(family, seed=6))
    tokens = [int(it) for it in np.random.default_rng(2).integers(0, WORDS - 3, 40)]
    found = run(tmp_path, cache, ",".join(map(str, tokens)), program=BITS)
    expected = [f"{name} True True True True" for name in ALWAYS]
    assert sorted(found.splitlines()) == sorted(expected)
