"""One import from file to database: read, map, store, count, and put the rejects aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

import polars as pl
from sqlalchemy import Engine, select, update

from kernel.clock import to_ms
from kernel.errors import ConfigError
from kernel.settings import Workspace
from store.engine import writing
from store.ingest.catalogue import load_products, load_stock
from store.ingest.deals import load_events, load_opportunities
from store.ingest.fields import Kind
from store.ingest.lines import load_order_lines
from store.ingest.loading import Load
from store.ingest.mapping import Mapper, check_columns, check_constants
from store.ingest.orders import load_orders
from store.ingest.people import load_accounts, load_consents, load_contacts
from store.ingest.reading import Options, TableFile, opened_table
from store.ingest.rejects import Rejects, write_rejects
from store.ingest.result import ImportResult, Progress, Report, combined, silent
from store.ingest.sources import Source, Sources, files_of, load_sources
from store.ingest.spend import load_spend
from store.ingest.values import Reading
from store.tables import imports
from store.types import database_now

_LOADERS: Mapping[Kind, Callable[[Load], None]] = MappingProxyType(
    {
        Kind.ACCOUNTS: load_accounts,
        Kind.CONTACTS: load_contacts,
        Kind.CONSENTS: load_consents,
        Kind.ORDERS: load_orders,
        Kind.ORDER_LINES: load_order_lines,
        Kind.PRODUCTS: load_products,
        Kind.STOCK: load_stock,
        Kind.OPPORTUNITIES: load_opportunities,
        Kind.EVENTS: load_events,
        Kind.SPEND: load_spend,
    }
)
_WITH_MONEY = frozenset({Kind.ORDERS, Kind.ORDER_LINES})


def run_import(
    engine: Engine,
    workspace: Workspace,
    source_name: str,
    file: Path | None,
    *,
    now: datetime,
    progress: Report | None = None,
) -> ImportResult:
    """Import a file, or the default files of a source one after the other.

    Nothing is written before the whole file has been read. Then rows are stored in slices of their own
    transactions; an import cut short is mended by running it again.

    Args:
        engine: The database.
        workspace: Where sources.yaml stands and rejects files go.
        source_name: A source of sources.yaml.
        file: The file; None means the source's own.
        now: The present instant: when orders were imported, and the name of the rejects file.
        progress: Told how far it is.

    Raises:
        ConfigError: there is no such source or file.
        InputError: sources.yaml is wrong, or the file is not what it says.
    """
    sources = load_sources(workspace)
    source = sources.get(source_name)
    paths = [file] if file else files_of(source, source_name, workspace)
    return combined(
        [_import_file(engine, workspace, sources, source_name, path, now, progress or silent) for path in paths]
    )


def rejects_folder(workspace: Workspace) -> Path:
    """Return where rejects files go."""
    return workspace.data_dir / "rejects"


def _import_file(
    engine: Engine, workspace: Workspace, sources: Sources, name: str, path: Path, now: datetime, report: Report
) -> ImportResult:
    source = sources.get(name)
    own = path.resolve().parent == rejects_folder(workspace).resolve()
    if own and Kind(source.kind) is Kind.ORDER_LINES:
        raise ConfigError(
            f"{path.name} holds only some lines of its orders and would replace the others; "
            "mend the rows in the file they came from and import that again"
        )
    zone = source.timezone or workspace.settings.timezone
    # A rejects file has commas, whatever the file it came from had.
    options = Options(
        delimiter=None if own else source.delimiter, sheet=source.sheet, needed=list(source.needed_columns())
    )
    with opened_table(path, options) as table:
        reading = Reading(
            zone=zone,
            patterns=source.date_patterns(),
            decimal_comma=source.decimal_comma,
            typed=table.typed,
            region=source.phone_region,
        )
        check_constants(sources, name, reading)
        check_columns(sources, name, table, path.name)
        rejects = Rejects()
        frame, rows = _read(source, reading, table, rejects, report)
        load = Load(
            engine=engine,
            source=source,
            frame=frame,
            currency=source.currency or workspace.settings.currency,
            day_ms=to_ms(now.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)),
            now_ms=to_ms(now),
            rejects=rejects,
            report=report,
        )
        number = _begin(engine, name, path, now)
        _LOADERS[Kind(source.kind)](load)
        rejected = rejects.by_line()
        load.tally.rows = rows
        load.tally.rejected = rejected.height
        aside = write_rejects(rejects_folder(workspace), name, now, table, rejected) if rejected.height else None
    result = _result(load, name, path, aside)
    _finish(engine, number, result)
    return result


def _read(
    source: Source, reading: Reading, table: TableFile, rejects: Rejects, report: Report
) -> tuple[pl.DataFrame, int]:
    """Return the good rows of the whole file, and how many rows it has; bad ones are rejected."""
    mapper = Mapper(source, reading)
    good: list[pl.DataFrame] = []
    rows = 0
    for chunk in table.chunks():
        mapped = mapper.mapped(chunk)
        rejects.add(mapped.bad["line"], mapped.bad["reason"])
        good.append(mapped.good)
        rows += chunk.lines.len() + len(chunk.broken)
        report(Progress(stage="rows read", done=rows, total=table.rows))
    return (pl.concat(good) if good else mapper.empty(table.header)), rows


def _begin(engine: Engine, name: str, path: Path, now: datetime) -> int:
    with writing(engine) as connection:
        values = imports.insert().values(source=name, file=str(path), started_at=now).returning(imports.c.id)
        return int(connection.execute(values).scalar_one())


def _finish(engine: Engine, number: int, result: ImportResult) -> None:
    with writing(engine) as connection:
        finished = connection.execute(select(database_now())).scalar_one()
        connection.execute(
            update(imports).where(imports.c.id == number).values(finished_at=finished, counts=result.as_json())
        )


def _result(load: Load, name: str, path: Path, aside: Path | None) -> ImportResult:
    kind = Kind(load.source.kind)
    one_currency = next(iter(load.currencies)) if len(load.currencies) == 1 else None
    counted = kind in _WITH_MONEY and len(load.currencies) <= 1
    return ImportResult(
        source=name,
        kind=kind,
        files=(str(path),),
        tally=load.tally,
        currency=one_currency or (load.currency if counted else None),
        amount=load.amount if counted else None,
        orders_by_kind=dict(sorted(load.orders_by_kind.items())),
        rejects_file=aside,
    )
