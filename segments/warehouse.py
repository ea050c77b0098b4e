"""Where orders are: in our own tables, or in an engine elsewhere that adds them up and sends one row per subject."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    and_,
    case,
    cast,
    column,
    create_engine,
    event,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    text,
    true,
    type_coerce,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from kernel.clock import to_ms
from kernel.errors import ConfigError
from kernel.quantities import minor_exponent
from kernel.settings import WarehouseSettings
from kernel.vocabulary import OrderKind, Subject
from segments.portable import as_text, in_minor, utc_ms
from store.tables import order_lines, orders

_NOTHING: ColumnElement[int] = literal_column("0", BigInteger)
_COLON = re.compile(r"(?<![:\w\\]):(?=\w)")
"""What SQLAlchemy would take for a parameter; a query from a file has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRows:
    """Orders as columns of a query, wherever they are.

    `where` leaves out orders that name no subject or did not stand at the instant. `name` is what people know an order
    by. `currency` is None where all are in the workspace's.
    """

    source: FromClause
    key: ColumnElement[Any]
    name: ColumnElement[Any]
    at_ms: ColumnElement[Any]
    is_order: ColumnElement[bool]
    net_minor: ColumnElement[Any]
    gross_minor: ColumnElement[Any]
    currency: ColumnElement[Any] | None
    where: ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRows:
    """What the orders in `rows` were about, as columns of a query; None for what is not known."""

    rows: OrderRows
    source: FromClause
    product: ColumnElement[Any] | None
    net_minor: ColumnElement[Any]
    cost_minor: ColumnElement[Any] | None

    def within(self, condition: ColumnElement[bool]) -> LineRows:
        """Return only those of which the condition is true."""
        return replace(self, rows=replace(self.rows, where=and_(self.rows.where, condition)))


class OrdersSource(Protocol):
    """Where orders are: `own` in our tables, keyed by our ids, or else elsewhere, keyed by external ids as texts."""

    @property
    def own(self) -> bool:
        """Whether in our own tables."""

    def lines(self, subject: Subject, as_of: datetime) -> LineRows:
        """Return the orders that stood at the instant, with their lines."""

    def opened(self, connection: Connection) -> AbstractContextManager[Connection]:
        """Open the connection to ask on, given one to our own database."""


def counted(rows: FromClause, as_of: datetime) -> ColumnElement[bool]:
    """Return the condition that an order stood at the instant: placed before it, and not cancelled before it.

    A cancellation at or after the instant is not known yet, so it does not leak into the past.
    """
    return and_(rows.c.ordered_at < as_of, or_(rows.c.cancelled_at.is_(None), rows.c.cancelled_at >= as_of))


class Store:
    """Our own tables."""

    own = True

    def lines(self, subject: Subject, as_of: datetime) -> LineRows:
        """Return the orders that stood at the instant, with their lines."""
        key = orders.c.account_id if subject is Subject.ACCOUNT else orders.c.contact_id
        rows = OrderRows(
            source=orders,
            key=key,
            name=orders.c.external_id,
            at_ms=type_coerce(orders.c.ordered_at, BigInteger),
            is_order=orders.c.kind == OrderKind.ORDER,
            net_minor=orders.c.net_minor,
            gross_minor=orders.c.gross_minor,
            currency=orders.c.currency,
            where=and_(key.is_not(None), counted(orders, as_of)),
        )
        return LineRows(
            rows=rows,
            source=orders.join(order_lines, order_lines.c.order_id == orders.c.id),
            product=order_lines.c.product_id,
            net_minor=order_lines.c.net_minor,
            cost_minor=order_lines.c.cost_minor,
        )

    @contextmanager
    def opened(self, connection: Connection) -> Iterator[Connection]:
        """Yield the connection itself."""
        yield connection


STORE = Store()


