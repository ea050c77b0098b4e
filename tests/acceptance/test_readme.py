"""What the README shows is true: its campaign validates, its mistakes are told as it says, its commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from campaigns.starting import start_workspace
from tests.servers.smtp_sink import Sink, SinkServer

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
)
(CAMPAIGN, SEGMENT) = [body for kind, body in BLOCKS if kind == "yaml"]
(MISTAKES,) = [body for kind, body in BLOCKS if kind == "text"]
COMMANDS = [
    line.split("#")[0].strip()
    for kind, body in BLOCKS
    if kind == "sh"
    for line in body.splitlines()
    if "carillon" in line
]

DATA = {
    "accounts": "account_no,company,country\n" + "".join(f"A{n},Shop {n},DE\n" for n in range(50)),
    "contacts": "contact_no,account_no,email,first_name,last_name,role\n"
    + "".join(f"C{n},A{n},c{n}@shop.example,Ada,L,buyer\n" for n in range(50)),
    "consents": "contact_no,channel,status,at\n" + "".join(f"C{n},email,granted,2026-01-01\n" for n in range(50)),
    "orders": "order_no,account_no,ordered_at,net_amount\n"
    + "".join(f"O{n}-{m},A{n},{2026 - n // 25}-0{m + 1}-15,{100 + n}\n" for n in range(50) for m in range(1 + n % 7)),
}


@pytest.fixture
def relay() -> Iterator[SinkServer]:
    with SinkServer(Sink()) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, relay: SinkServer) -> Path:
    """A new workspace with the shop's files, an SMS gateway, and what the README's campaign names."""
    root = tmp_path / "shop"
    start_workspace(root)
    settings = (root / "carillon.yaml").read_text(encoding="utf-8")
    # The doctor only connects to an SMS gateway, so any listening port does.
    sms = f"  sms: {{type: kannel, url: 'http://127.0.0.1:{relay.port}/sendsms', username: u, password: p}}\n"
    settings = settings.replace("port: 25\n", f"port: {relay.port}\n").replace("\nlimits:", f"{sms}\nlimits:")
    (root / "carillon.yaml").write_text(settings, encoding="utf-8")
    (root / "templates" / "winback-sms.txt").write_text(
        "Dear {{ contact.first_name }}, we miss you.\n", encoding="utf-8"
    )
    (root / "campaigns" / "winback.yaml").write_text(CAMPAIGN, encoding="utf-8")
    (root / "segments" / "slipping-away.yaml").write_text(SEGMENT, encoding="utf-8")
    (root / "data").mkdir()
    for name, text in DATA.items():
        (root / "data" / f"{name}.csv").write_text(text, encoding="utf-8")
    return root


def carillon(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_campaign_of_the_readme_is_in_order(shop: Path) -> None:
    result = carillon(shop, "validate")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_segment_of_the_readme_is_answered(shop: Path) -> None:
    for source in DATA:
        assert carillon(shop, "import", source).returncode == 0, source
    refreshed = carillon(shop, "segments", "refresh", "slipping-away", "--json")
    assert refreshed.returncode == 0, refreshed.stderr
    shown = carillon(shop, "segments", "show", "slipping-away", "--json")
    assert json.loads(shown.stdout)["members"], "nobody orders at a steady pace and has stopped since"


def test_mistakes_are_told_as_the_readme_says(shop: Path) -> None:
    wrong = CAMPAIGN.replace("segment: at-risk ", "segment: at-rsik ").replace("per_account: 2", "per_acount: 2")
    (shop / "campaigns" / "winback.yaml").write_text(wrong.replace('"2026-12-01 09:00"', "09:00"), encoding="utf-8")
    result = carillon(shop, "validate")
    assert result.returncode == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("campaigns/")] == MISTAKES.splitlines()


def test_the_commands_of_the_readme_run(shop: Path, relay: SinkServer) -> None:
    for source in DATA:
        assert carillon(shop, "import", source).returncode == 0, source
    ran = []
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if words[0] in ("init", "up"):
            continue  # The fixture made the workspace; `up` never ends, and the tests of processes run it.
        result = carillon(shop, *words)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        ran.append(words[0])
    assert ran == ["doctor", "import", "segments", "segments", "plan", "apply", "report", "ledger", "ledger", "lanes"]
    assert [to for _, _, to in relay.sink.accepted] == ["boss@acme.example"]
    assert "winback" in str(message_from_bytes(relay.sink.bodies[0])["Subject"]).lower()


def test_the_readme_tells_of_the_workspace_that_init_makes(tmp_path: Path) -> None:
    made = {str(path) for path in start_workspace(tmp_path)}
    assert {"carillon.yaml", "sources.yaml", "campaigns/winback.yaml", "segments/at-risk.yaml"} <= made
