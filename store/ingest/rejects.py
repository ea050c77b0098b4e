"""The rejects file: which rows were left out, why, and what stood in them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import polars as pl

from store.ingest.reading import Chunk, TableFile

_HARMLESS_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)*")
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")


class Rejects:
    """Collects the lines rejected in one import, and the reasons."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []

    def add(self, lines: Sequence[int] | pl.Series, reason: str | Sequence[str] | pl.Series) -> None:
        """Reject lines for one reason, or each for its own."""
        if len(lines):
            reasons = [reason] * len(lines) if isinstance(reason, str) else reason
            self._frames.append(
                pl.DataFrame({"line": pl.Series(lines, dtype=pl.Int64), "reason": pl.Series(reasons, dtype=pl.String)})
            )

    def by_line(self) -> pl.DataFrame:
        """Return `line` and `reason`, one row per line, in the order of the file."""
        if not self._frames:
            return pl.DataFrame(schema={"line": pl.Int64, "reason": pl.String})
        return pl.concat(self._frames).group_by("line").agg(pl.col("reason").str.join("; ")).sort("line")

    def __len__(self) -> int:
        return self.by_line().height


def write_rejects(folder: Path, source: str, at: datetime, table: TableFile, rejected: pl.DataFrame) -> Path:
    """Write the rows to a new file in the folder, readable by its owner only, and return its path.

    The file is read once more for them: so an import keeps no row's original text in memory.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, file = _new_file(folder, f"{source}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    with file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["line", "reason", *map(safe_cell, table.header)])
        for chunk in table.chunks():
            for line, reason, cells in _rejected_in(chunk, rejected):
                out.writerow([line, safe_cell(reason), *(safe_cell(cell or "") for cell in cells)])
    return path


def _rejected_in(chunk: Chunk, rejected: pl.DataFrame) -> Iterator[tuple[int, str, Sequence[str | None]]]:
    # The file may have columns named line and reason itself.
    wanted = rejected.select(pl.col("line").alias("\0line"), pl.col("reason").alias("\0reason"))
    rows = chunk.frame.select(chunk.lines.alias("\0line"), pl.all()).join(wanted, on="\0line", how="inner")
    found: list[tuple[int, str, Sequence[str | None]]] = [(row[0], row[-1], row[1:-1]) for row in rows.iter_rows()]
    found += [(row.line, row.reason, row.cells) for row in chunk.broken]
    return iter(sorted(found, key=lambda row: row[0]))


def _new_file(folder: Path, stem: str) -> tuple[Path, TextIO]:
    number = 1
    while True:
        path = folder / (f"{stem}.csv" if number == 1 else f"{stem}-{number}.csv")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        return path, os.fdopen(handle, "w", encoding="utf-8", newline="")


def safe_cell(text: str) -> str:
    """Return the text so that no spreadsheet takes it for a formula.

    Source:
        OWASP, CSV Injection; plain numbers, signed or not, are left alone.
    """
    return f"'{text}" if text.startswith(_DANGEROUS) and not _HARMLESS_NUMBER.fullmatch(text) else text
