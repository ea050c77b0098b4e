"""What each cluster of buyers is like: size, worth, and how far its medians stand from everybody's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from segments.pictures.colors import GAP_STEPS, gap_step
from segments.pictures.scene import WIDTH_PX, Box, Picture, Shape, Table, Words
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
    wrapped,
)

_NAME_PX = 250
_SHARES_PX = 150
_ROW_PX = 78
_HEAD_PX = 56
_GAP_PX = 3
_FEATURES = {
    "recency_days": "Days since last order",
    "orders": "Orders",
    "net": "Money",
    "average_order": "Average order",
    "gap_days": "Days between orders",
    "products": "Different products",
    "return_share": "Returned share",
    "tenure_days": "Days as a customer",
}
MONEY_FEATURES = frozenset({"net", "average_order"})
_SHARES = frozenset({"return_share"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One cluster: `medians` of the raw features and `gaps` from all buyers in standard deviations, by position.

    Money in minor units; `revenue_share` and single medians may be None or nan where nothing is known.
    """

    key: str
    name: str
    size: int
    share: float
    revenue_share: float | None
    medians: tuple[float, ...]
    gaps: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterProfiles:
    """The clusters of one model; `features` are its columns, by name."""

    subject: str
    as_of: datetime
    currency: str
    features: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    notes: tuple[str, ...] = ()


def cluster_picture(profiles: ClusterProfiles) -> Picture:
    """Return one row per cluster, the one with the most revenue on top."""
    clusters = sorted(profiles.clusters, key=lambda one: (-(one.revenue_share or 0), -one.size, len(one.key), one.key))
    shapes: list[Shape] = [*_heads(profiles)]
    for row, cluster in enumerate(clusters):
        shapes.extend(_row(profiles, cluster, top=_HEAD_PX + row * _ROW_PX))
    bottom = _HEAD_PX + len(clusters) * _ROW_PX
    shapes.extend(_scale(bottom + 12))
    whole = f"{counted(sum(one.size for one in clusters), profiles.subject)} in {counted(len(clusters), 'cluster')}"
    return Picture(
        title="Clusters",
        subtitle=f"{whole}, as of {date_in_words(profiles.as_of)}",
        alt=_alt(profiles, clusters),
        height=bottom + 46,
        shapes=tuple(shapes),
        tables=(_table(profiles, clusters),),
        notes=profiles.notes,
    )


def feature_in_words(name: str) -> str:
    """Return the name of a feature as a person reads it."""
    return _FEATURES.get(name) or name_in_words(name)


def median_in_words(feature: str, value: float, currency: str) -> str:
    """Return a median in its unit; "–" where there is none."""
    if math.isnan(value):
        return "–"
    if feature in MONEY_FEATURES:
        return money(value, currency)
    if feature in _SHARES:
        return percent(value)
    return count(value) if abs(value) >= 10 or value == int(value) else f"{value:.1f}"


def _column_px(profiles: ClusterProfiles) -> float:
    return (WIDTH_PX - _NAME_PX - _SHARES_PX) / max(len(profiles.features), 1)


def _heads(profiles: ClusterProfiles) -> list[Shape]:
    shapes: list[Shape] = [
        Words(x=_NAME_PX, y=_HEAD_PX - 26, text="Share of", size=12, fill="muted"),
        Words(x=_NAME_PX, y=_HEAD_PX - 10, text=f"{profiles.subject}s, revenue", size=12, fill="muted"),
    ]
    width = _column_px(profiles)
    for place, feature in enumerate(profiles.features):
        lines = wrapped(feature_in_words(feature), width - 8, 12, lines=3)
        x = _NAME_PX + _SHARES_PX + width * (place + 0.5)
        for line, text in enumerate(lines):
            y = _HEAD_PX - 10 - 16 * (len(lines) - 1 - line)
            shapes.append(Words(x=x, y=y, text=text, size=12, fill="muted", anchor="middle"))
    return shapes


