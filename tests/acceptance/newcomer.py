"""The workspace of a newcomer: made by `carillon init`, filled by `carillon import`, and looked at from outside."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.acceptance.processes import Processes

NOTHING_SET = dict.fromkeys(
    ("CARILLON_DATABASE_URL", "CARILLON_BROKER_URL", "CARILLON_SECRET_KEY", "CARILLON_API_TOKEN"), ""
)
"""The machine's own settings must not reach the newcomer's workspace; empty counts as not set."""
GATEWAYS = """\
  relay:
    type: smtp
    host: 127.0.0.1
    port: {relay}
    tls: none
"""
WORKSPACE = """\
brand: {{name: Acme Wholesale, postal_address: "1 Dock Road, Leeds LS1 1AA, UK"}}
currency: EUR
timezone: Europe/Berlin
senders:
  default: {{name: Acme Wholesale, email: news@acme.example}}
gateways:
{gateways}
web: {{port: {web}, public_url: "http://127.0.0.1:{web}"}}
"""
DATA = {
    "accounts": """\
account_no,company,country
A-1,Anchor & Sons,GB
A-2,Barrel Ltd,GB
A-3,Canvas GmbH,DE
A-4,Dock & Co,DE
""",
    "contacts": """\
contact_no,account_no,email,first_name,last_name,role
C-1,A-1,ann@anchor.example,Ann,Archer,buyer
C-2,A-2,bob@barrel.example,Bob,Baker,buyer
C-3,A-3,cem@canvas.example,Cem,Cetin,buyer
C-4,A-4,dan@dock.example,Dan,Draper,buyer
C-5,A-1,eve@anchor.example,Eve,Ender,clerk
C-6,A-2,fay@barrel.example,Fay,Fuller,clerk
""",
    "consents": """\
contact_no,channel,status,at
C-1,email,granted,2026-01-01
C-2,email,granted,2026-01-01
C-3,email,granted,2026-01-01
C-4,email,granted,2026-01-01
""",
    "orders": """\
order_no,account_no,ordered_at,net_amount
O-1,A-1,2026-03-01,100.00
O-2,A-2,2026-03-01,80.00
O-3,A-3,2026-03-01,60.00
""",
}
"""Four buyers who consented, the last of an account that never ordered, and two clerks nobody has asked."""
BUYERS = ["ann@anchor.example", "bob@barrel.example", "cem@canvas.example", "dan@dock.example"]
SEGMENTS = {role: f"subject: contact\nwhere:\n  attribute: {{name: role, eq: {role}}}\n" for role in ("buyer", "clerk")}


class Shop(Processes):
    """A workspace and its processes."""

    def carillon(
        self, *arguments: str, root: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the workspace's folder, as somebody at a terminal does, to its end."""
        answer = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.environment, **environment},
            cwd=root or self.root,
            check=False,
        )
        assert "Traceback" not in answer.stderr, answer.stderr
        return answer

    def done(self, *arguments: str, **environment: str) -> str:
        """Run a command that must succeed; returns what it says."""
        answer = self.carillon(*arguments, **environment)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr

    def told(self, *arguments: str) -> Any:
        """Run a command that must succeed with --json; returns the document."""
        answer = self.carillon(*arguments, "--json")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return json.loads(answer.stdout)

    def refused(self, *arguments: str, code: int = 1, **environment: str) -> str:
        """Run a command that must fail and change nothing, neither facts nor files; returns its complaint."""
        facts, files = self.facts(), self.files()
        answer = self.carillon(*arguments, **environment)
        assert answer.returncode == code, answer.stdout + answer.stderr
        assert self.facts() == facts
        assert self.files() == files
        return answer.stderr

    def facts(self) -> dict[str, list[Any]]:
        """Return every row of every table."""
        with closing(sqlite3.connect(self.root / ".carillon" / "carillon.db")) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: sorted(database.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names}

    def ask(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query."""
        with closing(sqlite3.connect(self.root / ".carillon" / "carillon.db", timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def files(self) -> dict[str, str]:
        """Return what stands in every file of the workspace that people write."""
        found = [path for path in self.root.rglob("*") if path.is_file()]
        own = [path for path in found if path.relative_to(self.root).parts[0] not in (".carillon", "logs")]
        return {str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in own}

    def write(self, path: str, text: str) -> None:
        """Write a file of the workspace."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def edit(self, path: str, *changes: tuple[str, str]) -> None:
        """Replace words of a file; each must be there."""
        text = (self.root / path).read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.write(path, text)

    def doctor(self, **environment: str) -> str:
        """Ask the doctor, who must find something in the way of sending; returns what he says."""
        answer = self.carillon("doctor", **environment)
        assert answer.returncode == 1, answer.stdout + answer.stderr
        return answer.stdout


def free_port() -> int:
    """Return a port nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_shop(root: Path) -> Shop:
    """Make a workspace by `carillon init` and fill it by `carillon import`."""
    root.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        [sys.executable, "-m", "cli.main", "init", str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        env=Processes(root.parent, NOTHING_SET).environment,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    shop = Shop(root, {**NOTHING_SET, "COLUMNS": "200"})
    port = free_port()
    shop.write("carillon.yaml", WORKSPACE.format(gateways=GATEWAYS.format(relay=port), web=free_port()))
    for name, text in SEGMENTS.items():
        shop.write(f"segments/{name}.yaml", text)
    for name, text in DATA.items():
        shop.write(f"data/{name}.csv", text)
        shop.done("import", name)
    return shop


def copy_of(shop: Shop, root: Path) -> Shop:
    """Return a copy of a workspace in which nothing runs."""
    shutil.copytree(shop.root, root)
    return Shop(root, {**NOTHING_SET, "COLUMNS": "200"})
