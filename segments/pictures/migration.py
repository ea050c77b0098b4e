"""Who moved from which group to which between two dates, as bands that flow from left to right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from segments.pictures.scene import WIDTH_PX, Box, Picture, Ribbon, Shape, Table, Words
from segments.pictures.words import count, counted, date_in_words, name_in_words, percent, width_px, wrapped

NOT_YET = "not yet"
"""The group before of who had not bought by the first date."""
NO_LONGER = "no longer"
"""The group after of who is in no group any more: every order cancelled, or outside the window."""
_FLOWS_PX = 460
_LINE_PX = 16
_SIDE_PX = 205
_NODE_PX = 14
_HEAD_PX = 34
_THINNEST_PX = 0.6
_MEANINGS = {
    "stay": "stayed",
    "up": "moved to a better group",
    "down": "moved to a worse group",
    "joined": "came new",
    "gone": "left the groups",
}
_UNORDERED = {"up": "moved"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """So many subjects were in one group and are in another, or the same."""

    before: str
    after: str
    subjects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """Everybody who is in a group on one of two dates. `groups` in their order; `ordered`: the first is the best."""

    subject: str
    kind: str
    since: datetime
    until: datetime
    groups: tuple[str, ...]
    flows: tuple[Flow, ...]
    ordered: bool = True
    names: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


def migration_picture(migration: Migration) -> Picture:
    """Return the flows between the groups of two dates, in the same order on both sides."""
    order = _order(migration)
    flows = sorted(
        (flow for flow in migration.flows if flow.subjects > 0),
        key=lambda flow: (order.index(flow.before), order.index(flow.after)),
    )
    total = sum(flow.subjects for flow in flows)
    scale = _FLOWS_PX / total if total else 0.0
    # Clusters are called by what they are like: such names take two lines.
    slot = _LINE_PX * (3 if migration.names else 2) + 10
    sides = (_side(flows, order, scale, slot, before=True), _side(flows, order, scale, slot, before=False))
    dates = f"{date_in_words(migration.since)} to {date_in_words(migration.until)}"
    bottom = max((top + height for side in sides for top, height in side.values()), default=_HEAD_PX)
    shapes = [
        *_heads(migration),
        *_ribbons(migration, flows, sides, scale),
        *_nodes(migration, flows, sides, total),
        *_legend(migration, flows, bottom + 40),
    ]
    return Picture(
        title=f"Movement between {migration.kind}",
        subtitle=f"{counted(total, migration.subject)}, {dates}",
        alt=_alt(migration, flows, total),
        height=bottom + 54,
        shapes=tuple(shapes),
        tables=(_summary_table(migration, flows, total), _matrix(migration, flows, order)),
        notes=migration.notes,
    )


def _order(migration: Migration) -> list[str]:
    """Return all groups in their order; whatever the map does not know, and who has none, come last."""
    met = {name for flow in migration.flows for name in (flow.before, flow.after)}
    outside = (NOT_YET, NO_LONGER)
    strange = sorted(met - set(migration.groups) - set(outside))
    return [*migration.groups, *strange, *outside]


def _name(migration: Migration, group: str) -> str:
    if group == NOT_YET:
        return "In no group before"
    if group == NO_LONGER:
        return "In no group any more"
    return (migration.names or {}).get(group) or name_in_words(group)


def _meaning(migration: Migration, flow: Flow) -> str:
    if flow.before == flow.after:
        return "stay"
    if flow.before == NOT_YET:
        return "joined"
    if flow.after == NO_LONGER:
        return "gone"
    if not migration.ordered:
        return "up"
    order = _order(migration)
    return "up" if order.index(flow.after) < order.index(flow.before) else "down"


def _side(
    flows: Iterable[Flow], order: list[str], scale: float, least_px: float, *, before: bool
) -> dict[str, tuple[float, float]]:
    """Return top and height of each group's node on one side; every node has at least so much room for its words."""
    sums: dict[str, int] = defaultdict(int)
    for flow in flows:
        sums[flow.before if before else flow.after] += flow.subjects
    nodes = {}
    top = float(_HEAD_PX)
    for group in order:
        if sums[group]:
            height = sums[group] * scale
            slot = max(height + 8, least_px)
            nodes[group] = (top + (slot - 8 - height) / 2 if slot > height + 8 else top, height)
            top += slot
    return nodes


def _heads(migration: Migration) -> list[Shape]:
    return [
        Words(x=_SIDE_PX + _NODE_PX, y=16, text=date_in_words(migration.since), size=13, fill="muted", anchor="end"),
        Words(x=WIDTH_PX - _SIDE_PX - _NODE_PX, y=16, text=date_in_words(migration.until), size=13, fill="muted"),
    ]


