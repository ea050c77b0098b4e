"""The usual Celery task: one message, one connection. What a worker of `benchmarks.peers.celery_tasks` runs."""

from __future__ import annotations

import os
import smtplib
from pathlib import Path

import jinja2
from celery import Celery

from benchmarks.peers import TASK, VARIABLES, composed

_broker, _port, _done, _html, _text = (os.environ[name] for name in VARIABLES)
_templates = jinja2.Environment(autoescape=True).from_string(_html), jinja2.Environment().from_string(_text)
app = Celery("bench", broker=_broker, task_ignore_result=True)


@app.task(name=TASK)
def send(number: int) -> None:
    """Send one message, and leave a byte that says so."""
    with smtplib.SMTP("127.0.0.1", int(_port)) as connection:
        connection.send_message(composed(number, *_templates))
    with (Path(_done) / str(os.getpid())).open("ab") as file:
        file.write(b".")
