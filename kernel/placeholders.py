"""What may stand in braces in the request of an HTTP gateway, and what was probably meant by what may not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kernel.documents import did_you_mean
from kernel.strict_yaml import Location

PLACEHOLDERS = ("to", "from", "text", "ref", "parts", "receipt_url")
_BRACED = re.compile(r"\{\{?[ \t]*([A-Za-z_][A-Za-z0-9_.]*)[ \t]*\}?\}")


def misspelt_placeholders(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with each placeholder that would leave as it stands, and the remedy.

    A word that is not ours stays in two pairs of braces: a provider's own templates are written so.
    """
    for found in _BRACED.finditer(text):
        written, name = found[0], found[1]
        if written == f"{{{name}}}" and name in PLACEHOLDERS:
            continue
        if name in PLACEHOLDERS:
            yield f"{written} is not filled in as it is written", f"write {{{name}}}"
        elif not written.startswith("{{"):
            hint = did_you_mean(name, PLACEHOLDERS)
            known = "known: " + ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            yield f"unknown placeholder {written}", hint if hint.startswith("did") else known


def texts_in(value: Any, place: Location) -> Iterator[tuple[Location, str]]:
    """Yield every text in plain data with the way to it."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_in(inner, (*place, key))
