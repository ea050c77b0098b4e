"""Strict YAML: text to plain data, by the YAML 1.2 core schema and nobody's guesses.

The library only cuts the text into events; values are made here, so that nothing depends on its idea of what
`NO`, `12:30` or `017` means. What other readers take for something else is refused with the advice to quote it.
Aliases, anchors, merge keys, tags and duplicate keys are refused as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner, ScannerError

from kernel.errors import InputError, Problem

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 40

Location = tuple[str | int, ...]
"""The way to a value: keys and positions (from 0), from the top of the file."""

KEY = "\0key"
"""Marks a location as that of the key itself, not of its value."""
_QUOTE_HINT = "if the value holds ': ' or starts with a special sign, put it in quotes"
_DEPTH_HINT = "put inner conditions into a segment of their own and refer to it"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_BOOLEANS_OF_OLD = frozenset({"yes", "no", "on", "off", "y", "n"})
_TRAPS = (
    (
        re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"),
        "many YAML readers take it for a number in base 60, not a time",
    ),
    (re.compile(r"\+[0-9]{6,}"), "YAML takes it for a number and drops the plus sign"),
    (re.compile(r"0[0-9]+"), "YAML takes it for an octal number or drops the zero"),
    (
        re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+"),
        "YAML takes it for a number written in base 16, 8 or 2",
    ),
    (re.compile(r"[-+]?[0-9]+(_[0-9]+)+"), "many YAML readers take it for a number without the underscores"),
)


class Reading:
    """What a text says: plain data, where each piece of it stands, and what is wrong with how it is written."""

    def __init__(self, text: str, name: str) -> None:
        """Read the text; `name` stands in problems.

        Raises:
            InputError: too large, empty, or not YAML at all: nothing can be said about the rest.
        """
        self.name = name
        self.problems: list[Problem] = []
        self.marks: dict[Location, tuple[int, int]] = {}
        if len(text) > MAX_CHARACTERS:
            raise whole_file(name, f"is larger than {MAX_CHARACTERS:,} characters", "split it")
        try:
            self._events = _parse(text)
            self.data = self._document()
        except MarkedYAMLError as error:
            raise InputError([_syntax_problem(name, error)]) from error
        except ReaderError as error:
            raise InputError([_bad_character(name, text, error)]) from error
        except (YAMLError, RecursionError, ValueError) as error:
            raise whole_file(name, f"is not YAML: {error}") from error

    def _document(self) -> Any:
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                break
        else:
            raise whole_file(self.name, "is empty", "an empty file says nothing; delete it or fill it in")
        data = self._value(next(self._events), (), 0)
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                self._refuse(event, "a second document starts here", "keep one; remove the line ---")
                break
        return data

    def _value(self, event: Any, place: Location, depth: int) -> Any:
        self.marks.setdefault(place, _at(event))
        if depth > MAX_DEPTH:
            raise InputError([self._problem(event, f"is nested deeper than {MAX_DEPTH} levels", _DEPTH_HINT)])
        if isinstance(event, AliasEvent):
            self._refuse(event, f"alias *{event.anchor} is not allowed", "write the value out again")
            return None
        self._refuse_extras(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(place, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(place, depth)
        return self._scalar(event)

    def _sequence(self, place: Location, depth: int) -> list[Any]:
        out: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            out.append(self._value(event, (*place, len(out)), depth + 1))
        return out

    def _mapping(self, place: Location, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, out, place, depth)
            if key is None:
                # The key is refused; its value is read only for what is wrong inside it.
                self._value(next(self._events), (*place, KEY, "refused"), depth + 1)
                continue
            self.marks[(*place, key)] = self.marks[(*place, KEY, key)] = _at(event)
            inner = next(self._events)
            out[key] = self._value(inner, (*place, key), depth + 1)
            if isinstance(inner, AliasEvent) or (isinstance(inner, ScalarEvent) and inner.value):
                self.marks[(*place, key)] = _at(inner)
        return out

    def _key(self, event: Any, known: dict[str, Any], place: Location, depth: int) -> str | None:
        if not isinstance(event, ScalarEvent):
            self._refuse(
                event, "a key must be a plain word", 'if this is a {{ … }} of a template, put it in quotes: "…"'
            )
            self._value(event, (*place, KEY, "refused"), depth + 1)
            return None
        self._refuse_extras(event)
        key: str = event.value
        if key == "<<":
            self._refuse(event, "merge keys (<<) are not allowed", "write the values out")
            return None
        if key in known:
            first = self.marks[(*place, KEY, key)]
            self._refuse(event, f"duplicate key {key!r}", f"first seen on line {first[0]}; keep one")
            return None
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if _SURROGATE.search(text):
            self._refuse(event, "holds half a character (\\ud800 to \\udfff)", "write the character itself")
            return _SURROGATE.sub("\ufffd", text)
        if event.style is not None:
            return text
        trap = _trap(text)
        if trap:
            self._refuse(event, f"{text} needs quotes: {trap}", f'write "{text}"')
            return text
        return _core(text)

    def _refuse_extras(self, event: Any) -> None:
        if event.anchor:
            self._refuse(event, f"anchor &{event.anchor} is not allowed", "write the value out where it is needed")
        if event.tag:
            shown = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, f"tag {shown} is not allowed", "remove it; quotes make text of any value")

    def _refuse(self, event: Any, message: str, hint: str = "") -> None:
        self.problems.append(self._problem(event, message, hint))

    def _problem(self, event: Any, message: str, hint: str = "") -> Problem:
        line, column = _at(event)
        return Problem(path=self.name, line=line, column=column, message=message, hint=hint)


class _ShallowScanner(Scanner):
    """Stops at brackets nested too deep, which the scanner's look-ahead would take minutes over."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:  # noqa: N803 - the library's name
        if len(self.flow_context) > MAX_DEPTH:
            raise ScannerError(None, None, f"is nested deeper than {MAX_DEPTH} levels", self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)


def _parse(text: str) -> Iterator[Any]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _ShallowScanner
    return iter(yaml.parse(text))


def whole_file(name: str, message: str, hint: str = "") -> InputError:
    """Return an error about the file as a whole."""
    return InputError([Problem(path=name, line=0, column=0, message=message, hint=hint)])


def _trap(text: str) -> str:
    if text.lower() in _BOOLEANS_OF_OLD:
        return "many YAML readers take it for true or false"
    return next((reason for form, reason in _TRAPS if form.fullmatch(text)), "")


def _core(text: str) -> Any:
    """Return the value of a plain scalar. Source: YAML 1.2.2, section 10.3.2 (core schema)."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text) if len(text) < 20 else text
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def _at(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _syntax_problem(name: str, error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    text = str(error.problem or error)
    hint = _QUOTE_HINT
    if "nested deeper" in text:
        hint = _DEPTH_HINT
    elif "\\t" in text:
        hint = "YAML does not allow tabs here; use spaces"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    message = text if text.startswith("is ") else f"is not YAML: {text}"
    return Problem(path=name, line=line, column=column, message=message, hint=hint)


def _bad_character(name: str, text: str, error: ReaderError) -> Problem:
    before = text[: error.position]
    line = before.count("\n") + 1
    column = error.position - (before.rfind("\n") + 1) + 1
    code = ord(text[error.position]) if error.position < len(text) else 0
    return Problem(
        path=name, line=line, column=column, message=f"holds the control character U+{code:04X}", hint="remove it"
    )
