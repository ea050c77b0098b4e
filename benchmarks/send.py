"""Messages a second, end to end, on both databases, against a plain loop of smtplib and EmailMessage in the same run.

End to end is: claim, eligibility, rates, rendering (HTML and text, about 4 kB, eight tracked links), MIME, SMTP,
record, by the real worker with two processes, woken by the real scheduler through a real Redis. The clock starts
when the messages are planned and stops when the last is recorded. The plain loop renders the same templates (links
not rewritten, nothing recorded), builds an EmailMessage and hands it to one smtplib connection, message by message.

The server is Postfix's smtp-sink where it is installed, else the tests' own asyncio server; the result says which.
"""

from __future__ import annotations

import os
import shutil
import smtplib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

import jinja2

from kernel.settings import load_workspace
from kernel.vocabulary import MessageState
from store.engine import open_database
from store.schema import migrate
from tests import seeding
from tests.acceptance.processes import Processes, wait_for
from tests.servers.postgres import start_postgres
from workers.app import ready_file
from workers.embedded import answers

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "6000"))
ROUNDS = 3
_PARAGRAPH = "<p>Our prices for {{ account.name }} hold until the end of the month, and delivery stays free.</p>"
_LINK = '<p><a href="https://shop.example/offers/%d">Offer %d</a></p>'
HTML = (
    "<html><body><h1>Hello {{ contact.first_name }}</h1>"
    + "".join(_LINK % (i, i) + _PARAGRAPH for i in range(8))
    + _PARAGRAPH * 24
    + "</body></html>"
)
TEXT = "Dear {{ contact.first_name }},\n" + "".join(
    f"Offer {i} for {{{{ account.name }}}}: https://shop.example/offers/{i}\n" for i in range(8)
)
FILES = {"hello/subject.txt": "Hello {{ contact.first_name }}", "hello/body.txt": TEXT, "hello/body.html": HTML}


def measure() -> dict[str, Any]:
    """Run the plain loop and both databases in turn, print a table, return every figure."""
    seeding.FILES.clear()
    seeding.FILES.update(FILES)
    figures: dict[str, Any] = {"messages": MESSAGES, "rounds": ROUNDS}
    with ExitStack() as stack:
        port, figures["sink"] = stack.enter_context(_sink())
        postgres = start_postgres(durable=True)
        stack.callback(postgres.stop)
        rates: dict[str, list[float]] = {"plain loop": [], "SQLite": [], "PostgreSQL": []}
        memory: dict[str, int] = {}
        for _ in range(ROUNDS):
            rates["plain loop"].append(_plain_loop(port))
            for name in ("SQLite", "PostgreSQL"):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carillon-bench-")))
                url = f"sqlite:///{folder / 'bench.db'}" if name == "SQLite" else postgres.new_database()
                rate, peak_kb = _carillon(folder, url, port)
                rates[name].append(rate)
                memory[name] = max(memory.get(name, 0), peak_kb)
    base = statistics.median(rates["plain loop"])
    print(f"{MESSAGES} messages, {ROUNDS} rounds, two worker processes, sink: {figures['sink']}")
    print(f"{'':14}{'msg/s':>9}{'min':>9}{'max':>9}{'ratio':>8}{'MB/worker':>11}")
    for name, values in rates.items():
        median = statistics.median(values)
        figures[name] = {
            "per_second": round(median),
            "min": round(min(values)),
            "max": round(max(values)),
            "ratio_to_plain_loop": round(median / base, 2),
            "peak_worker_mb": round(memory[name] / 1024) if name in memory else None,
        }
        shown = figures[name]["peak_worker_mb"] or ""
        print(f"{name:14}{median:9.0f}{min(values):9.0f}{max(values):9.0f}{median / base:8.2f}{shown:>11}")
    return figures


@contextmanager
def _sink() -> Iterator[tuple[int, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin")
    if program:
        command = (
            [program, "-u", "nobody", "-c", f"127.0.0.1:{port}", "1000"]
            if os.getuid() == 0
            else [program, f"127.0.0.1:{port}", "1000"]
        )
        command = [part for part in command if part != "-c"]
        name = "Postfix smtp-sink"
    else:
        command = [sys.executable, "-m", "tests.servers.smtp_sink", "--port", str(port)]
        name = "asyncio sink of the tests"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port), "the sink")
        yield port, name
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _plain_loop(port: int) -> float:
    count = MESSAGES // 3
    html, text = jinja2.Environment(autoescape=True).from_string(HTML), jinja2.Environment().from_string(TEXT)
    connection = smtplib.SMTP("127.0.0.1", port)
    started = time.perf_counter()
    for i in range(count):
        context = {"contact": {"first_name": f"Ann {i}"}, "account": {"name": "Acme & Söhne"}}
        message = EmailMessage()
        message["From"] = "Acme <hello@acme.example>"
        message["To"] = f"user{i}@customer.example"
        message["Subject"] = f"Hello Ann {i}"
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain="acme.example")
        message.set_content(text.render(context))
        message.add_alternative(html.render(context), subtype="html")
        connection.send_message(message)
    elapsed = time.perf_counter() - started
    connection.quit()
    return count / elapsed


def _carillon(folder: Path, url: str, port: int) -> tuple[float, int]:
    environment = {"CARILLON_DATABASE_URL": url, "CARILLON_SECRET_KEY": "k" * 64}
    (folder / "carillon.yaml").write_text(
        'brand: {name: Acme, postal_address: "1 Dock Road"}\n'
        "senders:\n  default: {name: Acme, email: hello@acme.example}\n"
        "gateways:\n"
        f"  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, messages_per_connection: 1000}}\n",
        encoding="utf-8",
    )
    workspace = load_workspace(folder, environment)
    engine = open_database(url)
    migrate(engine)
    processes = Processes(folder, environment)
    try:
        processes.start("redis", "redis")
        wait_for(lambda: answers(workspace), "Redis")
        worker = processes.start("worker", "worker", "--concurrency", "2")
        processes.start("scheduler", "scheduler")
        wait_for(ready_file(folder, "worker").exists, "the worker")
        wait_for(ready_file(folder, "scheduler").exists, "the scheduler")
        # A few messages first, so that processes are forked and templates compiled.
        seeding.seed_messages(engine, 50, name="warmup")
        wait_for(lambda: seeding.states(engine) == {MessageState.SENT: 50}, "the warm-up")
        seeding.seed_messages(engine, MESSAGES, due_at=datetime.now(UTC) + timedelta(days=1), name="measured")
        started = _make_due(engine)
        wait_for(
            lambda: seeding.states(engine) == {MessageState.SENT: 50 + MESSAGES},
            "all messages",
            seconds=300,
            every_s=0.02,
        )
        return MESSAGES / (time.perf_counter() - started), _peak_kb(worker.pid)
    except BaseException:
        print(processes.log("worker")[-3000:], processes.log("scheduler")[-2000:], file=sys.stderr)
        raise
    finally:
        processes.stop_all()
        engine.dispose()


def _make_due(engine: Any) -> float:
    from sqlalchemy import update

    from store.engine import writing
    from store.tables import messages

    with writing(engine) as connection:
        connection.execute(
            update(messages).where(messages.c.state == MessageState.PLANNED).values(due_at=datetime.now(UTC))
        )
    return time.perf_counter()


def _peak_kb(main: int) -> int:
    """Return the largest resident set any child of the worker has had, in KiB."""
    peaks = [0]
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if lines.get("PPid", "").strip() == str(main):
            peaks.append(int(lines["VmHWM"].split()[0]))
    return max(peaks)
