"""The figures as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from decimal import Decimal

Cell = str | int | float | Decimal | None

_BOM = "\ufeff"
_STARTS_A_FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""ASCII, and the full-width = + - @ that East Asian spreadsheets read the same way."""


def csv_bytes(heading: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """Return the rows as RFC 4180 CSV in UTF-8, with a byte order mark, without which Excel reads another charset.

    Numbers stay numbers, negative ones too. Text that a spreadsheet would take for a formula gets a leading
    apostrophe, so that a phone number "+44…" is shown as it is and "=cmd|…" does nothing.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([safe_cell(cell) for cell in heading])
    writer.writerows([safe_cell(cell) for cell in row] for row in rows)
    return (_BOM + buffer.getvalue()).encode("utf-8", "replace")


def safe_cell(value: Cell) -> Cell:
    """Return the value so that no spreadsheet executes it.

    Source:
        OWASP, CSV Injection: cells that start with = + - @, tab, CR or LF; the full-width forms as well. Blanks and
        invisible characters before them are looked through, since some programs trim a cell.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\x00", "")
    trimmed = text.lstrip(" \u00a0\u200b\u2060\ufeff\u3000")
    return f"'{text}" if trimmed[:1] in _STARTS_A_FORMULA and trimmed else text
