"""Text cut into passages, at the places where a reader would pause. Pure."""

import re
from collections.abc import Iterator

from wire import limits

# all-MiniLM-L6-v2 reads 256 tokens, about a thousand characters of English.
PASSAGE_CHARS = 700

# A heading: a line of words above a line of one repeated sign.
_HEADING = re.compile(r"[^\n]+\n([=*~^\"-])\1{2,}\s*")
_BLANK = re.compile(r"\n[ \t]*\n+")
_WRITTEN = re.compile(r"\S")


def cut(text: str, chars: int = PASSAGE_CHARS) -> list[str]:
    """Cut text into passages of about `chars` characters, at blank lines where that is possible.

    Short paragraphs are joined, long ones are cut at spaces, a heading stays with what follows it;
    nothing is left out but blank space.
    """
    passages: list[str] = []
    current = ""
    for paragraph in _BLANK.split(text):
        for part in _parts(paragraph.strip(), chars):
            full = len(current) + 2 + len(part) > chars
            alone = _HEADING.fullmatch(current) is not None
            if current and not alone and (full or _HEADING.match(part)):
                passages.append(current)
                current = ""
            current = f"{current}\n\n{part}" if current else part
    if current:
        passages.append(current)
    assert all(len(it.encode()) <= limits.PASSAGE_BYTES_MAX for it in passages)
    return passages


def _parts(paragraph: str, chars: int) -> Iterator[str]:
    """The parts of a paragraph that has no blanks around it. The remainder is never copied."""
    start = 0
    while len(paragraph) - start > chars:
        at = paragraph.rfind(" ", start + chars // 2, start + chars)
        at = at if at > start else start + chars
        yield paragraph[start:at].rstrip()
        further = _WRITTEN.search(paragraph, at)
        assert further is not None, "the paragraph ends with a letter"
        start = further.start()
    if paragraph:
        yield paragraph[start:]
