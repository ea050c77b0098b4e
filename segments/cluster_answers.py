"""Answers about clusters for people and programs: what stands, how large it is now, what is held, and why so."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments import models
from segments.models import Model, ModelKind, ModelState
from store.tables import accounts, contacts, profiles

KIND = ModelKind.CLUSTERS


def shown(connection: Connection, subject: Subject) -> dict[str, Any]:
    """Return the version that stands with the sizes of its clusters now, and the one that waits for approval.

    Raises:
        ConfigError: clusters were never fitted.
    """
    model = _standing(connection, subject)
    waiting = models.held(connection, KIND, subject)
    mine = (profiles.c.subject == subject, profiles.c.cluster.is_not(None))
    query = select(profiles.c.cluster, func.count(), func.sum(profiles.c.net_minor)).where(*mine)
    now = {row[0]: (row[1], int(row[2])) for row in connection.execute(query.group_by(profiles.c.cluster))}
    total = sum(size for size, _ in now.values())
    names = {one["key"]: one for one in model.report.get("profiles", ())}
    clusters = [
        {
            "key": key,
            "name": names.get(key, {}).get("name", ""),
            "size": now.get(key, (0, 0))[0],
            "share": now.get(key, (0, 0))[0] / total if total else 0.0,
            "net_minor": now.get(key, (0, 0))[1],
            "size_at_fit": names.get(key, {}).get("size", 0),
        }
        for key in model.parameters.get("keys", ())
    ]
    return {**version(model), "clusters": clusters, "held": version(waiting) if waiting else None}


def explained(connection: Connection, subject: Subject, number: int | None = None) -> dict[str, Any]:
    """Return profiles and names, rules that come near the clusters with their fidelity, and who has moved.

    `migration` is that of the fit: the buyers of that day by the version before and by this one. `moved_since` counts,
    of all who are in another cluster than before since the fit, from where and to where.

    Raises:
        ConfigError: no such version, or it is refused and there is nothing to explain.
    """
    fixed = None if number is None else models.of_version(connection, KIND, subject, number)
    model = fixed or _standing(connection, subject)
    if model.state is ModelState.REFUSED:
        raise ConfigError(f"{model.title}, was refused: {model.note}")
    return {
        **version(model),
        "fit": model.report["fit"],
        "profiles": _with_names(connection, subject, model.report["profiles"]),
        "tree": model.report["tree"],
        "migration": model.report["migration"],
        "moved_since": _moved_since(connection, model),
    }


def version(model: Model) -> dict[str, Any]:
    """Return what a version is, under the keys every command has it under."""
    return {
        "kind": model.kind,
        "subject": f"{model.subject}s",
        "version": model.version,
        "state": model.state,
        "as_of": model.as_of,
        "applied_at": model.applied_at,
        "fitted_on": model.fitted_on,
        "imported": model.imported_as,
        "note": model.note,
        "warnings": list(model.report.get("warnings", ())),
    }


def _standing(connection: Connection, subject: Subject) -> Model:
    model = models.standing(connection, KIND, subject)
    if model is None:
        waiting = models.held(connection, KIND, subject)
        if waiting is not None:
            raise ConfigError(f"{waiting.title}, waits for approval: {waiting.note}; run `carillon clusters approve`")
        raise ConfigError(f"there are no clusters of {subject}s yet; run `carillon clusters fit --subject {subject}s`")
    return model


def _moved_since(connection: Connection, model: Model) -> list[dict[str, Any]]:
    pair = (profiles.c.previous_cluster, profiles.c.cluster)
    query = (
        select(*pair, func.count().label("n"))
        .where(
            profiles.c.subject == model.subject,
            profiles.c.cluster_model_id == model.id,
            profiles.c.cluster_since >= model.as_of,
            profiles.c.previous_cluster.is_not(None),
        )
        .group_by(*pair)
    )
    rows = sorted(connection.execute(query), key=lambda row: (-row.n, row.previous_cluster, row.cluster or ""))
    return [{"previous": row.previous_cluster, "cluster": row.cluster, "n": row.n} for row in rows]


def _with_names(connection: Connection, subject: Subject, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the profiles with their examples by external id."""
    table = accounts if subject is Subject.ACCOUNT else contacts
    ids = [one for profile in found for one in profile["examples"]]
    query = select(table.c.id, table.c.external_id).where(table.c.id.in_(ids))
    names = {row.id: row.external_id for row in connection.execute(query)}
    return [{**one, "examples": [names[i] for i in one["examples"] if i in names]} for one in found]
