"""Versions of models: each fit is kept with its data's date, its settings, what it found, and how good it is.

A model is fitted, frozen and then only applied, until it is fitted anew. Of each kind and subject one version stands
at a time, `active` or `refused` (the data cannot carry the model, and the note says why); a fit of clusters that
changes the picture too much is `held` beside it until somebody approves it. All others are `retired`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from kernel.clock import from_ms, to_ms
from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from store.sql import insert_into
from store.tables import models

APPLIED_AT = "applied_at"
"""Key of the report: as of when all buyers were last scored by the model, in milliseconds."""

APPLIED_WITH = "applied_with"
"""Key of the report: a digest of what then counted without being fitted, as rates of exchange."""

IMPORTED = "imported"
"""Key of the options of labels computed elsewhere: the name and version they came with."""


class ModelKind(StrEnum):
    """What a model says of a buyer: an RFM group, a cluster, a lifetime value."""

    RFM = "rfm"
    CLUSTERS = "clusters"
    LIFETIME = "lifetime"


class ModelState(StrEnum):
    """`active` and `refused` are what stands; see this module."""

    ACTIVE = "active"
    HELD = "held"
    RETIRED = "retired"
    REFUSED = "refused"


STANDING = (ModelState.ACTIVE, ModelState.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fresh fit, not yet kept: what a version will say. `options` are the settings it was made with."""

    state: ModelState
    fitted_on: int
    options: Mapping[str, Any]
    parameters: Mapping[str, Any]
    report: Mapping[str, Any]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One version. `as_of`: it was fitted on what happened before; `fitted_on` counts the subjects."""

    id: int
    kind: ModelKind
    subject: Subject
    version: int
    as_of: datetime
    fitted_at: datetime
    fitted_on: int
    options: dict[str, Any]
    parameters: dict[str, Any]
    report: dict[str, Any]
    state: ModelState
    note: str

    @property
    def applied_at(self) -> datetime | None:
        """As of when all buyers were last scored by it; None: not yet."""
        found = self.report.get(APPLIED_AT)
        return None if found is None else from_ms(found)

    @property
    def imported_as(self) -> str | None:
        """Name and version of the model elsewhere that the labels come from; None: fitted here."""
        found: str | None = self.options.get(IMPORTED)
        return found

    @property
    def title(self) -> str:
        """How people call it: "clusters of accounts, version 3"."""
        return f"{self.kind} of {self.subject}s, version {self.version}"


def save(connection: Connection, kind: ModelKind, subject: Subject, fit: Fit, *, as_of: datetime) -> Model:
    """Keep a fit as the next version. What it replaces is retired: a held one only an earlier held one."""
    replaced = (ModelState.HELD,) if fit.state is ModelState.HELD else (*STANDING, ModelState.HELD)
    _retire(connection, kind, subject, replaced)
    while True:
        version = select(func.coalesce(func.max(models.c.version), 0) + 1).where(
            models.c.kind == kind, models.c.subject == subject
        )
        statement = insert_into(connection, models).values(
            kind=kind,
            subject=subject,
            version=connection.execute(version).scalar_one(),
            as_of=as_of,
            fitted_at=as_of,
            fitted_on=fit.fitted_on,
            options=dict(fit.options),
            parameters=dict(fit.parameters),
            report=dict(fit.report),
            state=fit.state,
            note=fit.note,
        )
        row = connection.execute(statement.on_conflict_do_nothing().returning(models)).one_or_none()
        if row is not None:
            return _model(row)
        # Another process kept a fit of its own in the meantime; this one is the later word.
        _retire(connection, kind, subject, replaced)


def standing(connection: Connection, kind: ModelKind, subject: Subject) -> Model | None:
    """Return the version that stands, active or refused; None: never fitted."""
    return _latest(connection, kind, subject, STANDING)


def held(connection: Connection, kind: ModelKind, subject: Subject) -> Model | None:
    """Return the version that waits for approval, if one does."""
    return _latest(connection, kind, subject, (ModelState.HELD,))


def of_version(connection: Connection, kind: ModelKind, subject: Subject, version: int) -> Model:
    """Return one version.

    Raises:
        ConfigError: there is none.
    """
    query = select(models).where(models.c.kind == kind, models.c.subject == subject, models.c.version == version)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise ConfigError(f"{kind} of {subject}s has no version {version}; `carillon models` lists them")
    return _model(row)


def listed(connection: Connection, kind: ModelKind | None = None, subject: Subject | None = None) -> list[Model]:
    """Return the versions, those of one kind and subject together, the newest of them first."""
    query = select(models).order_by(models.c.kind, models.c.subject, models.c.version.desc())
    if kind is not None:
        query = query.where(models.c.kind == kind)
    if subject is not None:
        query = query.where(models.c.subject == subject)
    return [_model(row) for row in connection.execute(query)]


def approve(connection: Connection, kind: ModelKind, subject: Subject, *, now: datetime) -> Model:
    """Make the held version the active one, and retire the one that stood.

    Raises:
        ConfigError: no version is held.
    """
    waiting = held(connection, kind, subject)
    if waiting is None:
        raise ConfigError(f"no {kind} of {subject}s wait for approval; `carillon models` lists all versions")
    _retire(connection, kind, subject, STANDING)
    note = f"approved {now:%Y-%m-%d %H:%M} UTC; was held: {waiting.note}"
    changed = update(models).where(models.c.id == waiting.id).values(state=ModelState.ACTIVE, note=note)
    return _model(connection.execute(changed.returning(models)).one())


def note_applied(connection: Connection, model_id: int, *, as_of: datetime, applied_with: str = "") -> None:
    """Keep on a model as of when all buyers were last scored by it, and a digest of what counted beside it."""
    report = connection.execute(select(models.c.report).where(models.c.id == model_id).with_for_update()).scalar_one()
    values = {**report, APPLIED_AT: to_ms(as_of), APPLIED_WITH: applied_with}
    connection.execute(update(models).where(models.c.id == model_id).values(report=values))


def _retire(connection: Connection, kind: ModelKind, subject: Subject, states: tuple[ModelState, ...]) -> None:
    mine = (models.c.kind == kind, models.c.subject == subject, models.c.state.in_(states))
    connection.execute(update(models).where(*mine).values(state=ModelState.RETIRED))


def _latest(connection: Connection, kind: ModelKind, subject: Subject, states: tuple[ModelState, ...]) -> Model | None:
    query = select(models).where(models.c.kind == kind, models.c.subject == subject, models.c.state.in_(states))
    row = connection.execute(query.order_by(models.c.version.desc()).limit(1)).one_or_none()
    return _model(row) if row else None


def _model(row: Row[Any]) -> Model:
    values = dict(row._mapping)
    return Model(
        **{
            **values,
            "kind": ModelKind(values["kind"]),
            "subject": Subject(values["subject"]),
            "state": ModelState(values["state"]),
        }
    )
