"""The RFM grid as a heat map, and its groups as bars: how many buyers stand where, and what they are worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from segments.pictures.colors import HEAT_STEPS, heat_step
from segments.pictures.scene import WIDTH_PX, Box, Picture, Shape, Stroke, Table, Words
from segments.pictures.words import (
    count,
    count_within,
    counted,
    date_in_words,
    fitted,
    money,
    name_in_words,
    percent,
    width_px,
)

_LEFT_PX = 96
_HEAD_PX = 8
_GAP_PX = 3
_BAR_ROW_PX = 32
_NAME_PX = 190
_SMALL_GRID = 6
"""Up to so many scores there is room for words in every cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Buyers of one recency and frequency score in one group; money in minor units."""

    r: int
    f: int
    group: str
    buyers: int
    money_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RfmGrid:
    """Everyone scored as of an instant. `groups` in the order of the map, best first; `scores` from 1 to how many."""

    subject: str
    as_of: datetime
    currency: str
    scores: int
    groups: tuple[str, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    money_word: str = "money"


def rfm_picture(grid: RfmGrid) -> Picture:
    """Return the heat map over the bars of the groups; with nobody scored, an empty grid that says so."""
    groups = _by_group(grid)
    buyers, worth = sum(cell.buyers for cell in grid.cells), sum(cell.money_minor for cell in grid.cells)
    shapes, height = _heat_map(grid, buyers)
    bars, height = _group_bars(grid, groups, top=height + 30)
    whole = (
        f"{counted(buyers, grid.subject)} that {'has' if buyers == 1 else 'have'} bought"
        if buyers
        else f"no {grid.subject} has bought"
    )
    return Picture(
        title="RFM groups",
        subtitle=f"{whole}, {money(worth, grid.currency)} in all, as of {date_in_words(grid.as_of)}",
        alt=_alt(grid, groups, buyers, worth),
        height=height,
        shapes=(*shapes, *bars),
        tables=(_group_table(grid, groups, buyers, worth), _cell_table(grid)),
        notes=grid.notes,
    )


def _by_group(grid: RfmGrid) -> dict[str, tuple[int, int]]:
    """Return buyers and money of every group of the map; groups outside it, if any, come last."""
    sums: dict[str, tuple[int, int]] = dict.fromkeys(grid.groups, (0, 0))
    for cell in grid.cells:
        buyers, worth = sums.get(cell.group, (0, 0))
        sums[cell.group] = (buyers + cell.buyers, worth + cell.money_minor)
    return sums


def _places(grid: RfmGrid) -> dict[tuple[int, int], list[Cell]]:
    """Return the cells by R and F; where M decides too, one place has several groups, the largest first."""
    places: dict[tuple[int, int], list[Cell]] = defaultdict(list)
    for cell in grid.cells:
        places[cell.r, cell.f].append(cell)
    return {place: sorted(cells, key=lambda cell: (-cell.buyers, cell.group)) for place, cells in places.items()}


def _heat_map(grid: RfmGrid, buyers: int) -> tuple[list[Shape], float]:
    places = _places(grid)
    largest = max((sum(cell.buyers for cell in cells) for cells in places.values()), default=0)
    width = (WIDTH_PX - _LEFT_PX) / grid.scores
    height = 84.0 if grid.scores <= _SMALL_GRID else 46.0
    shapes: list[Shape] = []
    for row, r in enumerate(range(grid.scores, 0, -1)):
        top = _HEAD_PX + row * height
        shapes.extend(_row_label(grid, r, top + height / 2))
        for f in range(1, grid.scores + 1):
            box = (_LEFT_PX + (f - 1) * width, top, width - _GAP_PX, height - _GAP_PX)
            shapes.extend(_cell(grid, places.get((r, f), []), (r, f), box, largest, buyers))
    bottom = _HEAD_PX + grid.scores * height
    for f in range(1, grid.scores + 1):
        label = f"F {f}" + {1: " · fewest orders", grid.scores: " · most orders"}.get(f, "")
        middle = _LEFT_PX + (f - 0.5) * width
        shapes.append(Words(x=middle, y=bottom + 18, text=label if width > 130 else f"F {f}", size=13, anchor="middle"))
    shapes.extend(_scale(bottom + 34, counted(largest, grid.subject)))
    return shapes, bottom + 50


def _row_label(grid: RfmGrid, r: int, middle: float) -> list[Shape]:
    extra = {grid.scores: "latest", 1: "longest ago"}.get(r, "")
    label = [Words(x=0, y=middle + (0 if extra else 5), text=f"R {r}", size=13)]
    return [*label, Words(x=0, y=middle + 17, text=extra, size=12, fill="muted")] if extra else [*label]


def _cell(
    grid: RfmGrid,
    cells: Sequence[Cell],
    place: tuple[int, int],
    box: tuple[float, float, float, float],
    largest: int,
    buyers: int,
) -> list[Shape]:
    x, y, width, height = box
    here, worth = sum(cell.buyers for cell in cells), sum(cell.money_minor for cell in cells)
    step = heat_step(here / largest if largest else 0)
    writing = f"on-heat{step}"
    names = ", ".join(name_in_words(cell.group) for cell in cells)
    hint = (
        f"R {place[0]}, F {place[1]}: {names or 'nobody'}; {counted(here, grid.subject)}, {money(worth, grid.currency)}"
    )
    shapes: list[Shape] = [Box(x=x, y=y, width=width, height=height, fill=f"heat{step}", hint=hint)]
    if not here:
        return [*shapes, Words(x=x + 10, y=y + 26, text="0", size=14, fill=writing)]
    if grid.scores > _SMALL_GRID:
        said = count_within(here, width - 16, 13, bold=True)
        return [*shapes, Words(x=x + 8, y=y + 27, text=said, size=13, fill=writing, bold=True)]
    more = f" +{len(cells) - 1}" if len(cells) > 1 else ""
    name = fitted(name_in_words(cells[0].group), width - 20 - 18 * bool(more), 12.5) + more
    figures = f"{percent(here / buyers)} · {money(worth, grid.currency)}"
    return [
        *shapes,
        Words(x=x + 10, y=y + 26, text=count(here), size=19, fill=writing, bold=True),
        Words(x=x + 10, y=y + 46, text=fitted(figures, width - 16, 12.5), size=12.5, fill=writing),
        Words(x=x + 10, y=y + 68, text=name, size=12.5, fill=writing),
    ]


def _scale(top: float, most: str) -> list[Shape]:
    """Draw the legend: colour means how many."""
    x = WIDTH_PX - 26 * HEAT_STEPS - 16 - width_px(most, 12)
    words = Words(x=x - 18, y=top + 11, text="0", size=12, fill="muted", anchor="start")
    steps: list[Shape] = [
        Box(x=x + 26 * step, y=top, width=25, height=12, fill=f"heat{step}") for step in range(HEAT_STEPS)
    ]
    return [words, *steps, Words(x=x + 26 * HEAT_STEPS + 8, y=top + 11, text=most, size=12, fill="muted")]


def _group_bars(grid: RfmGrid, groups: Mapping[str, tuple[int, int]], *, top: float) -> tuple[list[Shape], float]:
    """Draw each group's share of the buyers and of the money side by side, on scales of their own."""
    column = (WIDTH_PX - _NAME_PX) / 2
    room = column - 150
    buyers, worth = (sum(figures[place] for figures in groups.values()) for place in (0, 1))
    tallest = [max((figures[place] for figures in groups.values()), default=0) or 1 for place in (0, 1)]
    heads = (f"{grid.subject.capitalize()}s", grid.money_word.capitalize())
    shapes: list[Shape] = [
        Words(x=_NAME_PX + column * place, y=top, text=head, size=13, fill="muted") for place, head in enumerate(heads)
    ]
    shapes.append(Stroke(x1=0, y1=top + 8, x2=WIDTH_PX, y2=top + 8, color="rule"))
    for row, (group, figures) in enumerate(groups.items()):
        middle = top + 10 + _BAR_ROW_PX * (row + 0.5)
        name = name_in_words(group)
        shapes.append(Words(x=0, y=middle + 5, text=fitted(name, _NAME_PX - 14, 14), size=14))
        said = (
            f"{count(figures[0])} · {percent(figures[0] / buyers)}" if buyers else "0",
            f"{money(figures[1], grid.currency)} · {percent(figures[1] / worth)}"
            if worth > 0 and figures[1] >= 0
            else money(figures[1], grid.currency),
        )
        for place, (figure, color) in enumerate(zip(said, ("bar", "second"), strict=True)):
            x = _NAME_PX + column * place
            length = max(figures[place], 0) / tallest[place] * room
            shapes.append(
                Box(x=x, y=middle - 8, width=max(length, 1.5), height=16, fill=color, hint=f"{name}: {figure}")
            )
            shapes.append(Words(x=x + length + 8, y=middle + 5, text=figure, size=13))
    return shapes, top + 14 + _BAR_ROW_PX * len(groups)


