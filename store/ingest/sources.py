"""sources.yaml: which file is what, column by column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model, field_validator, model_validator

from kernel.documents import Document, did_you_mean, read_document
from kernel.errors import ConfigError, InputError
from kernel.fields import CurrencyCode, Name, Strict, ZoneName
from kernel.settings import Workspace
from kernel.vocabulary import OrderKind
from store.ingest.fields import (
    AccountFields,
    ConsentFields,
    ContactFields,
    EventFields,
    Fields,
    FieldType,
    Kind,
    OpportunityFields,
    OrderFields,
    OrderLineFields,
    ProductFields,
    SpendFields,
    StockFields,
)
from store.ingest.places import is_country

FILE_NAME = "sources.yaml"
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")
_DATE_WORDS = {"YYYY": "%Y", "YY": "%y", "MM": "%m", "DD": "%d", "HH": "%H", "mm": "%M", "ss": "%S"}
_DATE_TOKEN = re.compile(r"YYYY|YY|MM|DD|HH|mm|ss|[A-Za-z]+|%[A-Za-z.]+")


def date_pattern(text: str) -> str:
    """Return the strptime pattern of a format written as "DD.MM.YYYY HH:mm".

    Raises:
        ValueError: it has letters that are none of YYYY, YY, MM, DD, HH, mm, ss, or no day, month and year.
    """
    if "%" in text:
        return text
    words = _DATE_TOKEN.findall(text)
    strange = [word for word in words if word not in _DATE_WORDS]
    if strange or not {"DD", "MM"} <= set(words) or not {"YYYY", "YY"} & set(words):
        raise ValueError(
            f'{text!r} is not a date format; write one like "DD.MM.YYYY HH:mm" with YYYY, MM, DD, HH, mm, ss'
        )
    return _DATE_TOKEN.sub(lambda found: _DATE_WORDS[found[0]], text)


def _checked_format(text: str) -> str:
    date_pattern(text)
    return text


def _checked_region(text: str) -> str:
    if not is_country(text):
        raise ValueError(f"{text!r} is not a country code; write two capitals, as GB")
    return text


DateFormat = Annotated[str, AfterValidator(_checked_format)]
Region = Annotated[str, AfterValidator(_checked_region)]


class Attribute(Strict):
    """A column kept as an attribute: its name in the file, and how it is read."""

    column: str = Field(min_length=1)
    type: Literal["text", "number", "date", "boolean"] = "text"

    @property
    def field_type(self) -> FieldType:
        return FieldType(self.type)


class KindRule(Strict):
    """Which orders are of a kind, told from their number."""

    order_starts_with: str | list[str]

    @property
    def prefixes(self) -> list[str]:
        return [self.order_starts_with] if isinstance(self.order_starts_with, str) else self.order_starts_with


class KindRules(Strict):
    """Orders that are no orders; what no rule names is told from its amounts."""

    cancellation: KindRule | None = None
    adjustment: KindRule | None = None
    returned: KindRule | None = Field(default=None, alias="return")

    def by_kind(self) -> dict[OrderKind, list[str]]:
        """Return the prefixes of each kind that has a rule."""
        rules = {
            OrderKind.CANCELLATION: self.cancellation,
            OrderKind.ADJUSTMENT: self.adjustment,
            OrderKind.RETURN: self.returned,
        }
        return {kind: rule.prefixes for kind, rule in rules.items() if rule}


class Source(Strict):
    """What every kind of source may say."""

    kind: str
    file: str | None = Field(
        default=None, description="Default file, relative to the workspace; may hold * and ${NAME} or ${NAME:-default}."
    )
    sheet: str | None = Field(default=None, description="Sheet of an XLSX file; default: the first.")
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="Default: told from the header."
    )
    timezone: ZoneName | None = Field(default=None, description="Of times without an offset; default: the workspace's.")
    currency: CurrencyCode | None = Field(default=None, description="Default: the workspace's.")
    decimal_comma: bool = Field(default=False, description="true where numbers look like 1.234,50.")
    date_format: DateFormat | list[DateFormat] = Field(
        default=[], description="As DD.MM.YYYY HH:mm; ISO dates are always read."
    )
    phone_region: Region | None = Field(default=None, description="Country of numbers without a prefix, as GB.")
    columns: Fields = Fields()
    constants: Fields = Fields()
    values: dict[str, dict[str, str | None]] = Field(
        default={}, description="By field: the file's words and ours; null empties the cell."
    )
    attributes: list[str] | dict[str, str | Attribute] = Field(
        default=[], description="Columns to keep as attributes: a list of columns, or name: column."
    )
    create: list[Literal["accounts", "products"]] = Field(
        default=[], description="What rows may bring into being by naming it."
    )
    order_kind: KindRules = KindRules()

    @model_validator(mode="after")
    def _check(self) -> Source:
        columns, constants = self.columns.given(), self.constants.given()
        twice = sorted(set(columns) & set(constants))
        if twice:
            raise ValueError(f"{twice[0]!r} stands under columns and under constants; keep one")
        for name in type(self.columns).required:
            if name not in columns and name not in constants:
                raise ValueError(f"columns has no {name!r}; name the column that holds it, or give it under constants")
        for name in self.values:
            if name not in columns:
                raise ValueError(f"values are given for {name!r}, which columns does not name")
        return self

    @field_validator("attributes")
    @classmethod
    def _distinct(cls, value: list[str] | dict[str, str | Attribute]) -> list[str] | dict[str, str | Attribute]:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError("a column stands twice")
        return value

    def kept_attributes(self) -> dict[str, Attribute]:
        """Return the attributes by their names in Carillon."""
        if isinstance(self.attributes, list):
            return {name: Attribute(column=name) for name in self.attributes}
        return {
            name: Attribute(column=given) if isinstance(given, str) else given
            for name, given in self.attributes.items()
        }

    def needed_columns(self) -> dict[str, tuple[str, ...]]:
        """Return every column of the file the source names, with its place below the source in sources.yaml."""
        needed: dict[str, tuple[str, ...]] = {}
        for name, attribute in self.kept_attributes().items():
            needed.setdefault(attribute.column, ("attributes", name))
        return needed | {column: ("columns", name) for name, column in self.columns.given().items()}

    def date_patterns(self) -> tuple[str, ...]:
        """Return the strptime patterns, in the order of the file."""
        formats = [self.date_format] if isinstance(self.date_format, str) else self.date_format
        return tuple(date_pattern(text) for text in formats)


class AccountsSource(Source):
    kind: Literal["accounts"]
    columns: AccountFields
    constants: AccountFields = AccountFields()


class ContactsSource(Source):
    kind: Literal["contacts"]
    columns: ContactFields
    constants: ContactFields = ContactFields()


class ConsentsSource(Source):
    kind: Literal["consents"]
    columns: ConsentFields
    constants: ConsentFields = ConsentFields()


class OrdersSource(Source):
    kind: Literal["orders"]
    columns: OrderFields
    constants: OrderFields = OrderFields()


class OrderLinesSource(Source):
    kind: Literal["order_lines"]
    columns: OrderLineFields
    constants: OrderLineFields = OrderLineFields()

    @model_validator(mode="after")
    def _one_price(self) -> OrderLinesSource:
        given = self.columns.given() | self.constants.given()
        if ("unit_price" in given) == ("amount" in given):
            raise ValueError("columns needs either 'unit_price' or 'amount'")
        return self


class ProductsSource(Source):
    kind: Literal["products"]
    columns: ProductFields
    constants: ProductFields = ProductFields()


class StockSource(Source):
    kind: Literal["stock"]
    columns: StockFields
    constants: StockFields = StockFields()


class OpportunitiesSource(Source):
    kind: Literal["opportunities"]
    columns: OpportunityFields
    constants: OpportunityFields = OpportunityFields()


class EventsSource(Source):
    kind: Literal["events"]
    columns: EventFields
    constants: EventFields = EventFields()


class SpendSource(Source):
    kind: Literal["spend"]
    columns: SpendFields
    constants: SpendFields = SpendFields()


AnySource = Annotated[
    AccountsSource
    | ContactsSource
    | ConsentsSource
    | OrdersSource
    | OrderLinesSource
    | ProductsSource
    | StockSource
    | OpportunitiesSource
    | EventsSource
    | SpendSource,
    Field(discriminator="kind"),
]
SOURCE_MODELS: Mapping[Kind, type[Source]] = {
    Kind.ACCOUNTS: AccountsSource,
    Kind.CONTACTS: ContactsSource,
    Kind.CONSENTS: ConsentsSource,
    Kind.ORDERS: OrdersSource,
    Kind.ORDER_LINES: OrderLinesSource,
    Kind.PRODUCTS: ProductsSource,
    Kind.STOCK: StockSource,
    Kind.OPPORTUNITIES: OpportunitiesSource,
    Kind.EVENTS: EventsSource,
    Kind.SPEND: SpendSource,
}


class SourcesFile(Strict):
    """The whole of sources.yaml, for its JSON Schema."""

    sources: dict[Name, AnySource]


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a workspace by name, and the file they stand in."""

    by_name: Mapping[str, Source]
    document: Document

    def get(self, name: str) -> Source:
        """Return a source.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self.by_name:
            raise ConfigError(f"{FILE_NAME} has no source {name!r} ({did_you_mean(name, self.by_name)})")
        return self.by_name[name]


def load_sources(workspace: Workspace) -> Sources:
    """Return what sources.yaml of the workspace says.

    Raises:
        ConfigError: there is no sources.yaml.
        InputError: it is wrong; every problem with line and column.
    """
    path = workspace.root / FILE_NAME
    if not path.is_file():
        raise ConfigError(f"{workspace.root} has no {FILE_NAME}; it names the files to import (docs/importing.md)")
    document = read_document(path, shown_as=FILE_NAME)
    names = _names_with_models(document)
    # One model with a field per source: so an unknown key is compared with the fields of its own kind only.
    fields: dict[str, Any] = {
        f"source_{at}": (model, Field(alias=name)) for at, (name, model) in enumerate(names.items())
    }
    inner = create_model("NamedSources", __base__=Strict, **fields)
    outer = create_model("SourcesDocument", __base__=Strict, sources=(inner, ...))
    valid: Any = document.validate(outer)
    by_name = {name: getattr(valid.sources, f"source_{at}") for at, name in enumerate(names)}
    return Sources(by_name=by_name, document=document)


def _names_with_models(document: Document) -> dict[str, type[Source]]:
    sources = document.data.get("sources") if isinstance(document.data, dict) else None
    if not isinstance(sources, dict):
        document.validate(SourcesFile)
        raise InputError([document.problem((), "'sources' is missing")])
    problems = list(document.problems)
    models: dict[str, type[Source]] = {}
    for name, given in sources.items():
        kind = given.get("kind") if isinstance(given, dict) else None
        if kind in set(Kind):
            models[name] = SOURCE_MODELS[Kind(kind)]
            continue
        where = ("sources", name, "kind")
        kinds = ", ".join(Kind)
        message = "'kind' is missing" if kind is None else f"kind: {kind!r} is not one of {kinds}"
        problems.append(
            document.problem(
                where, message, did_you_mean(str(kind), [str(one) for one in Kind]) if kind else f"one of {kinds}"
            )
        )
    if len(problems) > len(document.problems):
        raise InputError(problems)
    return models


def files_of(source: Source, name: str, workspace: Workspace) -> list[Path]:
    """Return the source's default files, sorted by name; relative paths start at the workspace.

    Raises:
        ConfigError: the source names none, none is there, or the environment lacks a variable.
    """
    if source.file is None:
        raise ConfigError(f"source {name!r} names no file; give one: carillon import {name} FILE")

    def filled(found: re.Match[str]) -> str:
        value = workspace.environment.get(found[1]) or found[2]
        if value is None:
            raise ConfigError(f"source {name!r}: the environment has no {found[1]}; export it, or name the file itself")
        return value

    text = _VARIABLE.sub(filled, source.file)
    whole = str(workspace.root / Path(text).expanduser())
    plain = Path(whole)
    # Path.glob takes no absolute patterns, and these may be.
    paths = [plain] if plain.is_file() else [Path(path) for path in sorted(glob(whole, recursive=True))]  # noqa: PTH207
    if not paths:
        raise ConfigError(f"source {name!r}: there is no file {text}")
    return paths
