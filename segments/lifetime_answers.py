"""Answers about lifetime value for people and programs: the model, single subjects, and the textbook formulas."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from kernel.clock import from_ms
from kernel.errors import ConfigError
from kernel.settings import Settings
from kernel.vocabulary import Subject
from segments import formulas, models
from segments.cluster_answers import version
from segments.figures import Figures, Origin, origin_of, read_figures
from segments.formulas import Timing
from segments.lifetime_scorer import horizon
from segments.models import Model, ModelKind, ModelState
from segments.predictions import LifetimeModels, predict
from segments.uncertainty import Intervals, Range, intervals
from store.ingest.bulk import ids_of
from store.tables import accounts, contacts, profiles

KIND = ModelKind.LIFETIME
YEAR = timedelta(days=365)


def shown(connection: Connection, subject: Subject) -> dict[str, Any]:
    """Return the model that stands: its report, how it would have done, warnings, or why it is refused.

    Raises:
        ConfigError: never fitted.
    """
    model = _standing(connection, subject)
    kept_aside = ("warnings", models.APPLIED_AT, models.APPLIED_WITH)
    report = {name: value for name, value in model.report.items() if name not in kept_aside}
    calibration = report.pop("calibration", None)
    return {**version(model), "report": report, "calibration": calibration, "totals": _totals(connection, subject)}


def of_subjects(
    connection: Connection,
    settings: Settings,
    root: Path,
    external_ids: Sequence[str],
    *,
    subject: Subject,
    now: datetime,
    level: float = 0.9,
) -> list[dict[str, Any]]:
    """Return what the model that stands says now of single subjects, with two kinds of intervals.

    `estimate` is how far the figure itself may be off; `outcome` between which bounds the future will really fall.
    Who never bought has `bought` False and no figures.

    Raises:
        ConfigError: no such subject; never fitted, or refused; a level outside (0, 1).
    """
    model = _standing(connection, subject)
    if model.state is ModelState.REFUSED:
        raise ConfigError(f"{model.title}, was refused: {model.note}")
    table = accounts if subject is Subject.ACCOUNT else contacts
    ids = ids_of(connection, table, external_ids)
    unknown = [name for name in external_ids if name not in ids]
    if unknown:
        raise ConfigError(f"there is no {subject} {unknown[0]!r}")
    only = np.array(sorted(ids.values()), dtype=np.int64)
    with origin_of(settings, root) as origin:
        figures = read_figures(connection, settings.rfm, origin, subject=subject, as_of=now, only=only)
    fitted, ahead = LifetimeModels.from_json(model.parameters), horizon(settings)
    found = predict(figures.purchases, figures.as_of_ms, fitted.bg, fitted.gg, **ahead)
    ranges = intervals(figures.purchases, figures.as_of_ms, fitted, **ahead, level=level)
    places = dict(zip(figures.subject_ids.tolist(), figures.units.tolist(), strict=True))
    rows = []
    for name in dict.fromkeys(external_ids):
        unit = places.get(ids[name])
        if unit is None:
            rows.append({"subject": name, "bought": False})
            continue
        rows.append(
            {
                "subject": name,
                "bought": True,
                "orders": int(figures.purchases.orders[unit]),
                "historic_minor": int(figures.purchases.net_minor[unit]),
                "p_alive": float(found.p_alive[unit]),
                "expected_orders": float(found.expected_orders[unit]),
                "order_value_minor": int(found.order_value_minor[unit]),
                "clv_minor": int(found.clv_minor[unit]),
                "next_order_at": from_ms(int(found.next_order_ms[unit])),
                "intervals": _intervals(ranges, unit),
            }
        )
    return rows


def textbook(
    connection: Connection,
    settings: Settings,
    root: Path,
    *,
    subject: Subject,
    as_of: datetime,
    years: float | None = None,
    retention: float | None = None,
    acquisition_cost_minor: int = 0,
) -> dict[str, Any]:
    """Return customer lifetime value of the average active buyer by the textbook formulas, with what went in.

    Active are those who ordered within the 365 days before the instant. Retention, unless given, is the share of those
    active a year earlier who are active still; the lifetime, unless given, is 1 / (1 − retention) years.

    Args:
        connection: An open connection; nothing is written.
        settings: Give margin and annual discount (`lifetime`), and who counts as one buyer (`rfm.rollup`).
        root: The workspace's folder.
        subject: Accounts or contacts.
        as_of: Only what happened before it counts.
        years: The lifetime.
        retention: Per year, a share.
        acquisition_cost_minor: What a new customer costs.

    Raises:
        ConfigError: nobody has bought within a year, or retention cannot be measured and is not given.
    """
    with origin_of(settings, root) as origin:
        now, before = (_year(connection, settings, origin, subject, at) for at in (as_of, as_of - YEAR))
    active = now.window_orders > 0
    if not active.any():
        raise ConfigError(
            f"no {subject} ordered within the 365 days before {as_of:%Y-%m-%d}: there is no average buyer"
        )
    orders, net = int(now.window_orders[active].sum()), int(now.window_net_minor[active].sum())
    measured = _retention(before, now)
    kept = measured if retention is None else retention
    if kept is None:
        raise ConfigError("nobody was active a year earlier, so retention cannot be measured; give --retention, as 0.8")
    if years is None and kept >= 1:
        raise ConfigError("with a retention of 1 a lifetime has no end; give --years")
    lifetime_years = 1 / (1 - kept) if years is None else years
    own = settings.lifetime
    per_year = net / int(active.sum())
    known = {"margin": own.margin, "annual_discount": own.annual_discount}
    simple = formulas.simple_clv(
        order_value=net / orders,
        orders_per_year=orders / int(active.sum()),
        years=lifetime_years,
        margin=own.margin,
        acquisition_cost=acquisition_cost_minor,
    )
    discounted = {
        timing.value: round(
            formulas.retention_clv(
                margin_per_period=per_year * own.margin,
                retention=kept,
                discount=own.annual_discount,
                timing=timing,
                acquisition_cost=acquisition_cost_minor,
            )
        )
        for timing in Timing
    }
    cost = formulas.value_to_cost(simple + acquisition_cost_minor, acquisition_cost_minor)
    return {
        "subject": f"{subject}s",
        "as_of": as_of,
        "currency": settings.currency,
        "active": int(active.sum()),
        "order_value_minor": round(net / orders),
        "orders_per_year": orders / int(active.sum()),
        "retention": kept,
        "retention_measured": measured,
        "years": lifetime_years,
        **known,
        "acquisition_cost_minor": acquisition_cost_minor,
        "simple_minor": round(simple),
        "discounted_minor": discounted,
        "value_to_cost": cost.value,
        "historic_minor": round(float(now.purchases.net_minor.mean())),
        "predicted_minor": _totals(connection, subject)["clv_mean_minor"],
    }


def _year(connection: Connection, settings: Settings, origin: Origin, subject: Subject, at: datetime) -> Figures:
    own = settings.rfm.model_copy(update={"window": "365d", "monetary": "net"})
    return read_figures(connection, own, origin, subject=subject, as_of=at)


def _retention(before: Figures, now: Figures) -> float | None:
    then = before.purchases.ids[before.window_orders > 0]
    still = now.purchases.ids[now.window_orders > 0]
    return float(np.isin(then, still).mean()) if len(then) else None


def _totals(connection: Connection, subject: Subject) -> dict[str, Any]:
    """Return sums over the profiles as the last refresh left them; children scored with a parent count once."""
    mine = (profiles.c.subject == subject, profiles.c.scored_as == profiles.c.subject_id)
    row = connection.execute(
        select(
            func.count(profiles.c.clv_minor),
            func.sum(profiles.c.clv_minor),
            func.sum(profiles.c.expected_orders),
            func.sum(profiles.c.p_alive),
        ).where(*mine)
    ).one()
    count = row[0]
    return {
        "subjects": count,
        "clv_minor": int(row[1]) if count else None,
        "clv_mean_minor": round(int(row[1]) / count) if count else None,
        "expected_orders": float(row[2]) if count else None,
        "alive": float(row[3]) if count else None,
    }


def _intervals(ranges: Intervals, unit: int) -> dict[str, Any]:
    def ends(of: Range) -> list[float]:
        return [float(of.low[unit]), float(of.high[unit])]

    return {
        "level": ranges.level,
        "estimate": {
            "p_alive": ends(ranges.p_alive),
            "expected_orders": ends(ranges.expected_orders),
            "clv_minor": [round(end) for end in ends(ranges.clv_minor)],
        },
        "outcome": {
            "orders": [round(end) for end in ends(ranges.orders)],
            "contribution_minor": [round(end) for end in ends(ranges.contribution_minor)],
            "next_order_at": [from_ms(round(end)) for end in ends(ranges.next_order_ms)],
        },
    }


def _standing(connection: Connection, subject: Subject) -> Model:
    model = models.standing(connection, KIND, subject)
    if model is None:
        raise ConfigError(
            f"lifetime values of {subject}s were never fitted; run `carillon lifetime fit --subject {subject}s`"
        )
    return model
