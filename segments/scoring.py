"""Scoring buyers: models are fitted, kept as versions, and applied to everybody or to some; profiles say the result.

Between fits only frozen models are applied, so that nobody's score changes because of others. A model is fitted anew
when there is none, when the settings it depends on have changed, when it is older than its `refit_every`, when the
buyers have drifted away from it, or when asked.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, func, select

from kernel.clock import to_ms
from kernel.ids import digest
from kernel.settings import Settings
from kernel.vocabulary import Subject
from segments import models, profiles
from segments.bench import Bench, Labels
from segments.choosing import Chosen, can_apply, choose, is_current
from segments.figures import Figures, origin_of
from segments.model_kinds import SCORERS
from segments.models import Model, ModelKind
from segments.profiles import Column, Difference, Rows, Words
from segments.purchases import Ints
from store.changes import touch, touch_profiles
from store.columns import reading_widely
from store.engine import reading, writing
from store.tables import segments

Progress = Callable[[str, int, int], None]
"""Called with what is being done now, how many steps are done, and how many there are."""

HERE = Path()
_MODEL_ID = {
    ModelKind.RFM: "rfm_model_id",
    ModelKind.CLUSTERS: "cluster_model_id",
    ModelKind.LIFETIME: "lifetime_model_id",
}
_MANY_MOVED = 20_000
"""Where more profiles move than this, that any may have moved is noted, and not the ids of each."""
_FRESH = -1
"""Stands in columns for the id of a model that is not kept yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRun:
    """What a scoring did. `written` counts profiles made or changed, `removed` those of people who are no buyers now.

    `changed` holds the ids of both, ascending. `models` are the versions applied, `held` those that wait for approval,
    `refitted` the kinds that were fitted anew, `notes` are the ids of what was noted of the moves.
    """

    subject: Subject
    as_of: datetime
    scored: int
    written: int
    removed: int
    changed: Ints
    models: dict[ModelKind, Model]
    held: dict[ModelKind, Model]
    refitted: frozenset[ModelKind]
    warnings: list[str]
    notes: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """All that a scoring would write, with nothing written yet; `whole` where everybody was scored."""

    subject: Subject
    now: datetime
    scored: int
    whole: bool
    chosen: dict[ModelKind, Chosen]
    difference: Difference
    words: Words
    notes: tuple[str, ...]


def refresh_profiles(
    engine: Engine,
    settings: Settings,
    *,
    subject: Subject,
    now: datetime,
    kinds: Collection[ModelKind | str],
    refit: Collection[ModelKind | str] = (),
    only: Ints | None = None,
    labels: Labels | None = None,
    frozen: bool = False,
    root: Path = HERE,
    progress: Progress | None = None,
) -> ProfileRun:
    """Bring the profiles of accounts or contacts to `now`, and keep models that had to be fitted.

    Only rows that differ are written, in short transactions. Who no longer counts as a buyer loses the row.

    Args:
        engine: The database.
        settings: The workspace's.
        subject: Whose profiles.
        now: Aware instant; orders and cancellations at or after it are unknown. Where profiles or segments are of a
            later one already, by a clock that is ahead, it is that.
        kinds: Which models to apply; none: only the facts of the profiles are brought up to date.
        refit: Which of them to fit anew whatever their age.
        only: Just these subjects, by the frozen models, however old; everybody where a model must be made first.
        labels: Clusters computed elsewhere, to be taken over as a version of their own.
        frozen: Apply what stands to everybody, however old; what does not stand yet is fitted.
        root: The workspace's folder, where relative names of files in carillon.yaml (rates, warehouse) start.
        progress: Told of each step.

    Raises:
        ConfigError: settings that contradict each other, or orders in a currency that cannot be converted.
    """
    beside = beside_models(settings, root)  # Before the rates are read: edited meanwhile, they are old at once.
    with reading_widely(engine) as connection:
        computed = compute(
            connection,
            settings,
            subject=subject,
            now=not_before(connection, now),
            kinds=kinds,
            refit=refit,
            only=only,
            labels=labels,
            frozen=frozen,
            root=root,
            progress=progress,
        )
    return _keep(engine, computed, beside=beside, progress=progress)


def ensure_scores(
    engine: Engine,
    settings: Settings,
    *,
    now: datetime,
    max_age: timedelta,
    asked: Collection[tuple[Subject, ModelKind | str]],
    root: Path = HERE,
) -> None:
    """Score those subjects by those kinds of models whose scores are older than `max_age` or of other settings.

    Raises:
        ConfigError: as `refresh_profiles`.
    """
    for subject in Subject:
        with reading(engine) as connection:
            stale = stale_kinds(connection, settings, asked, subject=subject, since=now - max_age, root=root)
        if stale:
            refresh_profiles(engine, settings, subject=subject, now=now, kinds=stale, root=root)


