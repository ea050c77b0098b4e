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
            records = _records(file, self._delimiter, self._path)
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


class _Lines:
    """A file's lines on their way to the CSV reader: `record` is what it took since that was last cleared."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.record: list[str] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            self.ended = True
            raise StopIteration
        self.record.append(line)
        return line


def _records(file: TextIO, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with the line it starts on."""
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        lines.record.clear()
        try:
            cells = next(reader)
            if lines.ended or len(lines.record) > 1:
                _check_quotes(lines.record, delimiter)
        except StopIteration:
            return
        except csv.Error as error:
            hint = 'a quotation mark that is never closed? those within a cell are doubled, as in "5"" nail"'
            raise file_error(path, f"cannot be read from here on: {error}", hint, line) from error
        if any(cells):
            yield line, cells


def _check_quotes(record: list[str], delimiter: str) -> None:
    """Refuse a record whose quotation mark swallowed the lines below it, up to the next mark or the file's end.

    Rows of one line may be lenient (`5" nail`, `"5" nail"`): what is wrong in them stays in them.

    Raises:
        csv.Error: a quoted cell has no end, or goes on after it.
    """
    for _ in csv.reader(record, delimiter=delimiter, strict=True):
        pass


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
