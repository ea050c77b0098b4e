"""Files into chunks of text: every format becomes the same thing, rows of text with the line they stand on.

Numbers and times of typed formats are written out in one fixed form (1.5, 2011-12-09 12:50:00), so that one set of
rules reads them all, and a rejected row shows what stood in the file.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from kernel.documents import did_you_mean
from kernel.errors import ConfigError, InputError, Problem

CHUNK_ROWS = 50_000
FORMATS = ("csv", "tsv", "xlsx", "parquet", "jsonl")
_ENDINGS = {"csv": "csv", "txt": "csv", "tsv": "tsv", "tab": "tsv", "xlsx": "xlsx", "parquet": "parquet"}
_ENDINGS |= {"pq": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A row that is not even a row: its line, why, and its cells as far as they could be told."""

    line: int
    reason: str
    cells: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows: `lines` is where each stands, `frame` has a text column per column of the file, null for empty."""

    lines: pl.Series
    frame: pl.DataFrame
    broken: Sequence[Broken] = ()


class TableFile(Protocol):
    """A file opened for import; `chunks` may be called again and gives the same rows again."""

    @property
    def header(self) -> list[str]:
        """The file's columns, in its order."""

    @property
    def rows(self) -> int | None:
        """How many rows there are, where the format tells without reading them all."""

    @property
    def typed(self) -> bool:
        """Whether numbers were numbers in the file, so that a dot in them is a decimal point."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows in order, at most `CHUNK_ROWS` at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a source says about its file's form; `needed` are the columns that must be found."""

    delimiter: str | None = None
    sheet: str | None = None
    needed: Sequence[str] = field(default_factory=tuple)


def file_error(path: Path, message: str, hint: str = "", line: int = 0) -> InputError:
    """Return the error that says what is wrong with a file as a whole."""
    return InputError([Problem(path=path.name, line=line, column=1 if line else 0, message=message, hint=hint)])


def format_of(path: Path) -> tuple[str, bool]:
    """Return the format a file's name tells, and whether it is gzipped.

    Raises:
        ConfigError: the name tells none of ours.
    """
    parts = path.name.lower().split(".")
    gzipped = parts[-1] == "gz"
    ending = parts[-2] if gzipped and len(parts) > 1 else parts[-1]
    if ending not in _ENDINGS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigError(
            f"{path.name}: cannot tell the format from the name; it must end in {known}, each also with .gz"
        )
    return _ENDINGS[ending], gzipped


@contextmanager
def opened_table(path: Path, options: Options) -> Iterator[TableFile]:
    """Yield the file as a table.

    Raises:
        ConfigError: there is no such file, or its name tells no format.
        InputError: it is not what its name says, or not UTF-8.
    """
    # Imported here because each format's module builds on this one.
    from store.ingest.columnar import ParquetTable, XlsxTable
    from store.ingest.delimited import DelimitedTable
    from store.ingest.records import JsonLinesTable

    form, gzipped = format_of(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    if form == "jsonl":
        yield JsonLinesTable(path, gzipped, options)
    elif form in ("csv", "tsv"):
        yield DelimitedTable(path, gzipped, "\t" if form == "tsv" else options.delimiter)
    else:
        with _unpacked(path, gzipped) as plain:
            yield XlsxTable(path, plain, options.sheet) if form == "xlsx" else ParquetTable(path, plain)


@contextmanager
def _unpacked(path: Path, gzipped: bool) -> Iterator[Path]:
    if not gzipped:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="carillon-import-") as folder:
        plain = Path(folder) / path.name.removesuffix(".gz")
        try:
            with gzip.open(path, "rb") as packed, plain.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise file_error(path, f"is not a whole gzip file: {error}") from error
        yield plain


def missing_columns(file_name: str, header: Sequence[str], needed: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return, for each needed column the file lacks, its name, a message and a hint."""
    by_fold = {column.casefold(): column for column in header}
    out = []
    for column in needed:
        if column not in header:
            near = by_fold.get(column.casefold())
            hint = f"did you mean {near!r}?" if near else did_you_mean(column, header)
            out.append((column, f"{file_name} has no column {column!r}", hint))
        elif header.count(column) > 1:
            out.append(
                (column, f"{file_name} has {header.count(column)} columns named {column!r}", "rename all but one")
            )
    return out


def text_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return typed columns written out as text; blank cells become null."""
    return frame.select(_as_text(frame[name]) for name in frame.columns)


def _as_text(column: pl.Series) -> pl.Series:
    kind = column.dtype
    if kind.is_float():
        # A customer number beside empty cells often arrives as 13085.0.
        return column.cast(pl.String).str.strip_suffix(".0")
    if isinstance(kind, pl.Datetime):
        aware = kind.time_zone is not None
        moved = column.dt.convert_time_zone("UTC") if aware else column
        return moved.dt.strftime("%Y-%m-%d %H:%M:%S%.3f" + ("Z" if aware else ""))
    return column.cast(pl.String, strict=False)
