"""Versions of models: one stands, one may be held, the others are retired."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments import models
from segments.models import Fit, Model, ModelKind, ModelState
from store.engine import reading, writing
from tests.integration.buying import NOW, versions

CLUSTERS, ACCOUNT = ModelKind.CLUSTERS, Subject.ACCOUNT


def save(engine: Engine, state: str = "active", kind: str = "clusters", subject: str = "account", **rest: Any) -> Model:
    values = {"fitted_on": 5, "options": {"k": 3}, "parameters": {"keys": ["c1"]}, "report": {}, **rest}
    fit = Fit(state=ModelState(state), **values)
    with writing(engine) as connection:
        return models.save(connection, ModelKind(kind), Subject(subject), fit, as_of=NOW)


def states(engine: Engine) -> list[tuple[str, str, int, str]]:
    return [(row.kind, row.subject, row.version, row.state) for row in versions(engine)]


def test_versions_count_per_kind_and_subject(engine: Engine) -> None:
    for kind, subject in (
        ("clusters", "account"),
        ("clusters", "contact"),
        ("rfm", "account"),
        ("clusters", "account"),
    ):
        save(engine, kind=kind, subject=subject)
    assert states(engine) == [
        ("clusters", "account", 1, "retired"),
        ("clusters", "contact", 1, "active"),
        ("rfm", "account", 1, "active"),
        ("clusters", "account", 2, "active"),
    ]


def test_what_is_saved_is_what_is_read(engine: Engine) -> None:
    saved = save(engine, report={"warnings": ["ä"], "share": 0.25}, parameters={"keys": ["c1"], "x": [1, None, 2.5]})
    with reading(engine) as connection:
        assert models.standing(connection, CLUSTERS, ACCOUNT) == saved
        assert models.of_version(connection, CLUSTERS, ACCOUNT, 1) == saved
        assert models.listed(connection) == [saved]
    assert (saved.as_of, saved.parameters["x"], saved.applied_at, saved.imported_as) == (
        NOW,
        [1, None, 2.5],
        None,
        None,
    )


def test_a_held_version_leaves_the_standing_one_alone_and_replaces_an_earlier_held_one(engine: Engine) -> None:
    save(engine)
    save(engine, "held", note="40 % would move")
    save(engine, "held", note="50 % would move")
    assert [row[3] for row in states(engine)] == ["active", "retired", "held"]
    with reading(engine) as connection:
        waiting = models.held(connection, CLUSTERS, ACCOUNT)
        assert models.standing(connection, CLUSTERS, ACCOUNT) == models.of_version(connection, CLUSTERS, ACCOUNT, 1)
    assert waiting is not None
    assert waiting.note == "50 % would move"


def test_an_approved_version_stands_and_keeps_why_it_was_held(engine: Engine) -> None:
    save(engine)
    save(engine, "held", note="40 % would move")
    with writing(engine) as connection:
        approved = models.approve(connection, CLUSTERS, ACCOUNT, now=NOW)
    assert [row[3] for row in states(engine)] == ["retired", "active"]
    assert approved.note == "approved 2026-06-15 12:00 UTC; was held: 40 % would move"


def test_nothing_held_cannot_be_approved(engine: Engine) -> None:
    save(engine)
    with writing(engine) as connection, pytest.raises(ConfigError, match="no clusters of accounts wait for approval"):
        models.approve(connection, CLUSTERS, ACCOUNT, now=NOW)


def test_a_new_active_version_ends_the_wait_of_a_held_one_and_a_refused_one_stands_too(engine: Engine) -> None:
    save(engine)
    save(engine, "held")
    save(engine, "refused", note="too few")
    assert [row[3] for row in states(engine)] == ["retired", "retired", "refused"]
    with reading(engine) as connection:
        found = models.standing(connection, CLUSTERS, ACCOUNT)
    assert found is not None
    assert found.note == "too few"


def test_a_version_remembers_when_everybody_was_last_scored_by_it(engine: Engine) -> None:
    saved = save(engine, report={"k": 3})
    with writing(engine) as connection:
        models.note_applied(connection, saved.id, as_of=NOW + timedelta(milliseconds=5))
    with reading(engine) as connection:
        found = models.standing(connection, CLUSTERS, ACCOUNT)
    assert found is not None
    assert (found.applied_at, found.report["k"]) == (NOW + timedelta(milliseconds=5), 3)


def test_an_unknown_version_is_told(engine: Engine) -> None:
    with reading(engine) as connection, pytest.raises(ConfigError, match="rfm of accounts has no version 7"):
        models.of_version(connection, ModelKind.RFM, ACCOUNT, 7)
