"""What an audit says: of each promise how much was looked at, what breaks it, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from kernel.settings import Workspace

SHOWN = 20
"""So many ids stand with each breach: enough to look at, few enough to print."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One way in which a promise does not hold: how often, the first ids, and what to do about it."""

    what: str
    count: int
    ids: tuple[int, ...]
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something worth knowing that breaks nothing."""

    text: str


Finding = Breach | Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A promise of docs/architecture.md and how it is recounted. `number` is None for the comparison with a log."""

    number: int | None
    says: str
    recount: Callable[[Connection, Workspace], Iterator[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recounted:
    """A promise after its recount."""

    number: int | None
    says: str
    breaches: tuple[Breach, ...]
    notes: tuple[str, ...] = field(default=())
    took_s: float

    @property
    def holds(self) -> bool:
        return not self.breaches


def breach(ids: Iterable[int], what: str, remedy: str) -> Iterator[Breach]:
    """Yield one breach if there is any id; `{n}` in `what` becomes their number."""
    found: Sequence[int] = list(ids)
    if found:
        shown = tuple(found[:SHOWN])
        yield Breach(what=what.format(n=f"{len(found):,}"), count=len(found), ids=shown, remedy=remedy)