def _row(profiles: ClusterProfiles, cluster: Cluster, *, top: float) -> list[Shape]:
    lines = wrapped(cluster.name, _NAME_PX - 16, 14, bold=True)
    shapes: list[Shape] = [Words(x=0, y=top + 24 + 19 * line, text=text, bold=True) for line, text in enumerate(lines)]
    about = fitted(f"{cluster.key} · {counted(cluster.size, profiles.subject)}", _NAME_PX - 16, 12.5)
    shapes.append(Words(x=0, y=top + 24 + 19 * len(lines), text=about, size=12.5, fill="muted"))
    shapes.extend(_shares(cluster, top))
    width = _column_px(profiles)
    for place, feature in enumerate(profiles.features):
        step = gap_step(cluster.gaps[place]) if not math.isnan(cluster.gaps[place]) else GAP_STEPS // 2
        x = _NAME_PX + _SHARES_PX + width * place
        median = cluster.medians[place]
        said = median_in_words(feature, median, profiles.currency)
        hint = f"{cluster.name}: {feature_in_words(feature)} {said}, {_gap_in_words(cluster.gaps[place])}"
        box = Box(x=x, y=top, width=width - _GAP_PX, height=_ROW_PX - _GAP_PX, fill=f"gap{step}", hint=hint)
        text = count_within(median, width - 10, 15) if width_px(said, 15) > width - 10 else said
        words = Words(x=x + width / 2, y=top + 44, text=text, size=15, fill=f"on-gap{step}", anchor="middle")
        shapes.extend((box, words))
    return shapes


def _shares(cluster: Cluster, top: float) -> list[Shape]:
    shapes: list[Shape] = []
    room = _SHARES_PX - 66
    for line, (share, color) in enumerate(((cluster.share, "bar"), (cluster.revenue_share, "second"))):
        y = top + 12 + 28 * line
        shapes.append(Box(x=_NAME_PX, y=y, width=room, height=16, fill="track"))
        if share is not None:
            shapes.append(Box(x=_NAME_PX, y=y, width=max(room * min(max(share, 0), 1), 1.5), height=16, fill=color))
        text = percent(share) if share is not None else "–"
        shapes.append(Words(x=_NAME_PX + room + 6, y=y + 13, text=text, size=13))
    return shapes


def _scale(top: float) -> list[Shape]:
    width = 30
    x = WIDTH_PX - GAP_STEPS * width - 90
    return [
        Words(x=x - 8, y=top + 12, text="far below all buyers", size=12, fill="muted", anchor="end"),
        *(Box(x=x + width * step, y=top, width=width - 1, height=14, fill=f"gap{step}") for step in range(GAP_STEPS)),
        Words(x=x + GAP_STEPS * width + 6, y=top + 12, text="far above", size=12, fill="muted"),
    ]


def _gap_in_words(gap: float) -> str:
    if math.isnan(gap):
        return "no comparison"
    step = gap_step(gap) - GAP_STEPS // 2
    degree = ("like all buyers", "somewhat", "well", "far")[abs(step)]
    return degree if not step else f"{degree} {'above' if step > 0 else 'below'} all buyers"


def _alt(profiles: ClusterProfiles, clusters: list[Cluster]) -> str:
    if not clusters:
        return f"There are no clusters of {profiles.subject}s yet."
    told = []
    for cluster in (one for one in clusters if one.size):
        worth = f", {percent(cluster.revenue_share)} of revenue" if cluster.revenue_share is not None else ""
        told.append(f"{cluster.name} ({cluster.key}): {percent(cluster.share)} of {profiles.subject}s{worth}")
    return "; ".join(told) + "."


def _table(profiles: ClusterProfiles, clusters: list[Cluster]) -> Table:
    rows = tuple(
        (
            f"{cluster.name} ({cluster.key})",
            count(cluster.size),
            percent(cluster.share),
            percent(cluster.revenue_share) if cluster.revenue_share is not None else "–",
            *(
                f"{median_in_words(feature, median, profiles.currency)} ({_gap_in_words(gap)})"
                for feature, median, gap in zip(profiles.features, cluster.medians, cluster.gaps, strict=True)
            ),
        )
        for cluster in clusters
    )
    whose = f"{profiles.subject}s"
    names = tuple(feature_in_words(feature) for feature in profiles.features)
    columns = ("Cluster", whose.capitalize(), f"Share of {whose}", "Share of revenue", *names)
    return Table(caption="Medians of each cluster, and how they stand to all buyers", columns=columns, rows=rows)
