"""Strict YAML: files people write, with the line and column of everything wrong in them, all at once.

The parser builds nodes only; values are made here by the YAML 1.2 core schema, so that nothing depends on a
library's idea of what `NO`, `12:30` or `017` means. What other readers take for something else is refused with
the advice to quote it. Aliases, anchors, merge keys, tags and duplicate keys are refused as well.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kernel.errors import InputError, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 40

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_KEY = "\0key"
"""Marks a location as that of the key itself, not of its value."""
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?")
_PHONE = re.compile(r"\+[0-9]{6,}")
_LEADING_ZERO = re.compile(r"0[0-9]+")
_BOOLEANS_OF_OLD = frozenset({"yes", "no", "on", "off", "y", "n"})


class Document:
    """A YAML file read strictly: its plain data, and where each piece of it stands."""

    def __init__(
        self, path: str, text: str, data: Any, marks: dict[Location, tuple[int, int]], problems: Sequence[Problem] = ()
    ) -> None:
        self.path = path
        self.text = text
        self.data = data
        self.problems = tuple(problems)
        self._marks = marks

    def replaced(self, data: Any, problems: Sequence[Problem]) -> Document:
        """Return the same document with other data of the same shape, as after filling in the environment."""
        return Document(self.path, self.text, data, self._marks, problems)

    def mark(self, location: Sequence[str | int]) -> tuple[int, int]:
        """Return line and column, from 1, of the value at the location or of its nearest parent."""
        place = tuple(location)
        while place and place not in self._marks:
            place = place[:-1]
        return self._marks.get(place, (1, 1))

    def problem(self, location: Sequence[str | int], message: str, hint: str = "") -> Problem:
        """Return a problem at the location of a value, or of its nearest parent."""
        line, column = self.mark(location)
        return Problem(path=self.path, line=line, column=column, message=message, hint=hint)

    def validate(self, model: type[Model], context: dict[str, Any] | None = None) -> Model:
        """Return the data as the model.

        Raises:
            InputError: one problem for each of YAML's traps and for everything the model refuses.
        """
        try:
            valid = model.model_validate(self.data, context=context)
        except ValidationError as error:
            raise InputError([*self.problems, *self._explained(model, error)]) from error
        if self.problems:
            raise InputError(self.problems)
        return valid

    def _explained(self, model: type[BaseModel], error: ValidationError) -> Iterable[Problem]:
        seen: set[tuple[Location, str]] = set()
        for detail in error.errors(include_url=False):
            place = self._existing(detail["loc"])
            message, hint = _in_words(detail, model, place, self._value(place))
            if detail["type"] == "missing":
                place = place[:-1]
            elif detail["type"] == "extra_forbidden" and place:
                place = (*place[:-1], _KEY, place[-1])
            if (place, message) not in seen:
                seen.add((place, message))
                yield self.problem(place, message, hint)

    def _existing(self, location: Sequence[str | int]) -> Location:
        """Drop what pydantic adds to a location (names of union members) and keep the steps into the data."""
        place: list[str | int] = []
        value = self.data
        for index, step in enumerate(location):
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            elif index == len(location) - 1 and isinstance(value, dict) and isinstance(step, str):
                place.append(step)
                break
            else:
                continue
            place.append(step)
        return tuple(place)

    def _value(self, location: Location) -> Any:
        value = self.data
        for step in location:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value


def read_document(path: Path, *, shown_as: str | None = None) -> Document:
    """Read a YAML file. What its traps spoil stands in `problems` and is raised by `validate`.

    Args:
        path: The file.
        shown_as: How problems name it; by default the path itself.

    Raises:
        InputError: unreadable, not UTF-8, too large, empty, or not YAML at all.
    """
    name = shown_as or str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _whole_file(name, f"cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _whole_file(name, f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """Read YAML from a string; `name` stands in problems. Raises InputError like `read_document`."""
    if len(text) > MAX_BYTES:
        raise _whole_file(name, f"is larger than {MAX_BYTES:,} characters", "split it")
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise InputError([_syntax_problem(name, error)]) from error
    except (YAMLError, RecursionError, ValueError) as error:
        raise _whole_file(name, f"is not YAML: {error}") from error
    if node is None:
        raise _whole_file(name, "is empty", "an empty file says nothing; delete it or fill it in")
    reader = _Reader(name)
    reader.refuse_aliases(text)
    data = reader.value(node, (), 0)
    return Document(name, text, data, reader.marks, reader.problems)


class _Reader:
    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.marks: dict[Location, tuple[int, int]] = {}
        self._seen: set[int] = set()

    def value(self, node: Node, place: Location, depth: int) -> Any:
        self.marks.setdefault(place, _at(node))
        if depth > MAX_DEPTH:
            self._refuse(node, f"is nested deeper than {MAX_DEPTH} levels")
            return None
        if id(node) in self._seen:
            return None
        self._seen.add(id(node))
        if node.anchor:
            self._refuse(node, f"anchor &{node.anchor} is not allowed", "write the value out where it is needed")
        if isinstance(node, MappingNode):
            return self._mapping(node, place, depth)
        if isinstance(node, SequenceNode):
            return [self.value(child, (*place, index), depth + 1) for index, child in enumerate(node.value)]
        return self._scalar(node) if isinstance(node, ScalarNode) else None

    def refuse_aliases(self, text: str) -> None:
        for event in YAML(typ="safe", pure=True).parse(text):
            if isinstance(event, AliasEvent):
                mark = event.start_mark
                self.problems.append(
                    Problem(
                        path=self.path,
                        line=mark.line + 1,
                        column=mark.column + 1,
                        message=f"alias *{event.anchor} is not allowed",
                        hint="write the value out again",
                    )
                )

    def _mapping(self, node: MappingNode, place: Location, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if key is None:
                self._refuse(key_node, "a key must be a plain word")
                continue
            if key == "<<":
                self._refuse(key_node, "merge keys (<<) are not allowed", "write the values out")
                continue
            if key in out:
                first = self.marks[(*place, key)]
                self._refuse(key_node, f"duplicate key {key!r}", f"first seen on line {first[0]}; keep one")
                continue
            self.marks[(*place, key)] = self.marks[(*place, _KEY, key)] = _at(key_node)
            out[key] = self.value(value_node, (*place, key), depth + 1)
            if isinstance(value_node, ScalarNode):
                self.marks[(*place, key)] = _at(value_node) if value_node.value else _at(key_node)
        return out

    def _scalar(self, node: ScalarNode) -> Any:
        text: str = node.value
        if node.style is not None:
            return text
        if str(node.tag) not in _CORE_TAGS:
            self._refuse(node, f"tag {node.tag} is not allowed", "remove it")
            return text
        trap = _trap(text)
        if trap:
            self._refuse(node, f"{text} needs quotes: {trap}", f'write "{text}"')
            return text
        return _core(text)

    def _refuse(self, node: Node, message: str, hint: str = "") -> None:
        line, column = _at(node)
        self.problems.append(Problem(path=self.path, line=line, column=column, message=message, hint=hint))


_CORE_TAGS = frozenset(
    {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")}
    | {"None", "!"}
)


def _trap(text: str) -> str:
    if text.lower() in _BOOLEANS_OF_OLD:
        return "many YAML readers take it for true or false"
    if _SEXAGESIMAL.fullmatch(text):
        return "many YAML readers take it for a number in base 60, not a time"
    if _PHONE.fullmatch(text):
        return "YAML takes it for a number and drops the plus sign"
    if _LEADING_ZERO.fullmatch(text):
        return "YAML takes it for an octal number or drops the zero"
    return ""


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
        return float(text)
    return text


def _at(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _syntax_problem(name: str, error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    text = str(error.problem or error)
    hint = "if the value holds ': ' or starts with a special sign, put it in quotes"
    if "alias" in text:
        text, hint = "aliases are not allowed", "write the value out again"
    if "\\t" in text:
        hint = "YAML does not allow tabs here; use spaces"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem(path=name, line=line, column=column, message=f"is not YAML: {text}", hint=hint)


def _whole_file(name: str, message: str, hint: str = "") -> InputError:
    return InputError([Problem(path=name, line=0, column=0, message=message, hint=hint)])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the nearest known word, else the list of what is known, shortened."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return ""
    return "known: " + ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


_WORDS = {
    "missing": "{key!r} is missing",
    "string_type": "{key}: expected text, got {value}",
    "int_type": "{key}: expected a whole number, got {value}",
    "int_from_float": "{key}: expected a whole number, got {value}",
    "float_type": "{key}: expected a number, got {value}",
    "bool_type": "{key}: expected true or false, got {value}",
    "list_type": "{key}: expected a list, got {value}",
    "tuple_type": "{key}: expected a list, got {value}",
    "dict_type": "{key}: expected keys with values, got {value}",
    "model_type": "{key}: expected keys with values, got {value}",
    "model_attributes_type": "{key}: expected keys with values, got {value}",
}


def _in_words(detail: Any, model: type[BaseModel], place: Location, value: Any) -> tuple[str, str]:
    key = str(place[-1]) if place else "the file"
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key {key!r}", did_you_mean(key, fields_at(model, place[:-1]))
    if kind in ("literal_error", "enum"):
        expected = str(detail.get("ctx", {}).get("expected", ""))
        options = re.findall(r"'([^']*)'", expected)
        return f"{key}: {value!r} is not one of {expected}", did_you_mean(str(value), options) if options else ""
    if kind == "value_error":
        return f"{key}: {detail['ctx']['error']}" if "error" in detail.get("ctx", {}) else detail["msg"], ""
    template = _WORDS.get(kind)
    if template:
        hint = 'put it in quotes: "…"' if kind == "string_type" and not isinstance(value, dict | list) else ""
        return template.format(key=key, value=_shown(value)), hint
    return f"{key}: {detail['msg'][:1].lower()}{detail['msg'][1:]}, got {_shown(value)}", ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "keys with values"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)


def fields_at(model: Any, place: Location) -> set[str]:
    """Return the keys a model knows at a place of its data; several where a union stands there."""
    models = _models_in(model)
    for step in place:
        inner: list[type[BaseModel]] = []
        for known in models:
            for name, field in known.model_fields.items():
                if isinstance(step, int) or step in (name, field.alias):
                    inner.extend(_models_in(field.annotation))
        models = inner if not isinstance(step, int) else models
    return {field.alias or name for known in models for name, field in known.model_fields.items()}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = get_origin(annotation)
    if origin is None:
        return []
    if origin in (Union, UnionType, list, tuple, dict) or get_args(annotation):
        return [found for part in get_args(annotation) for found in _models_in(part)]
    return []
