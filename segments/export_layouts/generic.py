"""A layout for everybody else: hashed e-mail and phone under names that say so, and nothing more."""

from __future__ import annotations

from segments.export_layouts.layout import Layout, Person


def _same(address: str) -> str:
    return address


def _nothing(_person: Person) -> tuple[str, ...]:
    return ()


LAYOUT = Layout(name="generic", columns=("email_sha256", "phone_sha256"), email=_same, phone=_same, rest=_nothing)
