"""Texts are cut into words as the expressions say that models' makers published.

The pieces were worked out by hand from the expressions, one alternative after the other.
"""

from pathlib import Path

import pytest

from node.engines.formats.gguf import describe
from node.engines.formats.pretokenizers import PRE_TOKENIZERS
from node.engines.worker.gguf_tokens import TokenTable, read_table
from tests.engines import tiny_gguf
from tests.engines.families import FAMILIES, weights_of, write_family
from tests.engines.tiny_gguf import TINY, write_gguf

WORDS = "HelloWorld ABCdef IT'S don't 12345 x"
SIGNS = "a/b\n\n  c// ?\n/ \u00c9cole \u4f60\u597d x\u0301y"
BY_CASE = ["a", "/b", "\n\n", " ", " c", "//", " ?\n/", " \u00c9cole", " \u4f60\u597d", " x\u0301y"]
BY_LETTERS = [*BY_CASE[:6], " ?\n", "/", *BY_CASE[7:9], " x", "\u0301y"]
GPT2_SIGNS = [
    *("a", "/", "b", "\n\n ", " c", "//", " ?", "\n", "/"),
    *(" \u00c9cole", " \u4f60\u597d", " x", "\u0301", "y"),
]
DIGITS = ["1", "2", "3", "4", "5"]
CASES = {
    "tekken": (
        ["Hello", "World", " ABCdef", " IT", "'S", " don", "'t", " ", *DIGITS, " x"],
        BY_CASE,
    ),
    "gpt-4o": (
        ["Hello", "World", " ABCdef", " IT'S", " don't", " ", "123", "45", " x"],
        BY_CASE,
    ),
    "dbrx": (
        ["HelloWorld", " ABCdef", " IT", "'S", " don", "'t", " ", "123", "45", " x"],
        BY_LETTERS,
    ),
    "qwen2": (
        ["HelloWorld", " ABCdef", " IT", "'S", " don", "'t", " ", *DIGITS, " x"],
        BY_LETTERS,
    ),
    "olmo": (
        ["HelloWorld", " ABCdef", " IT", "'", "S", " don", "'t", " 12345", " x"],
        GPT2_SIGNS,
    ),
    "refact": (
        ["HelloWorld", " ABCdef", " IT", "'", "S", " don", "'t", " ", *DIGITS, " x"],
        GPT2_SIGNS,
    ),
}
ALIKE = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "smaug-bpe"), "dbrx"),
    **dict.fromkeys(("gpt-2", "granite-docling"), "olmo"),
    "smollm": "refact",
    "deepseek-r1-qwen": "qwen2",
}


def pieces(table: TokenTable, text: str) -> list[str]:
    """What the text is cut into, as text again."""
    letters = {letter: byte for byte, letter in tiny_gguf.byte_letters().items()}
    cut = table.pairs.pre_tokenizer.pre_tokenize_str(text)
    return [bytes(letters[letter] for letter in piece).decode() for piece, _ in cut]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_texts_are_cut_as_published(name: str, tmp_path: Path) -> None:
    words, signs = CASES[ALIKE.get(name, name)]
    table = read_table(describe(write_gguf(tmp_path / "m.gguf", cut=name)))
    assert pieces(table, WORDS) == words
    assert pieces(table, SIGNS) == signs


@pytest.mark.parametrize(
    ("cut", "whole"), [("tekken", True), ("llama-bpe", True), ("smaug-bpe", False)]
)
def test_a_word_that_is_a_token_is_taken_whole_where_the_models_maker_does(
    cut: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [tiny_gguf.byte_letters()[byte] for byte in range(256)]
    others = [f"other{at}" for at in range(TINY[5] - 261)]
    names = [*letters, "qx", "words", *others, *tiny_gguf.SPECIAL]
    # No pair of these words is ever joined: only who takes words as they are finds the token.
    monkeypatch.setattr(tiny_gguf, "bpe", lambda *_: (names, ["q x"]))
    table = read_table(describe(write_gguf(tmp_path / "m.gguf", cut=cut)))
    assert table.pairs.encode("words").tokens == (["words"] if whole else list("words"))
    assert table.pairs.encode("wordsqx").tokens == [*"words", "qx"]


@pytest.mark.parametrize(("family", "begins"), [("mistral", True), ("phi 4 mini", False)])
def test_a_text_has_a_beginning_where_the_file_says_nothing_and_the_maker_does(
    family: str, begins: bool, tmp_path: Path
) -> None:
    made = FAMILIES[family]
    path = write_family(tmp_path / "m.gguf", made, weights_of(made, seed=0))
    table = read_table(describe(path))
    assert table.begins == begins
    assert (table.of("a")[0] == table.begin) == begins