def _ribbons(
    migration: Migration,
    flows: list[Flow],
    sides: tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]],
    scale: float,
) -> list[Ribbon]:
    leaving = {group: top for group, (top, _) in sides[0].items()}
    arriving = {group: top for group, (top, _) in sides[1].items()}
    ribbons = []
    for flow in flows:  # In the order of both sides: bands of one node neither cross nor overlap at its edge.
        height = flow.subjects * scale
        meaning = _meaning(migration, flow)
        names = f"{_name(migration, flow.before)} → {_name(migration, flow.after)}"
        ribbons.append(
            Ribbon(
                x1=_SIDE_PX + _NODE_PX,
                top1=leaving[flow.before],
                x2=WIDTH_PX - _SIDE_PX - _NODE_PX,
                top2=arriving[flow.after],
                height=max(height, _THINNEST_PX),
                fill=meaning,
                hint=f"{names}: {count(flow.subjects)}",
                opacity=0.45 if meaning == "stay" else 0.7,
            )
        )
        leaving[flow.before] += height
        arriving[flow.after] += height
    # Who moved is drawn over who stayed.
    return sorted(ribbons, key=lambda ribbon: ribbon.fill != "stay")


def _nodes(
    migration: Migration,
    flows: list[Flow],
    sides: tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]],
    total: int,
) -> list[Shape]:
    shapes: list[Shape] = []
    for place, side in enumerate(sides):
        sums: dict[str, int] = defaultdict(int)
        for flow in flows:
            sums[(flow.before, flow.after)[place]] += flow.subjects
        x = _SIDE_PX if place == 0 else WIDTH_PX - _SIDE_PX - _NODE_PX
        anchor: Literal["start", "end"] = "end" if place == 0 else "start"
        text_x = x - 8 if place == 0 else x + _NODE_PX + 8
        for group, (top, height) in side.items():
            figures = f"{count(sums[group])} · {percent(sums[group] / total)}"
            shapes.append(Box(x=x, y=top, width=_NODE_PX, height=max(height, 1.5), fill="ink"))
            lines = wrapped(_name(migration, group), _SIDE_PX - 10, 13.5, lines=2 if migration.names else 1)
            y = top + height / 2 - 2 - _LINE_PX * (len(lines) - 1) / 2
            for line in lines:
                shapes.append(Words(x=text_x, y=y, text=line, size=13.5, anchor=anchor))
                y += _LINE_PX
            shapes.append(Words(x=text_x, y=y, text=figures, size=12, fill="muted", anchor=anchor))
    return shapes


def _words(migration: Migration, meaning: str) -> str:
    return _MEANINGS[meaning] if migration.ordered else _UNORDERED.get(meaning, _MEANINGS[meaning])


def _sums(migration: Migration, flows: Iterable[Flow]) -> dict[str, int]:
    sums: dict[str, int] = dict.fromkeys(_MEANINGS, 0)
    for flow in flows:
        sums[_meaning(migration, flow)] += flow.subjects
    return {meaning: number for meaning, number in sums.items() if number}


def _legend(migration: Migration, flows: list[Flow], top: float) -> list[Shape]:
    shapes: list[Shape] = []
    x = 0.0
    for meaning, number in _sums(migration, flows).items():
        text = f"{count(number)} {_words(migration, meaning)}"
        shapes.append(Box(x=x, y=top - 11, width=14, height=12, fill=meaning))
        shapes.append(Words(x=x + 20, y=top, text=text, size=12.5))
        x += 20 + width_px(text, 12.5) + 14
    return shapes


def _alt(migration: Migration, flows: list[Flow], total: int) -> str:
    if not total:
        return f"No {migration.subject} was in a group on either date."
    told = ", ".join(
        f"{count(number)} ({percent(number / total)}) {_words(migration, meaning)}"
        for meaning, number in _sums(migration, flows).items()
    )
    moved = [flow for flow in flows if flow.before != flow.after]
    if not moved:
        return f"Of {counted(total, migration.subject)} {told}."
    most = max(moved, key=lambda flow: flow.subjects)
    names = f"from {_name(migration, most.before)} to {_name(migration, most.after)}"
    return f"Of {counted(total, migration.subject)} {told}. The largest move is {names}: {count(most.subjects)}."


def _summary_table(migration: Migration, flows: list[Flow], total: int) -> Table:
    rows = tuple(
        (_words(migration, meaning).capitalize(), count(number), percent(number / total))
        for meaning, number in _sums(migration, flows).items()
    )
    whose = f"{migration.subject}s"
    columns = ("What became of them", whose.capitalize(), "Share")
    return Table(caption="Movement in sum", columns=columns, rows=rows)


def _matrix(migration: Migration, flows: list[Flow], order: list[str]) -> Table:
    numbers = {(flow.before, flow.after): flow.subjects for flow in flows}
    after = [group for group in order if any(flow.after == group for flow in flows)]
    rows = tuple(
        (_name(migration, group), *(count(numbers.get((group, other), 0)) for other in after))
        for group in order
        if any(flow.before == group for flow in flows)
    )
    columns = ("From ↓ to →", *(_name(migration, group) for group in after))
    return Table(caption="From the group of the first date to that of the second", columns=columns, rows=rows)
