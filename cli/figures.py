"""Commands about money and goods: economics, stock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.shared import (
    AsOfOption,
    JsonOption,
    WorkspaceOption,
    console,
    instant_asked,
    opened,
    print_json,
    print_notes,
    print_table,
    reporting_errors,
)
from kernel.errors import ConfigError
from kernel.quantities import minor_exponent, parse_duration
from segments.economics import ChannelPeriod, economics
from segments.formulas import Figure
from segments.stock import ProductStock, stock_report
from store.engine import reading


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command("economics")(economics_command)
    app.command("stock")(stock)


@reporting_errors
def economics_command(
    as_of: AsOfOption = "",
    lag: Annotated[str, typer.Option(help="Sales cycle: how much later a cost wins its customers, as 30d.")] = "0d",
    channel_attribute: Annotated[
        str, typer.Option(help="The accounts' attribute that names the channel they came by.")
    ] = "channel",
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show what new customers cost and are worth: CAC, CLV:CAC, return and payback, by channel and period.

    Example: carillon economics --lag 30d --json
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        settings = workspace.settings
        report = economics(
            connection,
            as_of=instant_asked(as_of, settings.timezone),
            currency=settings.currency,
            margin=settings.lifetime.margin,
            channel_attribute=channel_attribute,
            lag=_span("--lag", lag, "0d or 30d"),
        )
    if as_json:
        print_json(report.as_json())
        return
    columns = {"channel": "left", "from": "left", "until": "left", "cost": "right", "new": "right", "CAC": "right"}
    columns |= {"CLV:CAC": "right", "ROI to date": "right", "payback (months)": "right"}
    rows = [*report.rows, *([report.total] if report.total else [])]
    title = f"What new customers cost, in {report.currency}, as of {report.as_of:%Y-%m-%d}"
    print_table(title, columns, [_period_cells(row, 10 ** minor_exponent(report.currency)) for row in rows])
    print_notes([f"contribution is {report.margin:.0%} of net revenue (lifetime.margin)", *report.notes])


@reporting_errors
def stock(
    as_of: AsOfOption = "",
    window: Annotated[str, typer.Option(help="The stretch of time before it, as 90d.")] = "90d",
    slow: Annotated[int | None, typer.Option(min=1, help="Only products with at least so many days of stock.")] = None,
    short: Annotated[int | None, typer.Option(min=1, help="Only products that last at most so many days.")] = None,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show inventory turnover and days of stock, per product and in total; slow movers and what runs out.

    Example: carillon stock --window 180d --slow 120
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        at = instant_asked(as_of, workspace.settings.timezone)
        report = stock_report(connection, as_of=at, window=_span("--window", window, "90d"))
    chosen = [product for product in report.products if _asked_for(product, slow=slow, short=short)]
    if as_json:
        print_json(replace(report, products=chosen).as_json())
        return
    columns = {"product": "left", "name": "left", "on hand": "right", "sold": "right", "turnover": "right"}
    columns |= {"days of stock": "right", "lasts (days)": "right", "days out": "right"}
    title = f"Stock over {report.window_days} days to {report.as_of:%Y-%m-%d}: {len(chosen):,} products"
    print_table(title, columns, [_product_cells(product) for product in chosen])
    turnover, days = _number(report.total_turnover, 2), _number(report.total_days_of_stock, 1)
    console.print(f"in total: turnover {turnover}, {days} days of stock", markup=False, highlight=False)
    print_notes(report.notes)


def _span(option: str, text: str, example: str) -> timedelta:
    """Return a length of time as typed.

    Raises:
        ConfigError: it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}; for example {option} {example}") from error


def _asked_for(product: ProductStock, *, slow: int | None, short: int | None) -> bool:
    """Say whether a product is a slow mover (stock that nothing sold of, too), or runs out, as asked."""
    if slow is not None:
        idle = bool(product.on_hand) and product.sold <= 0
        if not idle and (product.days_of_stock is None or product.days_of_stock < slow):
            return False
    return short is None or (product.cover_days is not None and product.cover_days <= short)


def _period_cells(row: ChannelPeriod, unit: int) -> list[Any]:
    roi = "–" if row.roi_to_date.value is None else f"{row.roi_to_date.value:+.0%}"
    return [
        row.channel,
        f"{row.starts_at:%Y-%m-%d}",
        f"{row.ends_at:%Y-%m-%d}",
        f"{row.cost_minor / unit:,.2f}",
        f"{row.new_customers:,}",
        _figure(row.cac_minor, unit),
        _figure(row.clv_to_cac, 1),
        roi,
        _figure(row.payback_months, 1),
    ]


def _product_cells(product: ProductStock) -> list[Any]:
    figures = (product.turnover, 2), (product.days_of_stock, 1), (product.cover_days, 1)
    cells = [_number(product.on_hand, 0), _number(product.sold, 0), *(_number(*figure) for figure in figures)]
    return [product.product, product.name, *cells, product.days_out]


def _figure(figure: Figure, unit: int) -> str:
    return "–" if figure.value is None else f"{figure.value / unit:,.2f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
