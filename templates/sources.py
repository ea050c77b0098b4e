"""Template files as their authors wrote them: cut into pieces, inheritance and includes resolved.

`extends`, `block`, `super()` and `include` are resolved here, once, over the pinned files, so that what follows (MJML,
CSS, links) sees one whole document. Every piece keeps the file and line it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files

import jinja2

from kernel.documents import did_you_mean
from templates.problems import Place, refused

MAX_FILE_CHARACTERS = 500_000
MAX_DEPTH = 20
"""How deep files may extend and include one another."""

_LEXER = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=True)
_OPENERS = ("block_begin", "variable_begin", "raw_begin", "comment_begin")
_CLOSERS = ("block_end", "variable_end", "raw_end", "comment_end")
_REFERENCES = ("extends", "include", "import", "from")
_WORDS = ("name", "string", "operator", "integer", "float")


@dataclass(frozen=True, slots=True)
class Piece:
    """Plain text, or one whole Jinja construct with its delimiters.

    `keyword` is "" for text, "{{" for an expression, "raw" for a raw block, else the statement's first word;
    `words` are the tokens after it.
    """

    text: str
    place: Place
    keyword: str = ""
    words: tuple[str, ...] = ()


@cache
def shipped_files() -> Mapping[str, str]:
    """Return the base templates that come with Carillon, by the path a template includes them by."""
    folder = package_files("templates") / "base"
    return {
        f"base/{item.name}": item.read_text(encoding="utf-8")
        for item in folder.iterdir()
        if item.name.endswith((".html", ".mjml", ".txt"))
    }


def text_of(files: Mapping[str, str], path: str, wanted_at: Place) -> str:
    """Return a file of the pinned ones, else of the shipped ones.

    Raises:
        InputError: no such file, or it is too large.
    """
    text = files.get(path)
    if text is None:
        text = shipped_files().get(path)
    if text is None:
        raise refused(wanted_at, f"there is no template file {path!r}", did_you_mean(path, {*files, *shipped_files()}))
    if len(text) > MAX_FILE_CHARACTERS:
        raise refused(Place(path, 1), f"is larger than {MAX_FILE_CHARACTERS:,} characters", "split or shorten it")
    return text


def pieces_of(path: str, text: str) -> list[Piece]:
    """Return the pieces of one file, in order; comments are left out.

    Raises:
        InputError: an unclosed delimiter or string.
    """
    try:
        return list(_pieces(path, text))
    except jinja2.TemplateSyntaxError as error:
        raise refused(Place(path, error.lineno), str(error.message)) from error


def _pieces(path: str, text: str) -> Iterator[Piece]:
    raw: list[str] = []
    words: list[str] = []
    opener, started = "", 1
    for line, kind, value in _LEXER.lex(text):
        if kind == "data" and not opener:
            yield Piece(value, Place(path, line))
            continue
        if kind in _OPENERS:
            opener, started, raw, words = kind, line, [], []
        raw.append(value)
        if kind in _WORDS:
            words.append(value)
        if kind in _CLOSERS:
            if opener != "comment_begin":
                yield Piece("".join(raw), Place(path, started), *_named(opener, words))
            opener = ""
    if opener:
        raise jinja2.TemplateSyntaxError("this Jinja tag is never closed", started, path)


def _named(opener: str, words: list[str]) -> tuple[str, tuple[str, ...]]:
    if opener == "variable_begin":
        return "{{", tuple(words)
    if opener == "raw_begin":
        return "raw", ()
    return (words[0], tuple(words[1:])) if words else ("", ())


def reference(piece: Piece) -> str | None:
    """Return the file a piece names, or None where it names none.

    Raises:
        InputError: the name is not written out, so it cannot be pinned.
    """
    if piece.keyword not in _REFERENCES:
        return None
    name = piece.words[0] if piece.words else ""
    if name[:1] not in ("'", '"') or (len(piece.words) > 1 and piece.words[1] in ("~", "+", "if", "|")):
        raise refused(
            piece.place,
            f"the file of {{% {piece.keyword} %}} must be written out",
            f'as in {{% {piece.keyword} "base/plain.html" %}}: it is pinned when the campaign is applied',
        )
    return name[1:-1]


def resolved(files: Mapping[str, str], path: str) -> list[Piece]:
    """Return the whole document of a file: what it extends and includes put in place, block tags gone.

    Raises:
        InputError: a missing file, a cycle, an unclosed block.
    """
    return _Resolver(files).document(path, Place(path, 1), {}, 0)


class _Resolver:
    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def document(
        self, path: str, wanted_at: Place, overrides: Mapping[str, list[list[Piece]]], depth: int
    ) -> list[Piece]:
        """Resolve one file; `overrides` holds the heirs' contents of each block, youngest first."""
        if depth > MAX_DEPTH:
            raise refused(wanted_at, f"{path!r} extends or includes itself")
        pieces = pieces_of(path, text_of(self._files, path, wanted_at))
        heir = next((piece for piece in pieces if piece.keyword == "extends"), None)
        if heir is None:
            return list(self._expanded(pieces, overrides, depth))
        outside, blocks = _split_heir(pieces)
        merged = {name: list(contents) for name, contents in overrides.items()}
        for name, content in blocks.items():
            merged.setdefault(name, []).append(content)
        parent = self.document(reference(heir) or "", heir.place, merged, depth + 1)
        return [*self._expanded(outside, overrides, depth), *parent]

    def _expanded(
        self,
        pieces: Sequence[Piece],
        overrides: Mapping[str, list[list[Piece]]],
        depth: int,
        inherited: Sequence[list[Piece]] = (),
    ) -> Iterator[Piece]:
        index = 0
        while index < len(pieces):
            piece = pieces[index]
            index += 1
            if piece.keyword == "block":
                end = _end_of_block(pieces, index)
                name = piece.words[0] if piece.words else ""
                first, *rest = [*overrides.get(name, []), list(pieces[index:end])]
                yield from self._expanded(first, overrides, depth + 1, rest)
                index = end + 1
            elif piece.keyword == "include":
                yield from self._included(piece, depth)
            elif piece.keyword == "{{" and piece.words[:3] == ("super", "(", ")") and inherited:
                yield from self._expanded(inherited[0], overrides, depth + 1, inherited[1:])
            else:
                yield piece

    def _included(self, piece: Piece, depth: int) -> list[Piece]:
        path = reference(piece) or ""
        known = path in self._files or path in shipped_files()
        if not known and piece.words[1:3] == ("ignore", "missing"):
            return []
        return self.document(path, piece.place, {}, depth + 1)


def _end_of_block(pieces: Sequence[Piece], start: int) -> int:
    depth = 1
    for index in range(start, len(pieces)):
        depth += {"block": 1, "endblock": -1}.get(pieces[index].keyword, 0)
        if not depth:
            return index
    raise refused(pieces[start - 1].place, "this block is never closed", "write {% endblock %}")


def _split_heir(pieces: Sequence[Piece]) -> tuple[list[Piece], dict[str, list[Piece]]]:
    """Return what an heir says outside its blocks (definitions only), and its blocks."""
    outside: list[Piece] = []
    blocks: dict[str, list[Piece]] = {}
    index = inside = 0
    while index < len(pieces):
        piece = pieces[index]
        index += 1
        if piece.keyword == "block":
            end = _end_of_block(pieces, index)
            blocks[piece.words[0] if piece.words else ""] = list(pieces[index:end])
            index = end + 1
            continue
        opens = piece.keyword == "macro" or (piece.keyword == "set" and "=" not in piece.words)
        inside += opens - (piece.keyword in ("endmacro", "endset"))
        if piece.keyword == "extends" or (not piece.keyword and not inside):
            continue
        outside.append(piece)
    return outside, blocks
