"""Text from strangers made fit for any database."""

from __future__ import annotations


def clean_text(value: str, limit: int) -> str:
    """Return text any database takes: at most `limit` characters, without NUL and lone surrogates."""
    return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")[:limit]
