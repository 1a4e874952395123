"""The table of tokens in a GGUF file: texts to tokens, tokens to bytes; worker only.

The two kinds that the run families have: byte-level pairs (`gpt2`) and pieces with scores
(`llama`). The table may come from anybody: whatever it says is checked when it is read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from node.engines.formats.gguf_model import GgufModel
from node.engines.formats.pretokenizers import PIECES, PRE_TOKENIZERS, check_tokenizer
from wire.errors import ModelRefused

TOKEN_BYTES_MAX = 256
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
SPACE = "\u2581"
# Files name one end only, and some another than that of a turn: it is found by its name.
ENDS = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>"),
        *("<|end_of_text|>", "<|eot|>", "<|eom|>", "<|return|>", "<|call|>", "<|end_of_turn|>"),
        *("<|END_OF_TURN_TOKEN|>", "<turn|>", "<|end_of_sentence|>", "<|role_end|>", "<EOT>"),
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    )
)
# What is a control token whatever type the file gives it: no text of a person has such a piece.
_CONTROL = re.compile(r"<[|\uff5c][^<>|\uff5c\s]{1,64}[|\uff5c]>")
_CONTROL_NAMES = ENDS | {"<start_of_turn>", "[INST]", "[/INST]", "<|turn>"}
# What is one where the file has no types at all.
_PLAIN_NAMES = frozenset(("<s>", "</s>", "<bos>", "<eos>", "<unk>", "<pad>"))
# Numbers by which files say that they have no such token.
_NONE = (-1, (1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class TokenTable:
    """`texts` has the bytes of every token, none for special ones; `ends` end an answer."""

    pairs: Tokenizer
    names: Sequence[str]
    texts: Sequence[bytes]
    special: frozenset[int]
    control: frozenset[int]
    ends: frozenset[int]
    begin: int | None
    begins: bool

    def of(self, text: str) -> list[int]:
        """The tokens of a text; the names of special tokens in it are those tokens."""
        found = list(self.pairs.encode(text, add_special_tokens=False).ids)
        if self.begins and self.begin is not None and found[:1] != [self.begin]:
            found.insert(0, self.begin)
        return found

    @property
    def controls(self) -> list[str]:
        """The names of the tokens that no text of a person may become."""
        return [self.names[it] for it in sorted(self.control)]

    def of_parts(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """The tokens of a prompt in parts, each with whether it is a control token's name."""
        found: list[int] = []
        for text, is_control in parts:
            if is_control:
                found += self.pairs.encode(text, add_special_tokens=False).ids
            else:
                found += self._plain(text)
        if self.begins and self.begin is not None and found[:1] != [self.begin]:
            found.insert(0, self.begin)
        return found

    def _plain(self, text: str) -> list[int]:
        self.pairs.encode_special_tokens = True
        try:
            found: list[int] = []
            for token in self.pairs.encode(text, add_special_tokens=False).ids:
                if token not in self.control:
                    found.append(token)
                    continue
                # A table may join ordinary letters to a control token: they stay letters.
                for letter in self.names[token]:
                    ids = self.pairs.encode(letter, add_special_tokens=False).ids
                    found += [it for it in ids if it not in self.control]
            return found
        finally:
            self.pairs.encode_special_tokens = False

    def with_ending(self, text: str) -> "TokenTable":
        """This table, with the token as an end by which the model's template ends an answer."""
        known = [it for it in self.control if text.startswith(self.names[it])]
        if not known:
            return self
        ending = max(known, key=lambda it: len(self.names[it]))
        return replace(self, ends=self.ends | {ending})

    def name(self, token: int | None) -> str:
        return "" if token is None else self.names[token]


def read_table(model: GgufModel) -> TokenTable:
    """The table of a model; ModelRefused says what is wrong with it."""
    where = model.path.name
    names = _list(model, "tokens", str, 1, model.vocabulary)
    count = len(names)
    kinds = _kinds(model, names)
    if len(set(names)) != count:
        raise ModelRefused(f"{where}: a token occurs twice in its table")
    check_tokenizer(where, model.metadata)
    kind = model.metadata["tokenizer.ggml.model"]
    pairs, texts = (_pieces if kind == PIECES else _byte_level)(model, names, kinds)
    special = frozenset(at for at, it in enumerate(kinds) if it in (UNKNOWN, CONTROL, UNUSED))
    texts = [b"" if at in special else text for at, text in enumerate(texts)]
    if max(map(len, texts)) > TOKEN_BYTES_MAX:
        raise ModelRefused(f"{where}: a token of more than {TOKEN_BYTES_MAX} bytes")
    marked = [
        AddedToken(name, special=kinds[at] == CONTROL, normalized=False)
        for at, name in enumerate(names)
        if kinds[at] in (CONTROL, USER) and name
    ]
    pairs.add_tokens(marked)
    if pairs.get_vocab_size(with_added_tokens=True) != count:
        raise ModelRefused(f"{where}: its special tokens are not in its table")
    control = frozenset(at for at, it in enumerate(kinds) if it == CONTROL)
    ends = {at for at in control if names[at] in ENDS}
    ends |= {at for key in ("eos", "eot", "eom") if (at := _token(model, key, count)) is not None}
    if not ends:
        raise ModelRefused(f"{where} names no token that ends an answer")
    return TokenTable(
        pairs=pairs,
        names=names,
        texts=texts,
        special=special,
        # What ends an answer is no text either, whatever its type.
        control=control | ends,
        ends=frozenset(ends),
        begin=_token(model, "bos", count),
        begins=_begins(model, kind),
    )


