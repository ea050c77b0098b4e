"""Subjects that are fixed words and a contact's or account's own: put together without a rendering.

As with bodies, this way only ever succeeds or gives up: what it is not sure of is rendered, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import nodes

from templates.prepared import Renderer
from templates.wire_code import ALWAYS

_LONGEST = 400
"""Characters of a line that surely needs no budget."""


class Line:
    """A line of fixed words with values between them."""

    __slots__ = ("_form", "_paths")

    def __init__(self, form: str, paths: Sequence[tuple[str, str]]) -> None:
        """Take the words as a form of %, and which entry of which group stands in each place."""
        self._form = form
        self._paths = paths

    def filled(self, variables: Mapping[str, Any]) -> str | None:
        """Return the line, or None where a value is no plain text."""
        values = []
        for group, name in self._paths:
            value = variables[group][name]
            if type(value) is not str or not value.isprintable():
                return None
            values.append(value)
        line = self._form % tuple(values)
        return line if len(line) <= _LONGEST else None


def line_of(renderer: Renderer) -> Line | None:
    """Return the line a part is, or None where only rendering can make it."""
    form, paths = "", []
    for node in renderer.environment.parse(renderer.source, renderer.path).body:
        if not isinstance(node, nodes.Output):
            return None
        for child in node.nodes:
            if isinstance(child, nodes.TemplateData):
                form += child.data.replace("%", "%%")
            elif isinstance(child, nodes.Getattr) and isinstance(child.node, nodes.Name):
                if child.attr not in ALWAYS.get(child.node.name, ()):
                    return None
                form += "%s"
                paths.append((child.node.name, child.attr))
            else:
                return None
    return Line(form, paths)