def _alt(grid: RfmGrid, groups: Mapping[str, tuple[int, int]], buyers: int, worth: int) -> str:
    if not buyers:
        return f"No {grid.subject} had bought by {date_in_words(grid.as_of)}."
    largest = sorted((group for group in groups if groups[group][0]), key=lambda group: -groups[group][0])[:3]
    richest = max(groups, key=lambda group: groups[group][1])
    share = f" ({percent(groups[richest][1] / worth)})" if worth > 0 else ""
    earned = f"{money(groups[richest][1], grid.currency)}{share}"
    return (
        f"{_where(grid, groups, largest, buyers)} Most {grid.money_word} comes from {name_in_words(richest)}: {earned}."
    )


def _where(grid: RfmGrid, groups: Mapping[str, tuple[int, int]], largest: Sequence[str], buyers: int) -> str:
    """Return the sentence of the largest groups, of those that hold anybody."""
    if buyers == 1:
        return f"The one {grid.subject} is in {name_in_words(largest[0])}."
    if len(largest) == 1:
        return f"All {count(buyers)} {grid.subject}s are in {name_in_words(largest[0])}."
    told = ", ".join(f"{name_in_words(group)} {percent(groups[group][0] / buyers)}" for group in largest)
    return f"Most of the {count(buyers)} {grid.subject}s are in {told}."