def _kinds(model: GgufModel, names: list[str]) -> list[int]:
    """The type of each token, by the file and by its name."""
    count = len(names)
    typed = "tokenizer.ggml.token_type" in model.metadata
    kinds = _list(model, "token_type", int, count, count, [NORMAL] * count)
    marks = _CONTROL_NAMES if typed else _CONTROL_NAMES | _PLAIN_NAMES
    ends = {_token(model, key, count) for key in ("bos", "eos", "eot", "eom")}
    for at, name in enumerate(names):
        if kinds[at] not in (NORMAL, USER):
            continue
        if not typed and re.fullmatch("<0x[0-9A-F]{2}>", name):
            kinds[at] = BYTE
        elif not typed and name == "<unk>":
            kinds[at] = UNKNOWN
        elif name and (at in ends or name in marks or _CONTROL.fullmatch(name)):
            kinds[at] = CONTROL
    return kinds


def _byte_level(
    model: GgufModel, names: list[str], kinds: list[int]
) -> tuple[Tokenizer, list[bytes]]:
    cut = PRE_TOKENIZERS[model.metadata["tokenizer.ggml.pre"]]
    numbers = {name: at for at, name in enumerate(names)}
    merges = []
    for line in _list(model, "merges", str, 0, 1 << 20):
        left, _, right = line.partition(" ")
        if not (left in numbers and right in numbers and left + right in numbers):
            raise ModelRefused(f"{model.path.name}: the pair {line[:40]!r} is not in its table")
        merges.append((left, right))
    # Where a whole word is a token it is taken as it is, by the same file format's own program.
    pairs = Tokenizer(BPE(numbers, merges, ignore_merges=cut.whole_words))
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(it), "isolated") for it in cut.cuts),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    letters = _letters()
    texts = []
    for name, kind in zip(names, kinds, strict=True):
        plain = kind == NORMAL and all(letter in letters for letter in name)
        texts.append(bytes(letters[letter] for letter in name) if plain else name.encode())
    return pairs, texts


def _pieces(model: GgufModel, names: list[str], kinds: list[int]) -> tuple[Tokenizer, list[bytes]]:
    count = len(names)
    scores = _list(model, "scores", float, count, count)
    numbers = {name: at for at, name in enumerate(names)}
    found = []
    for at, name in enumerate(names):
        if kinds[at] != NORMAL or len(name) > TOKEN_BYTES_MAX:
            continue
        for cut in range(1, len(name)):
            left, right = name[:cut], name[cut:]
            if left in numbers and right in numbers:
                found.append((-scores[at], -len(left), -len(right), left, right))
    # The best piece is joined first.
    found.sort(key=lambda it: it[:3])
    unknown = next((names[at] for at in range(count) if kinds[at] == UNKNOWN), None)
    merges = [(left, right) for *_, left, right in found]
    pairs = Tokenizer(BPE(numbers, merges, unk_token=unknown, byte_fallback=True, fuse_unk=True))
    spaces: list[Any] = [normalizers.Replace(" ", SPACE)]
    if model.metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(SPACE))
    pairs.normalizer = normalizers.Sequence(spaces)
    texts = []
    for name, kind in zip(names, kinds, strict=True):
        if kind == BYTE:
            if len(name) != 6 or not name.startswith("<0x"):
                raise ModelRefused(f"{model.path.name}: the byte {name[:20]!r} is none")
            texts.append(bytes.fromhex(name[3:5]))
        else:
            texts.append(name.replace(SPACE, " ").encode())
    return pairs, texts


def _letters() -> dict[str, int]:
    """The byte that each letter of a byte-level table stands for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): it for n, it in enumerate(others)}


def _list(
    model: GgufModel, name: str, kind: type, least: int, most: int, default: Any = None
) -> list[Any]:
    found = model.metadata.get(f"tokenizer.ggml.{name}", default)
    right = isinstance(found, list) and least <= len(found) <= most
    if not right or any(type(item) is not kind for item in found):
        raise ModelRefused(
            f"{model.path.name}: tokenizer.ggml.{name} is not a list as it should be"
        )
    return list(found)


def _token(model: GgufModel, name: str, count: int) -> int | None:
    found = model.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if found is None or found in _NONE:
        return None
    if type(found) is not int or not 0 <= found < count:
        raise ModelRefused(f"{model.path.name}: its token {name} is {found!r}, which it lacks")
    return found


def _begins(model: GgufModel, kind: str) -> bool:
    said = model.metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(said, bool):
        return said
    return kind == PIECES or PRE_TOKENIZERS[model.metadata["tokenizer.ggml.pre"]].begins