def stale_kinds(
    connection: Connection,
    settings: Settings,
    asked: Collection[tuple[Subject, ModelKind | str]],
    *,
    subject: Subject,
    since: datetime,
    root: Path = HERE,
) -> list[ModelKind]:
    """Return which of the kinds asked of a subject were last applied at or before an instant, or by other settings.

    Among those is what is applied without being fitted: an edited file of rates makes every kind stale.
    """
    found = []
    beside = beside_models(settings, root)
    for kind in sorted({ModelKind(kind) for whose, kind in asked if whose == subject}):
        model = models.standing(connection, kind, subject)
        applied_at = model.applied_at if model else None
        stands = model is not None and is_current(model, settings) and model.report.get(models.APPLIED_WITH) == beside
        if not stands or applied_at is None or applied_at <= since:
            found.append(kind)
    return found


def beside_models(settings: Settings, root: Path) -> str:
    """Return a digest of what profiles depend on beside the facts and what was fitted: rates, warehouse, band."""
    rates = root / settings.rates if settings.rates else None
    # A file that is missing is told as an error by whoever reads the rates, which this digest then leads to.
    content = rates.read_bytes() if rates is not None and rates.is_file() else b""
    warehouse = settings.warehouse.model_dump_json() if settings.warehouse else ""
    return digest(str(settings.rfm.band), settings.currency or "", warehouse, content)


def not_before(connection: Connection, now: datetime) -> datetime:
    """Return `now`, or the latest instant that profiles or segments were brought to, where that is later.

    Hosts' clocks disagree. What was answered for an instant is never answered for an earlier one, since whom time
    touches is looked for only between the last answer's instant and the next's.
    """
    standing = [models.standing(connection, kind, subject) for kind in ModelKind for subject in Subject]
    refreshed: datetime | None = connection.execute(select(func.max(segments.c.refreshed_at))).scalar_one()
    known = [refreshed, *(model.applied_at for model in standing if model is not None)]
    return max([now, *(instant for instant in known if instant is not None)])


def last_scored_at(connection: Connection, subject: Subject, kind: ModelKind | str = ModelKind.RFM) -> datetime | None:
    """Return as of when all accounts or contacts were last scored by a kind of model; None: never."""
    model = models.standing(connection, ModelKind(kind), subject)
    return model.applied_at if model else None


def compute(
    connection: Connection,
    settings: Settings,
    *,
    subject: Subject,
    now: datetime,
    kinds: Collection[ModelKind | str],
    refit: Collection[ModelKind | str] = (),
    only: Ints | None = None,
    labels: Labels | None = None,
    frozen: bool = False,
    root: Path = HERE,
    progress: Progress | None = None,
) -> Computed:
    """Return what `refresh_profiles` would write; arguments and errors as there. Writes nothing."""
    wanted = sorted({ModelKind(kind) for kind in kinds})
    anew = frozenset(ModelKind(kind) for kind in refit)
    steps = len(wanted) + 2
    tell = progress or (lambda _what, _done, _total: None)
    kept = models.listed(connection, subject=subject)
    with origin_of(settings, root) as origin:
        bench = Bench(
            connection=connection,
            settings=settings,
            subject=subject,
            now=now,
            kept=kept,
            origin=origin,
            labels=labels,
        )
        loading: threading.Thread | None = None
        if not all(can_apply(bench, kind) for kind in wanted):
            only = None
            loading = _load_early() if ModelKind.CLUSTERS in wanted else None
        tell(f"figures of {subject}s", 0, steps)
        try:
            figures = bench.figures(as_of=now, only=only)
        finally:
            # An import that outlives the process's end fails loudly beneath the error that ended it.
            if loading is not None:
                loading.join()
        chosen = {}
        for done, kind in enumerate(wanted, start=1):
            tell(f"{kind} of {subject}s", done, steps)
            chosen[kind] = choose(bench, kind, figures, anew=kind in anew, frozen=frozen or only is not None)
    words = _words(kept, chosen)
    held = profiles.read_held(connection, subject, words, only=figures.asked)
    fresh = Rows(ids=figures.subject_ids, columns=_columns(bench, figures, chosen, held, words))
    return Computed(
        subject=subject,
        now=now,
        scored=len(figures.subject_ids),
        whole=only is None,
        chosen=chosen,
        difference=profiles.difference(held, fresh, now_ms=to_ms(now), asked=figures.asked),
        words=words,
        notes=figures.notes,
    )


