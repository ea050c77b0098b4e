"""The text part of an e-mail, derived from its HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from templates.markup import VOID, WORD, Aside

_HIDDEN = frozenset({"head", "style", "script", "title", "template"})
_PARAGRAPHS = frozenset(
    {"p", "ul", "ol", "table", "blockquote", "pre", "section", "article", "h1", "h2", "h3", "h4", "h5", "h6"}
)
_LINES = frozenset({"div", "tr", "li", "header", "footer", "dt", "dd", "center"})
_BREAK, _GAP = "\0", "\1"


def text_from_html(document: str, aside: Aside) -> str:
    """Return the document as plain text: links as "text (url)", paragraphs apart, list items with a dash.

    What is hidden by display:none (a preheader) is left out, as are images without alternative text.

    Args:
        document: HTML whose Jinja constructs are put aside; they are kept where they stand.
        aside: The constructs, to tell expressions from statements.
    """
    converter = _Converter(aside)
    converter.feed(document)
    converter.close()
    text = re.sub(r"[ \t\r\n]+", " ", "".join(converter.out))
    text = re.sub(rf" ?[{_BREAK}{_GAP} ]*{_GAP}[{_BREAK}{_GAP} ]*", "\n\n", text)
    return re.sub(rf" ?{_BREAK}[{_BREAK} ]*", "\n", text).strip() + "\n"


class _Converter(HTMLParser):
    def __init__(self, aside: Aside) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._aside = aside
        self._hidden: list[str] = []
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if self._hidden or tag in _HIDDEN or re.search(r"display\s*:\s*none", values.get("style", "")):
            if tag not in VOID:
                self._hidden.append(tag)
            return
        if tag == "a":
            self._links.append((values.get("href", "").strip(), len(self.out)))
        elif tag == "img" and values.get("alt"):
            self.out.append(values["alt"])
        elif tag in ("br", "hr"):
            self.out.append(_BREAK)
        elif tag in ("td", "th"):
            self.out.append(" ")
        else:
            self._border(tag)
            if tag == "li":
                self.out.append("- ")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag in self._hidden:
                del self._hidden[len(self._hidden) - 1 - self._hidden[::-1].index(tag) :]
            return
        if tag == "a" and self._links:
            href, start = self._links.pop()
            label = "".join(self.out[start:]).strip()
            if href and not href.startswith("#") and label != href:
                self.out.append(f" ({href})" if label else href)
        self._border(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.out.append(data)

    def handle_comment(self, data: str) -> None:
        if not self._hidden and WORD.fullmatch(data):
            self.out.append(data)

    def _border(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.out.append(_GAP)
        elif tag in _LINES:
            self.out.append(_BREAK)