def _group_table(grid: RfmGrid, groups: Mapping[str, tuple[int, int]], buyers: int, worth: int) -> Table:
    rows = tuple(
        (
            name_in_words(group),
            count(figures[0]),
            percent(figures[0] / buyers) if buyers else "–",
            money(figures[1], grid.currency),
            percent(figures[1] / worth) if worth > 0 and figures[1] >= 0 else "–",
            money(figures[1] / figures[0], grid.currency) if figures[0] else "–",
        )
        for group, figures in groups.items()
    )
    whose = f"{grid.subject}s"
    columns = ("Group", whose.capitalize(), f"Share of {whose}", grid.money_word.capitalize(), "Share", "Average")
    return Table(caption="Groups, best first", columns=columns, rows=rows)


def _cell_table(grid: RfmGrid) -> Table:
    places = _places(grid)
    rows = []
    for r in range(grid.scores, 0, -1):
        told = []
        for f in range(1, grid.scores + 1):
            cells = places.get((r, f), [])
            names = ", ".join(name_in_words(cell.group) for cell in cells)
            told.append(f"{count(sum(cell.buyers for cell in cells))} ({names})" if cells else "0")
        rows.append((f"R {r}", *told))
    columns = ("Recency", *(f"F {f}" for f in range(1, grid.scores + 1)))
    return Table(caption=f"{grid.subject.capitalize()}s by recency and frequency", columns=columns, rows=tuple(rows))
