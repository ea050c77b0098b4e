from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.csv_files import csv_bytes, safe_cell

FULL_WIDTH = "\uff1d\uff0b\uff0d\uff20"


@pytest.mark.parametrize("start", [*"=+-@\t\r\n", *FULL_WIDTH, " =", "\u00a0+", "\u200b@", "\ufeff="])
def test_text_that_would_start_a_formula_gets_an_apostrophe(start: str) -> None:
    assert safe_cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("text", ["", "Acme", "a=b", "1+1", "'=1", "O'Neill", "x@y.example", "   "])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text


def test_numbers_stay_numbers_and_phone_numbers_keep_their_plus() -> None:
    rows = list(
        csv.reader(
            io.StringIO(csv_bytes(("n", "m", "tel"), [(-5, Decimal("-12.50"), "+447700900123")]).decode("utf-8-sig"))
        )
    )
    assert rows[1] == ["-5", "-12.50", "'+447700900123"]


def test_excel_reads_it_as_utf_8_with_windows_line_ends() -> None:
    data = csv_bytes(("name",), [('Müller, Söhne & "Co"',)])
    assert data == '\ufeffname\r\n"Müller, Söhne & ""Co"""\r\n'.encode()


def test_a_lone_surrogate_or_nul_does_not_keep_a_file_from_being_written() -> None:
    assert csv_bytes(("a",), [("x\ud800\x00y",)]).decode("utf-8-sig") == "a\r\nx?y\r\n"


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_no_cell_of_any_row_starts_a_formula_and_none_is_lost(cells: list[str]) -> None:
    text = csv_bytes(cells, []).decode("utf-8-sig")
    (row,) = list(csv.reader(io.StringIO(text, newline="")))
    assert len(row) == len(cells)
    assert not any(
        cell.strip(" \u00a0\u200b\u2060\ufeff\u3000")[:1] in {*"=+-@\t\r\n", *FULL_WIDTH}
        for cell in row
        if cell.strip(" \u00a0\u200b\u2060\ufeff\u3000")
    )
