"""Every format becomes the same rows, with the lines they stand on; what is no such file is said in words."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from kernel.errors import ConfigError, InputError
from store.ingest.reading import Options, opened_table
from tests.importing import write_xlsx

ROWS = [("A1", "Café, Ltd", "2.50"), ("A2", None, "3")]
CSV = '\ufeffid,name,price\nA1,"Café, Ltd",2.50\nA2,,3\n'


def read(path: Path, options: Options | None = None) -> tuple[list[int], list[tuple[str | None, ...]], list[str]]:
    """Return lines, rows and the reasons of broken rows."""
    lines: list[int] = []
    rows: list[tuple[str | None, ...]] = []
    broken: list[str] = []
    with opened_table(path, options or Options()) as table:
        for chunk in table.chunks():
            lines += chunk.lines.to_list()
            rows += [tuple(cell or None for cell in row) for row in chunk.frame.rows()]
            broken += [f"{row.line}: {row.reason}" for row in chunk.broken]
    return lines, rows, broken


def _csv(path: Path) -> None:
    path.write_text(CSV, encoding="utf-8")


def _semicolons(path: Path) -> None:
    path.write_text("id;name;price\r\nA1;Café, Ltd;2.50\r\nA2;;3\r\n", encoding="utf-8", newline="")


def _tsv(path: Path) -> None:
    path.write_text("id\tname\tprice\nA1\tCafé, Ltd\t2.50\nA2\t\t3\n", encoding="utf-8")


def _jsonl(path: Path) -> None:
    text = '{"id": "A1", "name": "Caf\\u00e9, Ltd", "price": 2.50}\n{"id": "A2", "name": null, "price": 3}\n'
    path.write_text(text, encoding="utf-8")


def _parquet(path: Path) -> None:
    pl.DataFrame(ROWS, schema=["id", "name", "price"], orient="row").write_parquet(path)


def _xlsx(path: Path) -> None:
    write_xlsx(path, [("id", "name", "price"), ("A1", "Café, Ltd", "2.50"), ("A2", None, 3)])


FORMATS: list[tuple[str, Callable[[Path], None], list[int]]] = [
    ("t.csv", _csv, [2, 3]),
    ("semicolons.csv", _semicolons, [2, 3]),
    ("t.tsv", _tsv, [2, 3]),
    ("t.jsonl", _jsonl, [1, 2]),
    ("t.parquet", _parquet, [1, 2]),
    ("t.xlsx", _xlsx, [2, 3]),
]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(("name", "write", "lines"), FORMATS, ids=[name for name, _, _ in FORMATS])
def test_every_format_gives_the_same_rows(
    tmp_path: Path, name: str, write: Callable[[Path], None], lines: list[int], packed: bool
) -> None:
    path = tmp_path / name
    write(path)
    if packed:
        packed_path = tmp_path / f"{name}.gz"
        packed_path.write_bytes(gzip.compress(path.read_bytes()))
        path = packed_path
    assert read(path) == (lines, ROWS, [])


def test_a_record_over_several_lines_keeps_the_line_it_starts_on(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,note\n1,"two\nlines"\n\n2,x\n3,y,z\n4\n5,z,\n', encoding="utf-8")
    lines, rows, broken = read(tmp_path / "t.csv")
    assert lines == [2, 5, 8]
    assert [row[0] for row in rows] == ["1", "2", "5"]
    assert broken == ["6: has 3 cells where the header has 2", "7: has 1 cells where the header has 2"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,note\n1,x\n2,"never closed\n3,y\n4,z\n', 3),
        ('id,note\n1,x\n2,"never closed', 3),
        ('id,note\n1,x\n2,"', 3),
        ('id,note\n1,"never closed\n2,y\n3,"z"\n4,w\n', 2),
        ('id,"note\n1,x\n2,y\n', 1),
    ],
    ids=["to the end", "on the last line", "at the very end", "up to the next mark", "in the header"],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_quotation_mark_that_is_never_closed_swallows_no_rows(
    tmp_path: Path, name: str, text: str, line: int
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    with pytest.raises(InputError, match=rf"{name}:{line}:1: cannot be read .*a quotation mark that is never closed"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("cell", "read_as"),
    [
        ('5" nail', '5" nail'),
        ('"5"" nail"', '5" nail'),
        ('"5" nail"', '5 nail"'),
        ('"nail" ', "nail "),
        (' "nail"', ' "nail"'),
        ('"two\nlines, ""quoted"""', 'two\nlines, "quoted"'),
        ('"two\r\n\r\nlines"', "two\r\n\r\nlines"),
        ('""', None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_lenient_quotation_marks_are_read_as_ever(tmp_path: Path, cell: str, read_as: str | None, end: str) -> None:
    (tmp_path / "t.csv").write_bytes(f"note,id\n{cell},1\n{cell},2{end}".encode())
    assert read(tmp_path / "t.csv")[1] == [(read_as, "1"), (read_as, "2")]
    (tmp_path / "t.csv").write_bytes(f"id,note\n1,{cell}\n2,{cell}{end}".encode())
    assert read(tmp_path / "t.csv")[1] == [("1", read_as), ("2", read_as)]


def test_a_line_that_is_no_json_object_is_broken_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"id": 1}\nnot json\n[1]\n\n{"id": 2.10, "of": {"x": true}}\n', encoding="utf-8")
    lines, rows, broken = read(tmp_path / "t.jsonl")
    assert (lines, rows) == ([1, 5], [("1", None), ("2.10", "true")])
    assert broken == ["2: is not a JSON object", "3: is not a JSON object"]


