"""What stands for a name the data does not have: it fails in the words the template used, and says what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined
from jinja2.utils import missing

from kernel.documents import did_you_mean
from templates.budget import RENDERING
from templates.context import SHAPE


class Missing(StrictUndefined):
    """A name the data does not have: any use of it fails in the words the template used."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        rendering = RENDERING.get()
        variables = rendering.variables if rendering else {}
        return missing_message(variables, self._undefined_obj, self._undefined_name, self._undefined_hint)


def missing_message(variables: Mapping[str, Any], owner: Any, name: Any, hint: str | None = None) -> str:
    """Return "'contact.firstname' is undefined (did you mean 'first_name'?)" for what is missing."""
    if hint:
        return hint
    if owner is None:
        absent = [key for key, value in variables.items() if value is None]
        absent = [key for key in absent if name in (SHAPE.get(key) or ())] or absent
        advice = f"write {{% if {absent[0]} %}} around it" if absent else "write {% if … %} around it"
        return f"{name!r} is asked of nothing: this person has no {' and no '.join(absent) or 'such value'} ({advice})"
    path = _path_of(variables, owner)
    advice = ""
    if owner is missing:
        advice = did_you_mean(str(name), [known for known in _names(variables) if not known.startswith("_")])
    elif isinstance(owner, dict):
        advice = did_you_mean(str(name), [str(key) for key in owner])
    full = f"{path}.{name}" if path else name
    return f"{full!r} is undefined" + (f" ({advice})" if advice else "")


def _names(variables: Mapping[str, Any]) -> list[str]:
    inner = [f"{key}.{sub}" for key, value in variables.items() if isinstance(value, dict) for sub in value]
    return [*variables, *inner]


def _path_of(variables: Any, owner: Any, depth: int = 0) -> str:
    """Return the dotted way to the very object within the variables, or "" where it is not found."""
    if not isinstance(owner, dict | list) or depth > 4:
        return ""
    items = variables.items() if isinstance(variables, Mapping) else enumerate(variables)
    for key, value in items:
        if value is owner:
            return str(key)
        if isinstance(value, dict | list):
            inner = _path_of(value, owner, depth + 1)
            if inner:
                return f"{key}.{inner}"
    return ""
