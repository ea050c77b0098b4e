"""What a picture is made of: shapes and words in pixels, colours by what they mean, and the same figures as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WIDTH_PX = 960


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle; `hint` is said where a pointer rests on it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A line of text; `y` is its baseline."""

    x: float
    y: float
    text: str
    size: float = 14.0
    fill: str = "ink"
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    color: str
    width: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ribbon:
    """A band of even height that flows from one edge to another."""

    x1: float
    top1: float
    x2: float
    top2: float
    height: float
    fill: str
    hint: str = ""
    opacity: float = 0.55


Shape = Box | Words | Stroke | Ribbon


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The figures of a picture for those who do not see it; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawing of WIDTH_PX by `height` pixels, with its title, what it says in a sentence, and its figures."""

    title: str
    subtitle: str
    alt: str
    height: float
    shapes: tuple[Shape, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