def test_a_column_first_seen_late_in_json_lines_is_found(tmp_path: Path) -> None:
    text = '{"id": 1}\n' * 3_000 + '{"id": 2, "late": "x"}\n'
    (tmp_path / "t.jsonl").write_text(text, encoding="utf-8")
    with opened_table(tmp_path / "t.jsonl", Options(needed=["late"])) as table:
        assert table.header == ["id", "late"]


def test_excel_rows_keep_their_numbers_across_empty_ones(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "t.xlsx", [[], ("id", "price"), ("A1", 1.5), [], ("A2", 2)])
    assert read(tmp_path / "t.xlsx") == ([3, 5], [("A1", "1.5"), ("A2", "2")], [])


def test_typed_columns_are_written_out_in_one_form(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "customer": [13085.0, None],
            "price": [0.1, 2.0],
            "at": [datetime(2011, 12, 9, 12, 50), None],  # noqa: DTZ001 - Parquet's own times may have no zone
            "flag": [True, None],
            "tags": [["a"], None],
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    with opened_table(tmp_path / "t.parquet", Options()) as table:
        assert table.header == ["customer", "price", "at", "flag"]
    assert read(tmp_path / "t.parquet")[1] == [
        ("13085", "0.1", "2011-12-09 12:50:00.000", "true"),
        (None, "2", None, None),
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", "id,name\n1,Caf\xe9\n".encode("latin-1"), "t.csv: is not UTF-8 .*save it as UTF-8"),
        ("t.csv", "id,name\n".encode("utf-16"), "t.csv: is UTF-16, not UTF-8"),
        ("t.csv", b"", "t.csv: is empty"),
        (
            "t.csv",
            b'id,name\n1,"' + b"x" * 200_000,
            r"t\.csv:2:1: cannot be read .*a quotation mark that is never closed",
        ),
        ("t.csv.gz", b"id,name\n1,2\n", "is not a whole gzip file"),
        ("t.csv.gz", gzip.compress(b"id,name\n" + bytes(range(48, 58)) * 9_000)[:-12], "is not a whole gzip file"),
        ("t.xlsx", b"PK no zip", r"is not an XLSX file \(an old \.xls file"),
        ("t.parquet", b"PAR? no", "is not a Parquet file"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read(tmp_path / name)


def test_a_name_that_tells_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.xls: cannot tell the format .* \.csv, \.tsv, \.xlsx"):
        read(tmp_path / "t.xls")


def test_a_workbook_that_would_unpack_to_gigabytes_is_not_opened(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b"\0" * 50_000_000)
    (tmp_path / "t.xlsx").write_bytes(content.getvalue())
    with pytest.raises(InputError, match="would unpack to 50,000,000 bytes"):
        read(tmp_path / "t.xlsx")


def test_an_unknown_sheet_names_the_nearest(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "t.xlsx", [("id",), ("A1",)], sheet="Customers")
    assert read(tmp_path / "t.xlsx", Options(sheet="Customers"))[1] == [("A1",)]
    with pytest.raises(InputError, match=r"has no sheet 'Customer' \(did you mean 'Customers'"):
        read(tmp_path / "t.xlsx", Options(sheet="Customer"))
