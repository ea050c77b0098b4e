"""Files and sources for tests of the import."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from sqlalchemy import Engine, Select

from kernel.settings import Workspace
from store.engine import reading
from store.ingest.importing import run_import
from store.ingest.result import ImportResult, Report

NOW = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)

LINES = """\
sources:
  invoices:
    kind: order_lines
    columns: {order: Invoice, product: StockCode, product_name: Description, quantity: Quantity,
              ordered_at: InvoiceDate, unit_price: Price, account: CustomerID, country: Country}
    order_kind:
      cancellation: {order_starts_with: C}
      adjustment: {order_starts_with: A}
    create: [accounts, products]
"""
HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,CustomerID,Country\n"


def give_sources(workspace: Workspace, text: str) -> None:
    """Write sources.yaml."""
    (workspace.root / "sources.yaml").write_text(text, encoding="utf-8")


def give_file(workspace: Workspace, name: str, content: str | bytes) -> Path:
    """Write a file to import."""
    path = workspace.root / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def imported(
    engine: Engine, workspace: Workspace, source: str, file: Path | None = None, *, progress: Report | None = None
) -> ImportResult:
    """Import at a fixed instant."""
    return run_import(engine, workspace, source, file, now=NOW, progress=progress)


def rows(engine: Engine, query: Select[Any]) -> list[tuple[Any, ...]]:
    """Return what a query answers, as plain tuples."""
    with reading(engine) as connection:
        return [tuple(row) for row in connection.execute(query)]


def counts(result: ImportResult) -> dict[str, int]:
    """Return the counts of rows that are not 0."""
    names = ("rows", "new", "changed", "unchanged", "superseded", "rejected")
    return {name: getattr(result.tally, name) for name in names if getattr(result.tally, name)}


def write_xlsx(path: Path, table: Sequence[Sequence[str | float | None]], sheet: str = "Sheet1") -> None:
    """Write a minimal workbook: texts inline, numbers as numbers, None as no cell, [] as an empty row."""
    body = "".join(
        f'<row r="{at}">'
        + "".join(_cell(f"{chr(65 + column)}{at}", value) for column, value in enumerate(row))
        + "</row>"
        for at, row in enumerate(table, 1)
        if row
    )
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="rId1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        f'<sheet name="{sheet}" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in parts.items():
            packed.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')


def _cell(place: str, value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f'<c r="{place}"><v>{value}</v></c>'
