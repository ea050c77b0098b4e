"""Files people write, checked against a model: the line and column of everything wrong in them, all at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from kernel.errors import InputError, Problem, Refusal
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
        details = error.errors(include_url=False)
        for detail in details:
            if self._is_of_another_form(detail, details):
                continue
            for place, message, hint in self._told(model, detail):
                if (place, message) not in seen and self.mark(place) not in spoilt:
                    seen.add((place, message))
                    yield self.problem(place, message, hint)

    def _is_of_another_form(self, detail: Any, details: Sequence[Any]) -> bool:
        """Return whether keys and values stand where a word may too: then only what is wrong with the keys counts."""
        above = detail["loc"][:-1]
        value = _at(self.data, self._existing(above))
        return (
            detail["type"] == "literal_error"
            and isinstance(value, dict)
            and detail["loc"][-1] not in value
            and any(other is not detail and other["loc"][: len(above)] == above for other in details)
        )

    def _told(self, model: type[BaseModel], detail: Any) -> Iterator[tuple[Location, str, str]]:
        """Yield where, what and the remedy of one of pydantic's errors."""
        about_key = detail["loc"][-1:] == ("[key]",) or detail["type"] == "extra_forbidden"
        place = self._existing(detail["loc"])
        reason = detail.get("ctx", {}).get("error")
        if isinstance(reason, Refusal):
            if place and not _holds(_at(self.data, place[:-1]), place[-1]):
                place = place[:-1]
            for refusal in (reason, *reason.others):
                inner = (*place, *refusal.at)
                yield inner, self._without_secrets(refusal.message, inner), refusal.hint
            return
        if detail["type"] == "union_tag_invalid":
            place = (*place, detail["ctx"]["discriminator"].strip("'"))
        message, hint = _in_words(detail, model, place, _at(self.data, place))
        message = self._without_secrets(message, place)
        if detail["type"] == "missing":
            place = place[:-1]
        elif about_key and place:
            place = (*place[:-1], KEY, place[-1])
        yield place, message, hint

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
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
}
_CHOICES = {"literal_error": "expected", "enum": "expected", "union_tag_invalid": "expected_tags"}
_LENGTHS = ("too_long", "too_short", "string_too_long", "string_too_short")
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
"""What pydantic calls a number out of bounds, and the name of the bound."""


_TAGS = {"type", "kind"}
"""Keys that tell the models of a union apart."""


def _in_words(detail: Any, model: type[BaseModel], place: Location, value: Any) -> tuple[str, str]:
    """Return what one of pydantic's errors says to people, and the remedy."""
    last = place[-1] if place else "the file"
    key = f"item {last + 1}" if isinstance(last, int) else last
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {key!r}", did_you_mean(key, _fields_at(model, detail["loc"][:-1]))
    if kind == "union_tag_not_found":
        name = context["discriminator"].strip("'")
        return f"{name!r} is missing", "one of " + ", ".join(_tags_of(model, place, name))
    if kind == "value_error":
        return f"{key}: {context['error']}" if "error" in context else detail["msg"], ""
    words, hint = _about_value(detail, value, "something else" if _SECRET.search(str(last)) else _shown(value))
    return words.format(key=key), hint


def _about_value(detail: Any, value: Any, shown: str) -> tuple[str, str]:
    """Return the words about a value of the wrong kind, size or choice, with {key} where its name belongs."""
    kind, context = detail["type"], detail.get("ctx", {})
    shown = shown.replace("{", "{{").replace("}", "}}")
    if kind in _CHOICES:
        options = str(context.get(_CHOICES[kind], ""))
        hint = did_you_mean(str(value), re.findall(r"'([^']*)'", options))
        return f"{{key}}: {shown} is not one of {options}", hint if hint.startswith("did") else ""
    if kind in _LENGTHS and isinstance(value, str | list | dict):
        return f"{{key}}: expected {_bound(context, value)}, got {len(value)}", ""
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{{key}}: expected {words} {context[bound]:g}, got {shown}", ""
    if kind in _KINDS:
        quotes = kind == "string_type" and not isinstance(value, dict | list)
        hint = 'put it in quotes: "…"' if quotes else "write [ ] around it" if kind == "list_type" else ""
        return f"{{key}}: expected {_KINDS[kind]}, got {shown}", hint if value is not None else ""
    if kind == "missing":
        return "{key!r} is missing", ""
    words = detail["msg"].replace("{", "{{").replace("}", "}}")
    return f"{{key}}: {words[:1].lower()}{words[1:]}, got {shown}", ""


def _bound(context: Any, value: str | list[Any] | dict[str, Any]) -> str:
    most, least = context.get("max_length"), context.get("min_length")
    one, several = ("character", "characters") if isinstance(value, str) else ("entry", "entries")
    return f"at {f'most {most}' if most is not None else f'least {least}'} {one if (most or least) == 1 else several}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "keys with values"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)


def _fields_at(model: Any, location: Sequence[str | int]) -> set[str]:
    """Return the keys a model knows at one of pydantic's locations; several models' where a union stands there."""
    known = _at_location(model, location)
    return {field.alias or name for one in known for name, field in one.model_fields.items()}


def _tags_of(model: Any, location: Sequence[str | int], name: str) -> list[str]:
    """Return the values by which a union's models are told apart, in their order."""
    fields = (one.model_fields.get(name) for one in _at_location(model, location))
    return [str(tag) for field in fields if field is not None for tag in get_args(field.annotation)]


def _at_location(model: Any, location: Sequence[str | int]) -> list[type[BaseModel]]:
    annotations = [model]
    for step in location:
        annotations = [inner for one in annotations for inner in _inner(one, step)]
    return [one for annotation in annotations for one in _members(annotation) if _is_model(one)]


def _inner(annotation: Any, step: str | int) -> list[Any]:
    """Return what a step leads to: a model's field, the values of a list or dict, or a union's model by its tag."""
    members = _members(annotation)
    tagged = [one for one in members if _is_model(one) and (one.__name__ == step or _has_tag(one, step))]
    if tagged:
        return tagged
    found: list[Any] = []
    for one in members:
        if _is_model(one):
            found += [field.annotation for name, field in one.model_fields.items() if step in (name, field.alias)]
        elif get_origin(one) in (list, tuple, dict):
            found += get_args(one)[-1:]
    return found


def _members(annotation: Any) -> list[Any]:
    """Return the parts of a union, whatever is said about it; of anything else itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [one for part in get_args(annotation) for one in _members(part)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    """Return whether a union's member goes by a tag, which pydantic puts among the steps of a location."""
    return any(tag in get_args(model.model_fields[name].annotation) for name in _TAGS & model.model_fields.keys())
