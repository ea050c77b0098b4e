"""Parquet and XLSX, by polars (XLSX through fastexcel)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from fastexcel import FastExcelError
from polars.exceptions import PolarsError

from kernel.documents import did_you_mean
from store.ingest.reading import CHUNK_ROWS, Chunk, file_error, text_frame

MAX_UNPACKED_BYTES = 2_000_000_000
MAX_EXPANSION = 200
"""A sheet of a million rows unpacks to some 20 times its size; what unpacks to 200 times is no table."""


class ParquetTable:
    """A Parquet file; rows are numbered by record, from 1."""

    typed = True

    def __init__(self, path: Path, plain: Path) -> None:
        self._scan = pl.scan_parquet(plain)
        try:
            schema = self._scan.collect_schema()
            self.rows: int | None = self._scan.select(pl.len()).collect().item()
        except (PolarsError, OSError) as error:
            raise file_error(path, f"is not a Parquet file: {str(error).splitlines()[0]}") from error
        nested = [name for name, kind in schema.items() if kind.is_nested() or kind == pl.Binary]
        self._scan = self._scan.drop(nested)
        self.header = [name for name in schema if name not in nested]

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows as text."""
        for start in range(0, self.rows or 0, CHUNK_ROWS):
            frame = self._scan.slice(start, CHUNK_ROWS).collect()
            lines = pl.Series("line", range(start + 1, start + 1 + frame.height), dtype=pl.Int64)
            yield Chunk(lines=lines, frame=text_frame(frame))


class XlsxTable:
    """One sheet of an XLSX file; the header is its first row that is not empty, lines are Excel's row numbers."""

    typed = True

    def __init__(self, path: Path, plain: Path, sheet: str | None) -> None:
        _guard(path, plain)
        cells = _sheet(path, plain, sheet)
        filled = cells.select(pl.any_horizontal(pl.all().is_not_null())).to_series() if cells.width else pl.Series([])
        first = filled.arg_max() if cells.height else None
        if first is None or not filled[first]:
            raise file_error(path, "is empty", "the first row must name the columns")
        names = [str(name or "").strip() for name in cells.row(first)]
        lines = pl.Series("line", range(1, cells.height + 1), dtype=pl.Int64)
        body = filled & (lines > first + 1)
        self.header = names
        self._lines = lines.filter(body)
        self._frame = cells.filter(body)
        self._frame.columns = [
            name if name and names.count(name) == 1 else f"{name}#{at + 1}" for at, name in enumerate(names)
        ]
        self.rows: int | None = self._frame.height

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows that are not empty."""
        for start in range(0, self._frame.height, CHUNK_ROWS):
            yield Chunk(lines=self._lines.slice(start, CHUNK_ROWS), frame=self._frame.slice(start, CHUNK_ROWS))


def _sheet(path: Path, plain: Path, sheet: str | None) -> pl.DataFrame:
    # Every cell as text, first row included: then row numbers are Excel's own and no column's type is guessed.
    options = {"header_row": None, "skip_rows": 0, "dtypes": "string"}
    try:
        if sheet is None:
            return pl.read_excel(plain, sheet_id=1, has_header=False, drop_empty_rows=False, read_options=options)
        return pl.read_excel(plain, sheet_name=sheet, has_header=False, drop_empty_rows=False, read_options=options)
    except pl.exceptions.NoDataError as error:
        raise file_error(path, "is empty", "the first row must name the columns") from error
    except (PolarsError, FastExcelError, ValueError) as error:
        if sheet is not None and "matching sheet" in str(error):
            raise file_error(path, f"has no sheet {sheet!r}", did_you_mean(sheet, _sheet_names(plain))) from error
        raise file_error(path, f"cannot be read as XLSX: {str(error).splitlines()[0]}") from error


def _sheet_names(plain: Path) -> list[str]:
    from fastexcel import read_excel  # only for the hint of an error

    return list(read_excel(plain).sheet_names)


def _guard(path: Path, plain: Path) -> None:
    try:
        with zipfile.ZipFile(plain) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise file_error(path, "is not an XLSX file", "an old .xls file? save it as .xlsx") from error
    if unpacked > MAX_UNPACKED_BYTES or unpacked > max(10_000_000, MAX_EXPANSION * plain.stat().st_size):
        raise file_error(path, f"would unpack to {unpacked:,} bytes, more than a table ever does", "save it as CSV")
