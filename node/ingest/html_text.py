"""The words of an HTML page, without what is not shown: one paragraph or line of a list a line.

The door to lxml; it is imported in the parse worker alone.
"""

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree, html

from wire.errors import Malformed

_UNSEEN = frozenset({"script", "style", "noscript", "template", "head", "svg", "iframe", "object"})
_PARAGRAPHS = frozenset(
    (
        *("p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "table", "ul", "ol", "dl"),
        *("section", "article", "header", "footer", "nav", "main", "aside", "form", "hr", "figure"),
    )
)
_LINES = frozenset({"br", "li", "tr", "div", "dt", "dd", "caption", "option", "figcaption"})
_BLANKS = re.compile(r"[ \t\r\f\v\xa0\n]+")
_LINE_ENDS = re.compile(r" *\n *")
_EMPTY_LINES = re.compile(r"\n{3,}")


def text_of_html(body: bytes, select: str, encoding: str) -> str:
    """The text of a page, or of the parts that the XPath `select` names; Malformed if none."""
    try:
        parser = html.HTMLParser(
            encoding=encoding or None, remove_comments=True, remove_pis=True, no_network=True
        )
        root = html.document_fromstring(body, parser=parser)
    except (etree.LxmlError, LookupError, ValueError) as error:
        raise Malformed(f"it is not HTML: {error}") from error
    if not select:
        return _tidied("".join(_pieces(root)))
    try:
        found = root.xpath(select)
    except (etree.LxmlError, ValueError) as error:
        raise Malformed(f"{select!r} is no XPath: {error}") from error
    parts = found if isinstance(found, list) else [found]
    if not parts:
        raise Malformed(f"{select!r} selects nothing of it")
    texts = ["".join(_pieces(it)) if isinstance(it, etree._Element) else str(it) for it in parts]
    return _tidied("\n\n".join(texts))


def _pieces(root: Any) -> Iterator[str]:
    """The words below an element in order, with line ends where a browser would begin a line."""
    unseen = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = element.tag if isinstance(element.tag, str) else ""
        if tag in _UNSEEN:
            unseen += 1 if event == "start" else -1
        elif not unseen:
            if tag in _PARAGRAPHS:
                yield "\n\n"
            elif tag in _LINES and event == "start":
                yield "\n"
            elif tag in ("td", "th") and event == "end":
                yield " "
        words = element.text if event == "start" else element.tail
        # What follows the outermost element is no part of it.
        if words and not unseen and (event == "start" or element is not root):
            yield _BLANKS.sub(" ", words)


def _tidied(text: str) -> str:
    lined = _LINE_ENDS.sub("\n", re.sub(r" {2,}", " ", text))
    return _EMPTY_LINES.sub("\n\n", lined).strip()
