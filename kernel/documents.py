"""Files people write, checked against a model: the line and column of everything wrong in them, all at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from kernel.errors import InputError, Problem
from kernel.strict_yaml import KEY, Location, Reading, whole_file

Model = TypeVar("Model", bound=BaseModel)


class Document:
    """A YAML file read strictly: its plain data, and where each piece of it stands."""

    def __init__(
        self,
        path: str,
        text: str,
        data: Any,
        marks: dict[Location, tuple[int, int]],
        problems: Sequence[Problem] = (),
        *,
        written: Any = None,
    ) -> None:
        """Take what was read; `written` is the data as the file has it, where `data` is that filled in."""
        self.path = path
        self.text = text
        self.data = data
        self.problems = tuple(problems)
        self._marks = marks
        self._written = data if written is None else written

    def replaced(self, data: Any, problems: Sequence[Problem]) -> Document:
        """Return the same document with other data of the same shape, as after filling in the environment.

        Problems go on to show what the file says, never what was filled in.
        """
        return Document(self.path, self.text, data, self._marks, problems, written=self._written)

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
        # A value that was refused as it is written need not be refused again for what became of it.
        spoilt = {(problem.line, problem.column) for problem in self.problems}
        seen: set[tuple[Location, str]] = set()
        for detail in error.errors(include_url=False):
            about_key = detail["loc"][-1:] == ("[key]",) or detail["type"] == "extra_forbidden"
            place = self._existing(detail["loc"])
            message, hint = _in_words(detail, model, place, _at(self.data, place))
            message = self._without_secrets(message, place)
            if detail["type"] == "missing":
                place = place[:-1]
            elif about_key and place:
                place = (*place[:-1], KEY, place[-1])
            if (place, message) not in seen and self.mark(place) not in spoilt:
                seen.add((place, message))
                yield self.problem(place, message, hint)

    def _existing(self, location: Sequence[str | int]) -> Location:
        """Drop what pydantic adds to a location (names of union members) and keep the steps into the data."""
        place: list[str | int] = []
        value = self.data
        for index, step in enumerate(location):
            if step == "[key]":
                break
            if _holds(value, step):
                value = value[step]
            elif index == len(location) - 1 and isinstance(value, dict) and isinstance(step, str):
                place.append(step)
                break
            else:
                continue
            place.append(step)
        return tuple(place)

    def _without_secrets(self, message: str, place: Location) -> str:
        value, written = _at(self.data, place), _at(self._written, place)
        return message if value == written else message.replace(str(value), str(written))


def _at(value: Any, location: Location) -> Any:
    """Return the value at a place of plain data; None where there is none."""
    for step in location:
        if not _holds(value, step):
            return None
        value = value[step]
    return value


def _holds(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


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
        raise whole_file(name, f"cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise whole_file(name, f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """Read YAML from a string; `name` stands in problems. Raises InputError like `read_document`."""
    reading = Reading(text, name)
    return Document(name, text, reading.data, reading.marks, reading.problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the nearest known word, else the list of what is known, shortened."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return ""
    return "known: " + ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


_SECRET = re.compile(r"password|secret|token|key|sid$")
"""Keys whose values are never shown, whatever is wrong with them."""
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
    last = place[-1] if place else "the file"
    key = f"item {last + 1}" if isinstance(last, int) else last
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
    shown = "something else" if _SECRET.search(str(last)) else _shown(value)
    if template:
        hint = 'put it in quotes: "…"' if kind == "string_type" and not isinstance(value, dict | list) else ""
        return template.format(key=key, value=shown), hint
    if kind in ("too_long", "too_short") and isinstance(value, str):
        most = detail["ctx"].get("max_length")
        bound = f"at most {most}" if most is not None else f"at least {detail['ctx']['min_length']}"
        return f"{key}: expected {bound} characters, got {len(value)}", ""
    return f"{key}: {detail['msg'][:1].lower()}{detail['msg'][1:]}, got {shown}", ""


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
