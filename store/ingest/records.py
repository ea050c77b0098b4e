"""JSON lines: one object a line; inner objects are read as dotted columns (customer.email)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from store.ingest.delimited import open_text, translate
from store.ingest.reading import CHUNK_ROWS, Broken, Chunk, Options

_LOOK_AHEAD = 1_000


class JsonLinesTable:
    """A JSONL file; rows are numbered by their line."""

    typed = True
    rows: int | None = None

    def __init__(self, path: Path, gzipped: bool, options: Options) -> None:
        self._path = path
        self._gzipped = gzipped
        self.header = self._columns(set(options.needed))

    def _columns(self, needed: set[str]) -> list[str]:
        """Return the columns of the first records, and of as many more as it takes to see the needed ones."""
        seen: dict[str, None] = {}
        for at, (_, record) in enumerate(self._records()):
            if isinstance(record, dict):
                seen.update(dict.fromkeys(record))
            if at >= _LOOK_AHEAD and needed <= seen.keys():
                break
        return list(seen)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows; a line that holds no JSON object is broken."""
        lines: list[int] = []
        rows: list[dict[str, str | None]] = []
        broken: list[Broken] = []
        for line, record in self._records():
            if isinstance(record, dict):
                lines.append(line)
                rows.append(record)
            else:
                broken.append(Broken(line=line, reason="is not a JSON object", cells=[record]))
            if len(rows) + len(broken) >= CHUNK_ROWS:
                yield self._chunk(lines, rows, broken)
                lines, rows, broken = [], [], []
        if rows or broken:
            yield self._chunk(lines, rows, broken)

    def _chunk(self, lines: list[int], rows: list[dict[str, str | None]], broken: list[Broken]) -> Chunk:
        frame = pl.DataFrame(
            {name: pl.Series(name, [row.get(name) for row in rows], dtype=pl.String) for name in self.header}
        )
        return Chunk(lines=pl.Series("line", lines, dtype=pl.Int64), frame=frame, broken=broken)

    def _records(self) -> Iterator[tuple[int, dict[str, str | None] | str]]:
        """Yield each line that is not blank: a flat record, or its text where it is none."""
        try:
            with open_text(self._path, self._gzipped) as file:
                for line, text in enumerate(file, 1):
                    if text.strip():
                        yield line, _flat_record(text)
        except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
            translated = translate(self._path, error)
            if translated is None:
                raise
            raise translated from error


def _flat_record(text: str) -> dict[str, str | None] | str:
    try:
        # Numbers stay as they are written: 2.10 must not become 2.1 by way of a float.
        record = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return text.rstrip("\r\n")
    if not isinstance(record, dict):
        return text.rstrip("\r\n")
    out: dict[str, str | None] = {}
    _flatten(record, "", out)
    return out


def _flatten(record: dict[str, Any], prefix: str, out: dict[str, str | None]) -> None:
    for key, value in record.items():
        name = prefix + _clean(key)
        if isinstance(value, dict):
            _flatten(value, f"{name}.", out)
        elif isinstance(value, str):
            out[name] = _clean(value)
        elif isinstance(value, bool):
            out[name] = "true" if value else "false"
        else:
            out[name] = None if value is None else _clean(json.dumps(value, ensure_ascii=False))


def _clean(text: str) -> str:
    """Return the text without lone surrogates, which JSON can escape and no encoding can write."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
