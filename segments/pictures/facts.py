"""From the database to pictures: the one place in this folder that reads it. Nothing is written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from kernel.errors import ConfigError
from kernel.quantities import minor_exponent
from kernel.settings import RfmSettings, Workspace
from kernel.vocabulary import Subject
from segments import rfm, rfm_maps, rfm_scoring
from segments.cluster_model import ClusterModel, assign
from segments.cluster_names import profile
from segments.features import features_of
from segments.figures import Figures, origin_of, read_figures
from segments.models import Model, ModelKind, ModelState, standing
from segments.pictures.cluster_profiles import MONEY_FEATURES, Cluster, ClusterProfiles
from segments.pictures.migration import NO_LONGER, NOT_YET, Flow, Migration
from segments.pictures.rfm_grid import Cell, RfmGrid
from segments.pictures.words import date_in_words
from segments.purchases import Ints
from segments.rfm_live import score
from segments.rfm_scoring import RfmModel
from store.tables import profiles

_MONEY_WORDS = {"net": "revenue", "average": "revenue", "gross": "gross revenue", "margin": "margin"}


def rfm_grid(connection: Connection, workspace: Workspace, *, subject: Subject, as_of: datetime | None) -> RfmGrid:
    """Return the RFM grid as of a date, scored on the spot; with None the current scores, as segments read them.

    Raises:
        ConfigError: there are no current scores, or as `segments.rfm_live.score`.
    """
    if as_of is None:
        return _current_grid(connection, workspace, subject)
    settings, currency = workspace.settings.rfm, workspace.settings.currency
    found = score(connection, settings, subject=subject, as_of=as_of, currency=currency)
    worth = found.behaviour.monetary * (found.behaviour.frequency if settings.monetary == "average" else 1)
    places = np.column_stack([found.axes.r, found.axes.f, found.codes])
    distinct, inverse = np.unique(places, axis=0, return_inverse=True)
    buyers = np.bincount(inverse.ravel(), minlength=len(distinct))
    cells = tuple(
        Cell(r=r, f=f, group=found.names[code], buyers=int(buyers[place]), money_minor=_sum(worth, inverse, place))
        for place, (r, f, code) in enumerate(distinct.tolist())
    )
    return RfmGrid(
        subject=subject,
        as_of=as_of,
        currency=currency,
        scores=found.cutoffs.scores,
        groups=found.names,
        cells=cells,
        notes=tuple(found.warnings),
        money_word=_MONEY_WORDS[settings.monetary],
    )


def rfm_migration(
    connection: Connection, workspace: Workspace, *, subject: Subject, since: datetime, until: datetime
) -> Migration:
    """Return who moved between RFM groups from one date to another, both scored by the same cut-offs.

    They are those of the version that stands, else ones fitted to the first date: nobody moves because of others.

    Raises:
        ConfigError: `since` is not before `until`, or as `segments.rfm_live.score`.
    """
    _in_order(since, until)
    settings, currency = workspace.settings.rfm, workspace.settings.currency
    figures = _figures(connection, workspace, subject, since)
    kept = standing(connection, ModelKind.RFM, subject)
    if kept is not None and kept.options == rfm_scoring.options(settings, currency):
        model, origin = RfmModel.from_json(kept.parameters), _version(kept)
    else:
        model, origin = rfm_scoring.fit(figures, settings, currency=currency).model, f"fitted to {date_in_words(since)}"
    before = _groups(figures, settings, model)
    after = _groups(_figures(connection, workspace, subject, until), settings, model)
    return Migration(
        subject=subject,
        kind="RFM groups",
        since=since,
        until=until,
        groups=model.map.names,
        flows=flows(before, after, model.map.names),
        notes=(f"Both dates are scored by the same cut-offs ({origin}): nobody moves because others did.",),
    )


def cluster_profiles(
    connection: Connection, workspace: Workspace, *, subject: Subject, as_of: datetime
) -> ClusterProfiles:
    """Return what the clusters of the standing model are like as of a date, everybody assigned on the spot.

    Labels that were computed elsewhere cannot be: those are shown as they were when they came.

    Raises:
        ConfigError: there are no clusters, or orders in a currency that cannot be converted.
    """
    kept, model = _clusters(connection, subject)
    currency = workspace.settings.currency
    told: list[dict[str, Any]] = kept.report["profiles"]
    if kept.imported_as is None:
        figures = _figures(connection, workspace, subject, as_of)
        features = features_of(figures, model.names, currency=currency)
        bought = figures.purchases
        fresh = profile(model, assign(model, features), features, bought.net_minor, ids=bought.ids)
        names = {one["key"]: one["name"] for one in told}
        told = [{**one.to_json(), "name": names.get(one.key, one.name)} for one in fresh]
    return ClusterProfiles(
        subject=subject,
        as_of=as_of if kept.imported_as is None else kept.as_of,
        currency=currency,
        features=model.names,
        clusters=tuple(_cluster(one, model.names, 10 ** minor_exponent(currency)) for one in told),
        notes=_cluster_notes(kept, subject),
    )


def cluster_migration(
    connection: Connection, workspace: Workspace, *, subject: Subject, since: datetime, until: datetime
) -> Migration:
    """Return who moved between clusters from one date to another, both assigned by the centroids of one model.

    Raises:
        ConfigError: `since` is not before `until`; there are no clusters, or their labels were computed elsewhere.
    """
    _in_order(since, until)
    kept, model = _clusters(connection, subject)
    if kept.imported_as is not None:
        raise ConfigError(
            f"the clusters of {subject}s were computed elsewhere ({kept.imported_as}), so what they were at another "
            "date is not known here"
        )
    sides = []
    for at in (since, until):
        figures = _figures(connection, workspace, subject, at)
        features = features_of(figures, model.names, currency=workspace.settings.currency)
        sides.append((figures.purchases.ids, assign(model, features)))
    told = sorted(kept.report["profiles"], key=lambda one: -(one["revenue_share"] or 0))
    return Migration(
        subject=subject,
        kind="clusters",
        since=since,
        until=until,
        groups=tuple(one["key"] for one in told),
        flows=flows(sides[0], sides[1], model.keys),
        ordered=False,
        names={one["key"]: _sentence(one["name"]) for one in told},
        notes=(f"Both dates are assigned by the centroids of {_version(kept)}: nobody moves because others did.",),
    )


def flows(before: tuple[Ints, Ints], after: tuple[Ints, Ints], names: tuple[str, ...]) -> tuple[Flow, ...]:
    """Return how many subjects went from which group to which.

    Args:
        before: Ids, ascending, and the position in `names` of each one's group, on the first date.
        after: Likewise on the second.
        names: Of the groups.
    """
    everybody = np.union1d(before[0], after[0])
    sides = []
    for ids, codes in (before, after):
        place = np.full(len(everybody), -1, dtype=np.int64)
        place[np.searchsorted(everybody, ids)] = codes
        sides.append(place.tolist())
    numbers = Counter(zip(*sides, strict=True))
    return tuple(
        Flow(
            before=names[was] if was >= 0 else NOT_YET,
            after=names[now] if now >= 0 else NO_LONGER,
            subjects=number,
        )
        for (was, now), number in sorted(numbers.items())
    )


def _current_grid(connection: Connection, workspace: Workspace, subject: Subject) -> RfmGrid:
    model = standing(connection, ModelKind.RFM, subject)
    if model is None:
        raise ConfigError(
            f"RFM scores of {subject}s were never computed: run `carillon segments refresh`, or name a date by --as-of"
        )
    settings = workspace.settings.rfm
    # Children scored as their parent bear its figures: counted once, as the parent.
    own = (profiles.c.subject == subject, profiles.c.subject_id == profiles.c.scored_as, profiles.c.r.is_not(None))
    worth = (
        profiles.c.monetary_minor * profiles.c.frequency
        if settings.monetary == "average"
        else profiles.c.monetary_minor
    )
    place = (profiles.c.r, profiles.c.f, profiles.c.rfm_segment)
    query = select(*place, func.count(), func.sum(worth)).where(*own).group_by(*place).order_by(*place)
    cells = tuple(
        Cell(r=r, f=f, group=group or "", buyers=buyers, money_minor=int(money))
        for r, f, group, buyers, money in connection.execute(query)
    )
    at = connection.execute(select(func.max(profiles.c.scored_at)).where(*own)).scalar_one()
    frozen = RfmModel.from_json(model.parameters)
    return RfmGrid(
        subject=subject,
        as_of=at or model.as_of,
        currency=workspace.settings.currency,
        scores=frozen.cutoffs.scores,
        groups=frozen.map.names,
        cells=cells,
        notes=(
            f"Cut-offs are those of version {model.version}, fitted to {date_in_words(model.as_of)}.",
            *model.report.get("warnings", ()),
        ),
        money_word=_MONEY_WORDS[settings.monetary],
    )


def _groups(figures: Figures, settings: RfmSettings, model: RfmModel) -> tuple[Ints, Ints]:
    measured = rfm_scoring.measure(figures, settings, usual_gap_days=model.usual_gap_days)
    axes = rfm.apply(model.cutoffs, measured.behaviour)
    return figures.purchases.ids[measured.positions], rfm_maps.groups(model.map, axes)


def _figures(connection: Connection, workspace: Workspace, subject: Subject, as_of: datetime) -> Figures:
    settings = workspace.settings
    with origin_of(settings, workspace.root) as origin:
        return read_figures(connection, settings.rfm, origin, subject=subject, as_of=as_of)


def _clusters(connection: Connection, subject: Subject) -> tuple[Model, ClusterModel]:
    kept = standing(connection, ModelKind.CLUSTERS, subject)
    if kept is None:
        raise ConfigError(f"there are no clusters of {subject}s yet: run `carillon clusters fit`")
    if kept.state is ModelState.REFUSED:
        raise ConfigError(f"there are no clusters of {subject}s: {kept.note}")
    return kept, ClusterModel.from_json(kept.parameters)


def _cluster(told: Mapping[str, Any], features: Sequence[str], unit: int) -> Cluster:
    """Return a cluster for the picture, where money is in minor units and what is not known is nan."""
    medians = [told["medians"].get(name) for name in features]
    return Cluster(
        key=told["key"],
        name=_sentence(told["name"]),
        size=told["size"],
        share=told["share"],
        revenue_share=told["revenue_share"],
        medians=tuple(
            math.nan if median is None else median * (unit if name in MONEY_FEATURES else 1)
            for name, median in zip(features, medians, strict=True)
        ),
        gaps=tuple(told["gaps"][name] for name in features),
    )


def _cluster_notes(kept: Model, subject: Subject) -> tuple[str, ...]:
    tree = kept.report.get("tree") or {}
    notes = [f"Clusters are those of {_version(kept)}."]
    if tree:
        notes.append(
            f"{len(tree['rules'])} plain rules put {tree['fidelity']:.0%} of the {subject}s into their cluster."
        )
    return (*notes, *kept.report.get("warnings", ()))


def _sentence(name: str) -> str:
    return name[:1].upper() + name[1:]


def _version(kept: Model) -> str:
    return f"version {kept.version}, of {date_in_words(kept.as_of)}"


def _in_order(since: datetime, until: datetime) -> None:
    if since >= until:
        raise ConfigError(f"--from ({since:%Y-%m-%d %H:%M}) must be before --to ({until:%Y-%m-%d %H:%M})")


def _sum(worth: Ints, inverse: Ints, place: int) -> int:
    return int(worth[inverse.ravel() == place].sum())
