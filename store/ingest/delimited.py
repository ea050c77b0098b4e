"""CSV and TSV: read by the standard library, which knows the line of every record, quoted line breaks included."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from kernel.errors import InputError
from store.ingest.reading import CHUNK_ROWS, Broken, Chunk, file_error

_DELIMITERS = ",;\t|"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def open_text(path: Path, gzipped: bool) -> TextIO:
    """Return the file as UTF-8 text, without its byte order mark.

    Raises:
        InputError: it begins like UTF-16.
    """
    opener: Any = gzip.open if gzipped else Path.open
    with opener(path, "rb") as raw:
        if raw.read(2) in _UTF16:
            raise file_error(path, "is UTF-16, not UTF-8", "save it as UTF-8, in Excel: “CSV UTF-8”")
    file: TextIO = opener(path, "rt", encoding="utf-8-sig", newline="")
    return file


class DelimitedTable:
    """A CSV or TSV file; the header is line 1."""

    typed = False
    rows: int | None = None

    def __init__(self, path: Path, gzipped: bool, delimiter: str | None) -> None:
        self._path = path
        self._gzipped = gzipped
        with _reading(path), open_text(path, gzipped) as file:
            first = next((line for line in file if line.strip()), "")
        if not first:
            raise file_error(path, "is empty", "the first line must name the columns")
        self._delimiter = delimiter or _delimiter_of(first)
        self.header = [name.strip() for name in next(csv.reader([first], delimiter=self._delimiter))]

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows; a row with too few or too many cells is broken, blank lines are passed over."""
        with _reading(self._path), open_text(self._path, self._gzipped) as file:
            reader = csv.reader(file, delimiter=self._delimiter)
            records = _records(reader, self._path)
            next(records)
            yield from self._in_chunks(records)

    def _in_chunks(self, records: Iterator[tuple[int, list[str]]]) -> Iterator[Chunk]:
        lines: list[int] = []
        rows: list[list[str]] = []
        broken: list[Broken] = []
        width = len(self.header)
        for line, cells in records:
            if len(cells) == width:
                lines.append(line)
                rows.append(cells)
            elif len(cells) > width and not any(cells[width:]):
                lines.append(line)
                rows.append(cells[:width])
            else:
                reason = f"has {len(cells)} cells where the header has {width}"
                broken.append(Broken(line=line, reason=reason, cells=cells))
            if len(rows) + len(broken) >= CHUNK_ROWS:
                yield self._chunk(lines, rows, broken)
                lines, rows, broken = [], [], []
        if rows or broken:
            yield self._chunk(lines, rows, broken)

    def _chunk(self, lines: list[int], rows: list[list[str]], broken: list[Broken]) -> Chunk:
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self.header)
        frame = pl.DataFrame(
            # A repeated or empty name is told apart here; a source that needs such a column is refused before.
            [
                pl.Series(name if name and self.header.count(name) == 1 else f"{name}#{at + 1}", cells, dtype=pl.String)
                for at, (name, cells) in enumerate(zip(self.header, columns, strict=True))
            ]
        )
        return Chunk(lines=pl.Series("line", lines, dtype=pl.Int64), frame=frame, broken=broken)


def _records(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with the line it starts on."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "a quotation mark that is never closed?" if "field larger" in str(error) else ""
            raise file_error(path, f"cannot be read from here on: {error}", hint, line) from error
        if any(cells):
            yield line, cells


def _delimiter_of(header: str) -> str:
    outside_quotes = "".join(header.split('"')[::2])
    best = max(_DELIMITERS, key=outside_quotes.count)
    return best if best in outside_quotes else ","


class _reading:  # noqa: N801 - reads as a statement: with _reading(path)
    """Turns what reading a file can raise into an InputError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        translated = translate(self._path, error)
        if translated:
            raise translated from error


def translate(path: Path, error: BaseException | None) -> InputError | None:
    """Return the InputError for what reading text can raise; None for anything else."""
    if isinstance(error, UnicodeDecodeError):
        strange = error.object[error.start : error.start + 1].hex()
        return file_error(path, f"is not UTF-8 (byte 0x{strange})", "save it as UTF-8, in Excel: “CSV UTF-8”")
    if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error):
        return file_error(path, f"is not a whole gzip file: {error}")
    return None
