"""`carillon import` and `carillon sources`: exit codes, JSON, plain lines in a log, a bar on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.settings import Workspace
from tests.importing import HEADER, LINES, give_file, give_sources

SHEET = HEADER + "536365,85123A,HOLDER,6,2010-12-01 08:26,2.55,17850,GB\n"


def carillon(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *arguments, "--workspace", str(workspace.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=_environment(), check=False)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {name: value for name, value in os.environ.items() if not name.startswith("CARILLON")} | {"PYTHONPATH": root}


@pytest.fixture(autouse=True)
def _sources(workspace: Workspace) -> None:
    give_sources(workspace, LINES)


def test_a_good_file_exits_with_0_and_tells_its_counts_as_json(workspace: Workspace) -> None:
    file = give_file(workspace, "s.csv", SHEET)
    done = carillon(workspace, "import", "invoices", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "source": "invoices",
        "kind": "order_lines",
        "files": [str(file)],
        "rows": 1,
        "new": 1,
        "changed": 0,
        "unchanged": 0,
        "superseded": 0,
        "rejected": 0,
        "without_customer": 0,
        "orders": 1,
        "products": 1,
        "accounts": 1,
        "net_minor": 1530,
        "created": {"accounts": 1, "products": 1},
        "orders_by_kind": {"order": 1},
        "currency": "GBP",
        "amount": "15.3",
        "rejects_file": None,
    }
    assert "rows read: 1\n" in done.stderr
    assert "order lines: 1 of 1\n" in done.stderr


def test_rejected_rows_exit_with_3_and_say_where_they_are(workspace: Workspace) -> None:
    file = give_file(workspace, "s.csv", SHEET + "536366,A,B,x,2010-12-01,1,17850,GB\n")
    done = carillon(workspace, "import", "invoices", str(file))
    assert done.returncode == 3
    assert "1 row(s) rejected" in done.stderr
    assert ".carillon/rejects/invoices-" in done.stderr
    assert "without customer" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["import"], "name a source"),
        (["import", "invoice"], "did you mean 'invoices'"),
        (["import", "invoices"], "names no file"),
        (["import", "invoices", "nowhere.csv"], "there is no file nowhere.csv"),
    ],
)
def test_a_mistake_exits_with_1_and_says_what_to_do(workspace: Workspace, arguments: list[str], expected: str) -> None:
    done = carillon(workspace, *arguments)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_the_sources_are_listed(workspace: Workspace) -> None:
    listed = carillon(workspace, "sources", "--json")
    assert [(one["name"], one["kind"]) for one in json.loads(listed.stdout)] == [("invoices", "order_lines")]
    assert carillon(workspace, "import", "--list", "--json").stdout == listed.stdout
    assert "invoices" in carillon(workspace, "sources").stdout


def test_a_terminal_gets_a_bar(workspace: Workspace) -> None:
    file = give_file(workspace, "s.csv", SHEET)
    command = [sys.executable, "-m", "cli.main", "import", "invoices", str(file), "-w", str(workspace.root)]
    ours, theirs = pty.openpty()
    environment = _environment() | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = _everything(ours)
    os.close(ours)
    assert process.returncode == 0
    assert "\x1b[" in seen
    assert "order lines" in seen


def _everything(terminal: int) -> str:
    """Return what is written to the terminal until its last writer is gone, which reading tells by an error."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode(errors="replace")
