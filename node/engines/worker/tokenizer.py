"""Texts to tokens, with the model's own table; foreign errors become ours here.

A table may come from anybody: its size is bounded, and a token beyond the model's vocabulary is
found when it is read, not when it is used.
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from wire.errors import ModelRefused

FILE_BYTES_MAX = 32 << 20
# What WordPiece needs: the word that is not known, and the marks at both ends.
_MARKS = ("[UNK]", "[CLS]", "[SEP]")


class Tokens:
    """Makes at most `tokens_max` tokens of a text; what lies beyond is not seen by the model."""

    def __init__(self, table: Tokenizer, tokens_max: int, vocabulary: int) -> None:
        self._table = table
        self._tokens_max = tokens_max
        self._vocabulary = vocabulary
        marks = list(table.encode("").ids)
        middle = (len(marks) + 1) // 2
        self._before, self._after = marks[:middle], marks[middle:]

    def of(self, texts: Sequence[str | list[int]]) -> list[list[int]]:
        """The tokens of each text, the marks the model wants at both ends included.

        A text may be given as its tokens, without the marks.
        """
        found = iter(self._table.encode_batch([it for it in texts if isinstance(it, str)]))
        return [list(next(found).ids) if isinstance(it, str) else self._marked(it) for it in texts]

    def of_pairs(self, pairs: Sequence[Sequence[str]]) -> tuple[list[list[int]], list[list[int]]]:
        """The tokens of each query and text together, and of which of the two each token is.

        Where both are too long for the model, the longer one is cut.
        """
        found = self._table.encode_batch([(query, text) for query, text in pairs])
        return [list(it.ids) for it in found], [list(it.type_ids) for it in found]

    def _marked(self, tokens: list[int]) -> list[int]:
        room = self._tokens_max - len(self._before) - len(self._after)
        return [*self._before, *tokens[:room], *self._after]

    def has(self, text: str | list[int]) -> bool:
        """Whether the model knows all tokens of a text that is given as those."""
        return isinstance(text, str) or all(0 <= it < self._vocabulary for it in text)


def read_tokens(path: Path, *, tokens_max: int, vocabulary: int) -> Tokens:
    """Read a `tokenizer.json`; ModelRefused if it is none or knows more than `vocabulary` words."""
    if (size := path.stat().st_size) > FILE_BYTES_MAX:
        raise ModelRefused(f"{path.name} has {size} bytes, at most {FILE_BYTES_MAX} are read")
    table = tokenizer_of(path.read_bytes(), path.name, tokens_max=tokens_max)
    words = table.get_vocab(with_added_tokens=True)
    if not words or max(words.values()) >= vocabulary:
        raise ModelRefused(f"{path.name} has tokens beyond the model's {vocabulary} words")
    return Tokens(table, tokens_max, vocabulary)


def tokenizer_of(data: bytes, name: str, *, tokens_max: int) -> Tokenizer:
    """The table of a `tokenizer.json`, which cuts what is too long; ModelRefused if it is none."""
    try:
        table = Tokenizer.from_buffer(data)
    # The library raises a bare Exception for every file it cannot read, so there is nothing
    # narrower to catch. Nothing is cancelled in here: only the worker, which has no loop, calls.
    except Exception as error:
        raise ModelRefused(f"{name} is not a tokenizer: {str(error)[:200]}") from error
    # With it (BPE alone has it) the same text has other tokens each time: whoever checks would find
    # other ones than an honest peer signed for.
    if getattr(table.model, "dropout", None):
        raise ModelRefused(f"{name} makes other tokens of one text each time: it has a dropout")
    return _cutting(table, name, tokens_max)


def wordpiece_of(data: bytes, *, lowercase: bool, tokens_max: int) -> Tokenizer:
    """The table of a `vocab.txt`, a word a line, as BERT's first models have it; ModelRefused."""
    try:
        words = [it.rstrip("\r") for it in data.decode().removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise ModelRefused(f"the table is no UTF-8 text (byte {error.start})") from error
    places = {word: number for number, word in enumerate(words)}
    if missing := [it for it in _MARKS if it not in places]:
        raise ModelRefused(f"the table is no list of words of WordPiece: it has no {missing[0]}")
    table = Tokenizer(WordPiece(places, unk_token=_MARKS[0]))
    table.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    table.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    begin, end = ((it, places[it]) for it in _MARKS[1:])
    table.post_processor = processors.BertProcessing(end, begin)
    return _cutting(table, "the table", tokens_max)


def _cutting(table: Tokenizer, name: str, tokens_max: int) -> Tokenizer:
    """The table, made to cut what is too long; ModelRefused where no word has room."""
    table.no_padding()
    if (marks := table.num_special_tokens_to_add(is_pair=False)) >= tokens_max:
        raise ModelRefused(f"{name} adds {marks} marks to a text, and {tokens_max} is the length")
    table.enable_truncation(max_length=tokens_max)
    return table
