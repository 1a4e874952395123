"""How a text is cut into words before pairs of bytes are joined, by `tokenizer.ggml.pre`. Pure.

Each row has the expressions that its model's maker published; they are applied one after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wire.errors import ModelRefused

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _WORDS + r"\p{N}{1,3}" + _REST
_QWEN2 = _WORDS + r"\p{N}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES


def _by_case(after: str, digits: str) -> str:
    """Words end where lower case is followed by upper case."""
    words = f"{_BEFORE}{_UPPER}*{_LOWER}+{after}|{_BEFORE}{_UPPER}+{_LOWER}*{after}"
    return f"{words}|{digits}{_SIGNS}"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`whole_words`: a word that is a token is taken as it is. `begins`: texts have a beginning."""

    cuts: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3"),
        PreTokenizer((_LLAMA3,), whole_words=True, begins=True),
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe"), PreTokenizer((_LLAMA3,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), PreTokenizer((_QWEN2,))),
    **dict.fromkeys(("gpt-2", "olmo", "granite-docling"), PreTokenizer((_GPT2,))),
    **dict.fromkeys(("smollm", "refact"), PreTokenizer((r"\p{N}", _GPT2))),
    "gpt-4o": PreTokenizer((_by_case(f"{_ENGLISH}?", r"\p{N}{1,3}"),)),
    "tekken": PreTokenizer((_by_case("", r"\p{N}"),), whole_words=True, begins=True),
}
PAIRS, PIECES = "gpt2", "llama"


def check_tokenizer(where: str, metadata: Mapping[str, Any]) -> None:
    """ModelRefused, by name, for a table of tokens that is of no kind that is run."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in (PAIRS, PIECES):
        raise ModelRefused(f"{where}: a tokenizer of the kind {str(kind)[:40]!r} is not run")
    cut = metadata.get("tokenizer.ggml.pre")
    if kind == PAIRS and not (isinstance(cut, str) and cut in PRE_TOKENIZERS):
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise ModelRefused(f"{where}: texts are cut as {str(cut)[:40]!r}; run here: {known}")
    if not isinstance(metadata.get("tokenizer.ggml.tokens"), list):
        raise ModelRefused(f"{where}: tokenizer.ggml.tokens is not a list as it should be")