class Warehouse:
    """A table or a query in an engine elsewhere, one row per order. `close` lets go of its connections."""

    own = False

    def __init__(
        self, settings: WarehouseSettings, *, currency: str, others: Collection[str] = (), folder: Path = Path()
    ) -> None:
        """Take what carillon.yaml says.

        Args:
            settings: What carillon.yaml says of it.
            currency: The workspace's.
            others: Currencies there are rates for.
            folder: Where relative file names in DuckDB's queries start: the workspace.

        Raises:
            ConfigError: the URL is malformed, or its dialect is not installed.
        """
        self._settings = settings
        self._factors = {code: 10 ** minor_exponent(code) for code in (*others, currency)}
        self._factor = self._factors[currency]
        self._engine = _engine(settings, folder)
        self._source = _source(settings)

    @property
    def engine(self) -> Engine:
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def lines(self, subject: Subject, as_of: datetime) -> LineRows:
        """Return the orders that stood at the instant; a row is an order and its only line.

        Raises:
            ConfigError: it tells orders by the other kind of subject.
        """
        own = self._settings.subject
        if subject != own:
            raise ConfigError(
                f"the warehouse knows orders by {own}, not by {subject}; score {own}s, "
                "or name the column of the other and set warehouse.subject"
            )
        inner = self._translated(to_ms(as_of))
        rows = OrderRows(
            source=inner,
            key=inner.c.id,
            name=inner.c.name,
            at_ms=inner.c.at_ms,
            is_order=inner.c.kind == str(OrderKind.ORDER),
            net_minor=inner.c.net_minor,
            gross_minor=inner.c.gross_minor,
            currency=inner.c.get("currency"),
            where=true(),
        )
        return LineRows(
            rows=rows,
            source=inner,
            product=inner.c.get("product"),
            net_minor=inner.c.net_minor,
            cost_minor=inner.c.get("cost_minor"),
        )

    def _translated(self, as_of_ms: int) -> FromClause:
        """Return the orders that stood at the instant in our own words; each value is worked out once."""
        names = self._settings.columns
        key, net, at = self._column(names.subject), self._money("amount"), self._instant("ordered")
        columns: dict[str, ColumnElement[Any]] = {
            "id": as_text(key),
            "name": as_text(self._column(names.order or names.subject)),
            "at_ms": at,
            "kind": self._kind(),
            "net_minor": net,
            "gross_minor": case((net > _NOTHING, net), else_=_NOTHING),
        }
        if names.gross or names.gross_minor:
            columns["gross_minor"] = self._money("gross")
        if names.cost or names.cost_minor:
            columns["cost_minor"] = self._money("cost")
        if names.currency:
            columns["currency"] = self._column(names.currency)
        if names.product:
            columns["product"] = as_text(self._column(names.product))
        stands = at < literal(as_of_ms, BigInteger)
        if names.cancelled_at or names.cancelled_ms:
            cancelled = self._instant("cancelled")
            stands = and_(stands, or_(cancelled.is_(None), cancelled >= literal(as_of_ms, BigInteger)))
        labelled = [column.label(name) for name, column in columns.items()]
        return select(*labelled).where(key.is_not(None), stands).subquery("orders_here")

    @contextmanager
    def opened(self, connection: Connection) -> Iterator[Connection]:
        """Yield a connection to the engine elsewhere, once the rows there are found to be complete.

        Raises:
            ConfigError: it cannot be reached or read, or rows lack what they must say.
        """
        del connection
        try:
            with self._engine.connect() as there:
                self._check(there)
                yield there
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip()
            raise ConfigError(
                f"warehouse: {self._engine.url.render_as_string()} did not answer: {reason}; "
                "see `warehouse` in carillon.yaml for the URL, the table or query and the names of columns"
            ) from error

    def _check(self, there: Connection) -> None:
        net, at = self._money("amount"), self._instant("ordered")
        kind = self._kind()
        flaws: Mapping[str, ColumnElement[bool]] = {
            "name no instant": at.is_(None),
            "name no amount": net.is_(None),
            f"are of another kind than {', '.join(OrderKind)}": or_(kind.is_(None), kind.not_in(list(OrderKind))),
        }
        counts = [func.count(case((flaw, 1))) for flaw in flaws.values()]
        key = self._column(self._settings.columns.subject)
        found = there.execute(select(*counts).select_from(self._source).where(key.is_not(None))).one()
        problems = [f"{count:,} {words}" for count, words in zip(found, flaws, strict=True) if count]
        if problems:
            raise ConfigError(
                f"warehouse: of the orders there {' and '.join(problems)}; correct them there, or leave them out by "
                "a `query`"
            )

    def _column(self, name: str) -> ColumnElement[Any]:
        return self._source.c[name]

    def _instant(self, word: str) -> ColumnElement[Any]:
        names = self._settings.columns
        stamp, whole = getattr(names, f"{word}_at"), getattr(names, f"{word}_ms")
        if stamp:
            return utc_ms(self._column(stamp), literal(self._settings.timezone))
        return cast(self._column(whole), BigInteger) if whole else cast(None, BigInteger)

    def _money(self, word: str) -> ColumnElement[Any]:
        major, minor = getattr(self._settings.columns, word), getattr(self._settings.columns, f"{word}_minor")
        if minor:
            return cast(self._column(minor), BigInteger)
        factor: ColumnElement[Any] = literal(self._factor, BigInteger)
        if self._settings.columns.currency:
            code = self._column(self._settings.columns.currency)
            differing = [
                (code == other, literal(by, BigInteger)) for other, by in self._factors.items() if by != self._factor
            ]
            factor = case(*differing, else_=factor) if differing else factor
        return in_minor(self._column(major), factor)

    def _kind(self) -> ColumnElement[Any]:
        name = self._settings.columns.kind
        if name:
            return self._column(name)
        return case((self._money("amount") < 0, literal(OrderKind.RETURN)), else_=literal(OrderKind.ORDER))


def _source(settings: WarehouseSettings) -> FromClause:
    wanted = dict.fromkeys(name for name in settings.columns.model_dump().values() if name is not None)
    if settings.query is not None:
        query = text(_COLON.sub(r"\\:", settings.query.strip().rstrip(";")))
        return query.columns(*(column(name) for name in wanted)).subquery("orders_there")
    schema, _, name = str(settings.table).rpartition(".")
    return table(name, *(column(one) for one in wanted), schema=schema or None)


def _engine(settings: WarehouseSettings, folder: Path) -> Engine:
    try:
        url = make_url(settings.url.get_secret_value())
        options: dict[str, Any] = {}
        if url.get_backend_name() == "duckdb":
            spills = Path(tempfile.gettempdir()) / f"carillon-duckdb-{os.getpid()}"
            config = {
                "memory_limit": settings.memory,
                "temp_directory": str(spills),  # Else a folder of DuckDB's choice, below the present one.
                "file_search_path": str(folder.resolve()),
            }
            if settings.threads:
                config["threads"] = str(settings.threads)
            options = {"connect_args": {"config": config}}
        engine = create_engine(url, **options)
        if options:
            event.listen(engine, "connect", _without_progress)
        return engine
    except (NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"warehouse.url needs a dialect that is not installed ({error}); "
            "for DuckDB: pip install 'carillon[warehouse]'"
        ) from error
    except ArgumentError as error:
        raise ConfigError(f"warehouse.url is not a database URL: {error}") from error


def _without_progress(raw: Any, _record: Any) -> None:
    """Keep DuckDB from drawing a bar among what a command prints."""
    raw.cursor().execute("SET enable_progress_bar = false")
