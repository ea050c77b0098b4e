"""What Carillon's sending is measured against, each with the same two templates or the same size, in the same run."""

from __future__ import annotations

import os
import smtplib
import subprocess
import sys
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

import jinja2
from celery import Celery

from benchmarks.smtp_engine import found
from tests.acceptance.processes import wait_for

TASK = "bench.send"
VARIABLES = ("BENCH_BROKER", "BENCH_PORT", "BENCH_DONE", "BENCH_HTML", "BENCH_TEXT")


def smtp_source(port: int, *, messages: int, octets: int) -> tuple[float, int]:
    """Return the best that Postfix's load generator reaches, in messages a second, and with how many sessions."""
    best = (0.0, 0)
    for sessions in (10, 50, 100):
        command = [found("smtp-source"), "-s", str(sessions), "-m", str(messages), "-l", str(octets), "-d"]
        started = time.perf_counter()
        subprocess.run([*command, f"127.0.0.1:{port}"], check=True)
        best = max(best, (messages / (time.perf_counter() - started), sessions))
    return best


def composed(number: int, html: jinja2.Template, text: jinja2.Template) -> EmailMessage:
    """Return a message as most programs make one: rendered, nothing tracked, nothing recorded."""
    context = {"contact": {"first_name": f"Ann {number}"}, "account": {"name": "Acme & Söhne"}}
    message = EmailMessage()
    message["From"] = "Acme <hello@acme.example>"
    message["To"] = f"user{number}@customer.example"
    message["Subject"] = f"Hello Ann {number}"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="acme.example")
    message.set_content(text.render(context))
    message.add_alternative(html.render(context), subtype="html")
    return message


def plain_loop(port: int, *, messages: int, html: str, text: str) -> float:
    """Return what one process with one smtplib connection sends a second, message by message."""
    made = jinja2.Environment(autoescape=True).from_string(html), jinja2.Environment().from_string(text)
    with smtplib.SMTP("127.0.0.1", port) as connection:
        started = time.perf_counter()
        for number in range(messages):
            connection.send_message(composed(number, *made))
        return messages / (time.perf_counter() - started)


def celery_tasks(folder: Path, broker: str, port: int, *, messages: int, html: str, text: str) -> float:
    """Return what two Celery processes send a second, one task a message, each with a connection of its own."""
    done = folder / "done"
    done.mkdir()
    values = dict(zip(VARIABLES, (broker, str(port), str(done), html, text), strict=True))
    app = Celery("bench", broker=broker, task_ignore_result=True)
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_peer", "worker", "--concurrency", "2"]
    worker = subprocess.Popen(
        [*command, "--without-gossip", "--without-mingle", "--loglevel", "ERROR"],
        env={**os.environ, **values},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def finished() -> int:
        return sum(path.stat().st_size for path in done.iterdir())

    try:
        app.send_task(TASK, args=[0])
        wait_for(lambda: finished() == 1, "the Celery worker")
        started = time.perf_counter()
        for number in range(1, messages + 1):
            app.send_task(TASK, args=[number])
        wait_for(lambda: finished() == messages + 1, "all tasks", seconds=600)
        return messages / (time.perf_counter() - started)
    finally:
        worker.terminate()
        worker.wait()
