"""From a file's chunk to typed rows, as the source maps them; each row with the reasons against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from kernel.errors import InputError, Problem
from store.ingest.fields import FieldType, Kind, type_of
from store.ingest.reading import Chunk, TableFile, missing_columns
from store.ingest.sources import Source, Sources
from store.ingest.values import ATTRIBUTE_CONVERTERS, CONVERTERS, Reading, constant_value, refusal, stripped

_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Rows of one chunk.

    `good` has `line` and a column per field; attributes stand in `attributes` as a list of structs' JSON texts.
    `bad` has `line` and `reason`.
    """

    good: pl.DataFrame
    bad: pl.DataFrame


def check_columns(sources: Sources, name: str, table: TableFile, file_name: str) -> None:
    """Refuse a file that lacks a column its source names.

    Raises:
        InputError: one problem per column, at its place in sources.yaml.
    """
    source, document = sources.get(name), sources.document
    needed = source.needed_columns()
    problems: list[Problem] = [
        document.problem(("sources", name, *needed[column]), message, hint)
        for column, message, hint in missing_columns(file_name, table.header, needed)
    ]
    if problems:
        raise InputError(problems)


def check_constants(sources: Sources, name: str, reading: Reading) -> None:
    """Refuse constants that cannot be read.

    Raises:
        InputError: one problem per constant.
    """
    source, document = sources.get(name), sources.document
    problems = []
    for field, text in source.constants.given().items():
        kind = type_of(Kind(source.kind), field)
        if constant_value(text, kind, reading) is None:
            place = ("sources", name, "constants", field)
            problems.append(document.problem(place, f"{field}: {text!r} {refusal(kind, reading)}"))
    if problems:
        raise InputError(problems)


class Mapper:
    """Maps the chunks of one file."""

    def __init__(self, source: Source, reading: Reading) -> None:
        self._source = source
        self._kind = Kind(source.kind)
        self._reading = reading
        self._columns = source.columns.given()
        self._constants = {
            field: constant_value(text, type_of(self._kind, field), reading)
            for field, text in source.constants.given().items()
        }
        self._required = [name for name in type(source.columns).required if name in self._columns]
        self._needs_time = "ordered_at" in self._columns and self._kind is Kind.ORDER_LINES

    def mapped(self, chunk: Chunk) -> Mapped:
        """Return the chunk's rows, good and bad."""
        fields: list[pl.Series] = [chunk.lines]
        reasons: list[pl.Series] = []
        for field, column in self._columns.items():
            text = self._in_our_words(field, stripped(chunk.frame[column]))
            kind = type_of(self._kind, field)
            value = CONVERTERS[kind](text, self._reading).alias(field)
            fields.append(value)
            reasons.extend(self._against(field, kind, text, value))
        fields.extend(self._constant(field, chunk.lines.len()) for field in self._constants)
        frame = pl.DataFrame(fields)
        attributes, attribute_reasons = self._attributes(chunk)
        reason = joined([*reasons, *attribute_reasons], chunk.lines.len())
        frame = frame.with_columns(attributes) if attributes is not None else frame
        good = reason.is_null()
        bad = pl.DataFrame({"line": chunk.lines, "reason": reason}).filter(~good)
        broken = pl.DataFrame(
            {"line": [row.line for row in chunk.broken], "reason": [row.reason for row in chunk.broken]},
            schema=bad.schema,
        )
        return Mapped(good=frame.filter(good), bad=pl.concat([bad, broken]))

    def empty(self, header: list[str]) -> pl.DataFrame:
        """Return no rows, with the columns that rows would have."""
        frame = pl.DataFrame(schema=dict.fromkeys(header, pl.String))
        return self.mapped(Chunk(lines=pl.Series("line", [], dtype=pl.Int64), frame=frame)).good

    def _constant(self, field: str, height: int) -> pl.Series:
        kind = type_of(self._kind, field)
        value = self._constants[field]
        dtype = {
            FieldType.NUMBER: pl.Int128(),
            FieldType.MONEY: pl.Int128(),
            FieldType.INSTANT: pl.Int64(),
        }.get(kind, pl.String())
        return pl.Series(field, [value], dtype=dtype).new_from_index(0, height)

    def _in_our_words(self, field: str, text: pl.Series) -> pl.Series:
        words = self._source.values.get(field)
        if not words:
            return text
        ours = {theirs.strip().lower(): our for theirs, our in words.items()}
        if "" in ours:
            text = text.fill_null("")
        low = text.str.to_lowercase()
        known = low.is_in(list(ours))
        mapped = low.replace_strict(ours, default=None, return_dtype=pl.String)
        return pl.select(pl.when(known).then(mapped).otherwise(text)).to_series().alias(field)

    def _against(self, field: str, kind: FieldType, text: pl.Series, value: pl.Series) -> Iterator[pl.Series]:
        unread = text.is_not_null() & value.is_null()
        if bool(unread.any()):
            yield _told(field, text, unread, refusal(kind, self._reading))
        if field in self._required or (field == "ordered_at" and self._needs_time) or field in ("unit_price", "amount"):
            empty = text.is_null()
            if bool(empty.any()):
                yield pl.select(pl.when(empty).then(pl.lit(f"{field} is empty"))).to_series()

    def _attributes(self, chunk: Chunk) -> tuple[pl.Series | None, list[pl.Series]]:
        kept = self._source.kept_attributes()
        if not kept:
            return None, []
        columns: dict[str, list[object]] = {}
        reasons = []
        for name, attribute in kept.items():
            text = stripped(chunk.frame[attribute.column])
            kind = attribute.field_type
            value = ATTRIBUTE_CONVERTERS[kind](text, self._reading)
            unread = text.is_not_null() & value.is_null()
            if bool(unread.any()):
                reasons.append(_told(name, text, unread, refusal(kind, self._reading)))
            columns[name] = [
                int(item) if isinstance(item, float) and item.is_integer() else item for item in value.to_list()
            ]
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return pl.Series("attributes", [json.dumps(row, ensure_ascii=False) for row in rows], dtype=pl.String), reasons


def _told(field: str, text: pl.Series, unread: pl.Series, refused: str) -> pl.Series:
    shown = text.str.slice(0, _SHOWN)
    said = pl.concat_str([pl.lit(f"{field}: '"), shown, pl.lit(f"' {refused}")])
    return pl.select(pl.when(unread).then(said)).to_series()


def joined(reasons: list[pl.Series], height: int) -> pl.Series:
    """Return the reasons against each row in one text; null where there are none."""
    if not reasons:
        return pl.Series("reason", [None] * height, dtype=pl.String)
    text = pl.select(pl.concat_str(reasons, separator="; ", ignore_nulls=True)).to_series().alias("reason")
    return text.set(text == "", None)