def _columns(
    bench: Bench, figures: Figures, chosen: Mapping[ModelKind, Chosen], held: Rows, words: Words
) -> dict[str, Column]:
    """Return the columns of the fresh profiles: the facts, and what each model says."""
    columns = _facts(figures)
    for kind, one in chosen.items():
        applied = SCORERS[kind].apply(
            bench, figures, one.parameters, kept=one.applied, facts=columns, held=held, words=words
        )
        model_id = one.applied.id if one.applied else _FRESH
        columns |= {**applied, _MODEL_ID[kind]: np.full(len(figures.subject_ids), model_id, dtype=np.int64)}
    return columns


def _load_early() -> threading.Thread:
    """Load what fitting needs while the database is busy with the figures: a second or two of its own otherwise."""
    loading = threading.Thread(target=lambda: importlib.import_module("sklearn.cluster"))
    loading.start()
    return loading


def _keep(engine: Engine, computed: Computed, *, beside: str, progress: Progress | None) -> ProfileRun:
    applied: dict[ModelKind, Model] = {}
    waiting: dict[ModelKind, Model] = {}
    rows = computed.difference.rows
    steps = len(computed.chosen) + 2
    if progress:
        progress(f"writing profiles of {computed.subject}s", steps - 1, steps)
    with writing(engine) as connection:
        # Before the first profile is written: a note too many costs a question, one too few a wrong segment.
        notes = _note_moves(connection, computed)
        for kind, one in computed.chosen.items():
            if one.fit is not None:
                applied[kind] = models.save(connection, kind, computed.subject, one.fit, as_of=computed.now)
            elif one.kept is not None:
                applied[kind] = one.kept
            if one.waiting is not None:
                waiting[kind] = models.save(connection, kind, computed.subject, one.waiting, as_of=computed.now)
    for kind, model in applied.items():
        column = rows.columns[_MODEL_ID[kind]]
        column[column == _FRESH] = model.id
    now_ms = to_ms(computed.now)
    profiles.write(engine, computed.subject, computed.difference, computed.words, now_ms=now_ms)
    with writing(engine) as connection:
        # And after the last one: a refresh that ran beside this may have used the first note while some were missing.
        notes += _note_moves(connection, computed)
        for model in applied.values() if computed.whole else ():
            models.note_applied(connection, model.id, as_of=computed.now, applied_with=beside)
    if progress:
        progress("done", steps, steps)
    return ProfileRun(
        subject=computed.subject,
        as_of=computed.now,
        scored=computed.scored,
        written=len(rows),
        removed=len(computed.difference.gone),
        changed=computed.difference.ids,
        models=applied,
        held=waiting,
        refitted=frozenset(kind for kind, one in computed.chosen.items() if one.fit or one.waiting),
        warnings=[*computed.notes, *_warnings(applied, waiting)],
        notes=notes,
    )


def _note_moves(connection: Connection, computed: Computed) -> list[int]:
    ids = computed.difference.ids
    if len(ids) > _MANY_MOVED:
        return [touch_profiles(connection, computed.subject)]
    return touch(connection, computed.subject, ids.tolist())


def _facts(figures: Figures) -> dict[str, Column]:
    bought, units = figures.purchases, figures.units
    return {
        "scored_as": bought.ids[units],
        "first_order_at": bought.first_ms[units],
        "last_order_at": bought.last_ms[units],
        "orders": bought.orders[units],
        "days": bought.days[units],
        "net_minor": bought.net_minor[units],
        "returned_minor": bought.returned_minor[units],
        "median_gap_days": figures.median_gap_days[units],
        "products": figures.products[units],
    }


def _words(kept: Collection[Model], chosen: Mapping[ModelKind, Chosen]) -> Words:
    """Return the names of groups and clusters of all versions there ever were, and of those made now."""
    sources: list[tuple[ModelKind, Mapping[str, Any]]] = [(model.kind, model.parameters) for model in kept]
    sources += [(kind, one.parameters) for kind, one in chosen.items()]
    groups: dict[str, None] = {}
    clusters: dict[str, None] = {}
    for kind, parameters in sources:
        if kind is ModelKind.RFM:
            groups.update(dict.fromkeys(parameters.get("groups", ())))
        elif kind is ModelKind.CLUSTERS:
            clusters.update(dict.fromkeys(parameters.get("keys", ())))
    return Words(groups=tuple(groups), clusters=tuple(clusters))


def _warnings(applied: Mapping[ModelKind, Model], waiting: Mapping[ModelKind, Model]) -> list[str]:
    found = [f"{model.title}: {word}" for model in applied.values() for word in model.report.get("warnings", ())]
    found += [f"{model.title}: refused: {model.note}" for model in applied.values() if model.state == "refused"]
    found += [
        f"{model.title}: held until approved: {model.note}; see `carillon {model.kind} show`"
        for model in waiting.values()
    ]
    return found
