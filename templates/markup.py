"""HTML and MJML with Jinja in it: prepared once, so that only filling in is left for each message.

Jinja constructs are put aside as short words that HTML and MJML tools carry through unharmed, the document is
compiled (MJML), inlined (CSS) and its links are given slots, then the constructs are put back. Each construct stands
on lines of its own (a line break inside the delimiters prints nothing), so that an error at rendering is told with the
file and line its author knows.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kernel.documents import did_you_mean
from kernel.errors import InputError, Problem
from templates.links import BadLink, is_web_link, target_of
from templates.problems import Place, problem_at, refused
from templates.sources import Piece

WORD = re.compile(r"zqj(\d+)jqz")
"""How a construct that was put aside looks."""
_ASIDE = re.compile(r'<!--zqj(\d+)jqz-->|zqj(\d+)jqz=""|zqj(\d+)jqz')
_APART = re.compile(r"(\{[{%][-+]?)(.*)([-+]?[%}]\}\s*)", re.DOTALL)
_NOTE = re.compile(r"<!--(?!\[if|<!\[endif|\s*<!\[endif)(?!>).*?-->", re.DOTALL)
_TAG = re.compile(r"<!--.*?-->|<(/?)([a-zA-Z][\w:.-]*)((?:[^>\"']|\"[^\"]*\"|'[^']*')*)>", re.DOTALL)
_LINK = re.compile(r"""(?<=[\s"'])(href|src)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""", re.IGNORECASE)
_NO_LINKS = ("link", "base", "mj-font", "mj-include", "mj-attributes", "mj-all", "mj-class")
_RAW = ("style", "title", "script", "textarea", "mj-style", "mj-title", "mj-preview")
_LAYOUT = ("mjml", "mj-head", "mj-body", "mj-wrapper", "mj-section", "mj-group", "mj-column", "mj-hero")
_MJML_TAGS = frozenset(
    f"mj-{name}"
    for name in (
        *("head", "attributes", "all", "class", "breakpoint", "font", "html-attributes", "html-attribute", "selector"),
        *("preview", "style", "title", "body", "accordion", "accordion-element", "accordion-title", "accordion-text"),
        *("button", "carousel", "carousel-image", "column", "divider", "group", "hero", "image", "navbar"),
        *("navbar-link", "raw", "section", "social", "social-element", "spacer", "table", "text", "wrapper"),
    )
) | {"mjml"}
VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
"""Elements that have no end tag."""
_PREAMBLE = ("set", "import", "from", "macro", "endmacro", "endset")


@dataclass(slots=True)
class Aside:
    """The constructs put aside, and the links given slots."""

    constructs: list[Piece] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    """Name of the variable that holds the signed link, by the link as written."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Content ids of the images that lie beside the template, by "images/" and their names."""
    shown: set[str] = field(default_factory=set)
    """Those of them that the document names."""

    def put(self, piece: Piece) -> str:
        """Put a construct aside and return its word."""
        self.constructs.append(piece)
        return f"zqj{len(self.constructs) - 1}jqz"

    def slot(self, url: str, place: Place) -> str:
        """Return the word of an expression that prints the signed link to the URL."""
        name = self.links.setdefault(url, f"_link{len(self.links)}")
        return self.put(Piece("{{ " + name + " }}", place, "{{"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole document whose constructs are put aside."""

    text: str
    aside: Aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Jinja source, and for its lines the place they were written at."""

    text: str
    places: Mapping[int, Place]


def document(pieces: Sequence[Piece], *, path: str, language: str, images: Mapping[str, str] | None = None) -> Document:
    """Return the HTML document of a body's pieces: compiled, its styles inlined, its fixed links given slots.

    Args:
        pieces: The resolved pieces of body.html or body.mjml.
        path: The body's file; its ending tells which of the two it is.
        language: BCP 47, for the document's lang attribute.
        images: Content ids by what the source of an image that comes with the message may be.

    Raises:
        InputError: links no message may carry, MJML that does not parse.
    """
    aside = Aside(images=images or {})
    if path.endswith(".mjml"):
        return _compiled(pieces, aside, path, language)
    text = _NOTE.sub("", _linked(pieces, aside))
    if "<html" not in text.lower():
        head = '<meta http-equiv="Content-Type" content="text/html; charset=utf-8">'
        text = f'<!DOCTYPE html>\n<html lang="{language}"><head>{head}</head><body>\n{text}\n</body></html>\n'
    if "<style" in text.lower():
        text = _inlined(_shielded(text, aside, {}), path)
    return Document(text=text, aside=aside)


def fragment(pieces: Sequence[Piece], images: Mapping[str, str] | None = None) -> Document:
    """Return a file that is imported for its macros: links tracked as each message is filled in."""
    aside = Aside(images=images or {})
    return Document(text=_linked(pieces, aside, slots=False), aside=aside)


def plain(pieces: Sequence[Piece]) -> Source:
    """Return the source of a text: its pieces put together, with their places."""
    aside = Aside()
    return with_constructs(
        Document(text="".join(aside.put(piece) if piece.keyword else piece.text for piece in pieces), aside=aside)
    )


def with_constructs(document: Document) -> Source:
    """Return the document with its constructs put back, each on a line of its own."""
    out: list[str] = []
    places: dict[int, Place] = {}
    line, end = 1, 0
    for found in _ASIDE.finditer(document.text):
        before = document.text[end : found.start()]
        line += before.count("\n")
        piece = document.aside.constructs[int(found[1] or found[2] or found[3])]
        code = _APART.sub(r"\1\n\2\n\3", piece.text)
        places[line] = piece.place
        for offset in range(piece.text.count("\n") + 1):
            places[line + 1 + offset] = Place(piece.place.path, piece.place.line + offset)
        line += code.count("\n")
        out += (before, code)
        end = found.end()
    out.append(document.text[end:])
    return Source(text="".join(out), places=places)


# --- links -------------------------------------------------------------------------------------------------


def _linked(pieces: Sequence[Piece], aside: Aside, *, slots: bool = True) -> str:
    """Return the text with constructs put aside and every link checked and made to be tracked."""
    starts: list[tuple[int, Place]] = []
    out: list[str] = []
    length = 0
    for piece in pieces:
        if not piece.keyword and WORD.search(piece.text):
            raise refused(piece.place, "the text holds a word Carillon needs for itself: zqj…jqz")
        starts.append((length, piece.place))
        out.append(aside.put(piece) if piece.keyword else piece.text)
        length += len(out[-1])
    text = "".join(out)
    writer = _LinkWriter(text, starts, aside, slots=slots)
    linked = _TAG.sub(writer.tag, text)
    if writer.problems:
        raise InputError(writer.problems)
    return linked


class _LinkWriter:
    def __init__(self, text: str, starts: list[tuple[int, Place]], aside: Aside, *, slots: bool) -> None:
        self.problems: list[Problem] = []
        self._text = text
        self._starts = starts
        self._aside = aside
        self._slots = slots

    def tag(self, found: re.Match[str]) -> str:
        if found[2] is None:  # A comment: Outlook's conditional ones hold tags of their own.
            return "<!--" + _TAG.sub(self.tag, found[0][4:]) if found[0].startswith("<!--[if") else found[0]
        if found[1] or found[2].lower() in _NO_LINKS:
            return found[0]
        place = self._place(found.start())
        attributes = _LINK.sub(lambda link: self._attribute(link, place), found[3])
        return f"<{found[2]}{attributes}>"

    def _place(self, offset: int) -> Place:
        start, place = next((item for item in reversed(self._starts) if item[0] <= offset), self._starts[0])
        return Place(place.path, place.line + self._text.count("\n", start, offset))

    def _attribute(self, found: re.Match[str], place: Place) -> str:
        name, value = found[1].lower(), found[2]
        value = value[1:-1] if value[0] in "\"'" else value
        try:
            if name == "src":
                return self._source(found[0], html.unescape(value).strip())
            return f'{name}="{self._link(value, place)}"'
        except BadLink as error:
            self.problems.append(
                problem_at(place, str(error), "links may be https, http, mailto, tel, sms or #anchors")
            )
            return found[0]

    def _source(self, attribute: str, url: str) -> str:
        if url in self._aside.images:
            self._aside.shown.add(url)
            return f'src="cid:{self._aside.images[url]}"'
        _check_source(url)
        return attribute

    def _link(self, value: str, place: Place) -> str:
        url = html.unescape(value).strip()
        written = WORD.split(url, maxsplit=1)[0]
        if written == url:
            if not is_web_link(url):
                return value
            target_of(url, {})
            return self._aside.slot(url, place) if self._slots else self._filtered(value, place)
        if re.match(r"(mailto|tel|sms):|#", url, re.IGNORECASE):
            return value
        if ":" in written:
            is_web_link(written)
        return self._filtered(value, place)

    def _filtered(self, value: str, place: Place) -> str:
        opened = self._aside.put(Piece("{% filter _link %}", place, "filter"))
        closed = self._aside.put(Piece("{% endfilter %}", place, "endfilter"))
        return opened + value + closed


def _check_source(url: str) -> None:
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", url)
    if scheme and scheme[1].lower() not in ("https", "http", "cid"):
        raise BadLink(f"an image's address may not begin with {scheme[1].lower()}: (use https or cid)")
    if scheme or (WORD.search(url) and not url.startswith("images/")):
        return
    if url.startswith("images/"):
        raise BadLink(f"the image {url!r} does not lie beside the template (its name must be written out)")
    raise BadLink(f"the image {url!r} has no https:// in front")


# --- CSS and MJML ------------------------------------------------------------------------------------------


def _shielded(text: str, aside: Aside, wrappers: Mapping[str, str]) -> str:
    """Return the document with every construct that stands among elements in a comment, so that parsers leave it there.

    Args:
        text: The document.
        aside: Its constructs.
        wrappers: For elements that take no comments, what to put around one; "{}" is the comment.
    """
    out: list[str] = []
    stack: list[str] = []
    end = 0

    def hidden(found: re.Match[str]) -> str:
        parent = stack[-1] if stack else ""
        if parent in _RAW:
            return found[0]
        if parent in wrappers:
            return wrappers[parent].format(f"<!--{found[0]}-->")
        expression = aside.constructs[int(found[1])].keyword == "{{"
        return found[0] if expression and wrappers else f"<!--{found[0]}-->"

    for tag in _TAG.finditer(text):
        out.append(WORD.sub(hidden, text[end : tag.start()]))
        out.append(tag[0])
        end = tag.end()
        name = (tag[2] or "").lower()
        if not name:
            continue
        if tag[1]:
            if name in stack:
                del stack[len(stack) - 1 - stack[::-1].index(name) :]
        elif not tag[3].rstrip().endswith("/") and name not in VOID:
            stack.append(name)
    out.append(WORD.sub(hidden, text[end:]))
    return "".join(out)


def _inlined(text: str, path: str) -> str:
    import css_inline

    inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
    try:
        return str(inliner.inline(text))
    except (ValueError, css_inline.InlineError) as error:
        raise refused(Place(path, 1), f"the styles cannot be inlined: {error}") from error


def _compiled(pieces: Sequence[Piece], aside: Aside, path: str, language: str) -> Document:
    import mrml

    text = _linked(pieces, aside)
    root = re.search(r"<mjml\b[^>]*>", text)
    end = text.rfind("</mjml>")
    if root is None or end < 0:
        raise refused(Place(path, 1), "an MJML body stands between <mjml> and </mjml>")
    preamble = _preamble(text[: root.start()] + text[end + 7 :], aside)
    text = text[root.start() : end + 7]
    if "lang=" not in root[0]:
        text = f'<mjml lang="{language}"{text[5:]}'
    _check_tags(pieces)
    layout = dict.fromkeys(_LAYOUT, "<mj-raw>{}</mj-raw>")
    try:
        options = mrml.RenderOptions(disable_comments=False, fonts={})
        made = mrml.to_html(_shielded(text, aside, layout), render_options=options)
    except (OSError, ValueError) as error:
        raise refused(
            Place(path, 1), f"is not MJML: {error}", "every element must be closed, every & written &amp;"
        ) from error
    attributes = "".join(tag[3] or "" for tag in _TAG.finditer(text))
    lost = set(WORD.findall(text)) - set(WORD.findall(made.content)) - set(WORD.findall(attributes))
    if lost:
        piece = aside.constructs[int(min(lost, key=int))]
        raise refused(
            piece.place, f"{piece.text.strip()} stands where MJML has no place for it", "move it into an element"
        )
    return Document(text=preamble + str(made.content), aside=aside)


def _preamble(around: str, aside: Aside) -> str:
    """Return the definitions written outside <mjml>; nothing else may stand there."""
    for number in WORD.findall(around):
        piece = aside.constructs[int(number)]
        if piece.keyword not in _PREAMBLE:
            raise refused(piece.place, f"{piece.text.strip()} stands outside <mjml>", "move it inside")
    return "".join(f"zqj{number}jqz" for number in WORD.findall(around))


def _check_tags(pieces: Sequence[Piece]) -> None:
    problems = []
    for piece in pieces:
        for found in re.finditer(r"<(mj-[a-z-]+|mj[a-z]*)", piece.text) if not piece.keyword else ():
            if found[1] not in _MJML_TAGS:
                place = Place(piece.place.path, piece.place.line + piece.text.count("\n", 0, found.start()))
                problems.append(
                    problem_at(place, f"unknown MJML element <{found[1]}>", did_you_mean(found[1], _MJML_TAGS))
                )
    if problems:
        raise InputError(problems)
