"""The delivery core in this process over real servers, for faults that need no process to die: many cells a minute.

What Celery does about a task that fails, `drive` does: it is logged, and the next hint calls again.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from kernel.errors import CarillonError
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import PENDING_STATES
from store.engine import open_database, reading, writing
from store.lanes import open_lane
from store.tables import lanes, messages
from tests.faults.checker import Facts, Judgement, judge
from tests.faults.stage import SETTINGS
from tests.servers.truth import Taken, TruthLog, read_truth
from tests.servers.truth_sink import Fault, TruthServer, TruthSink
from tests.servers.truth_sms import TruthProvider, TruthProviderServer, plan_of
from workers.drain import Drain

LEASE = timedelta(seconds=20)
"""Longer than a busy machine lets a process wait: a lease that runs out leaves doubts, which no fault explains here."""
_PAST = datetime(2020, 1, 1, tzinfo=UTC)
ENVIRONMENT = {"CARILLON_SECRET_KEY": "k" * 64}


SMS_SETTINGS = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  texts:
    type: http
    url: "http://127.0.0.1:{port}/send"
    json_body: {{to: "{{to}}", text: "{{text}}", ref: "{{ref}}"}}
    timeout: 2s
    concurrency: 4
    reply: {{status: status, accepted: ["0"], transient: ["1"], gateway_id: id}}{more}
limits: {{first_retry: 1s}}
"""
SMS_SPEC: dict[str, Any] = {
    "audience": {"segment": "everyone"},
    "schedule": {"at": "2026-01-01 09:00"},
    "steps": [{"sms": "note", "gateway": "texts"}],
}


def certified(way: str, folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the context of a server on 127.0.0.1, and the authority its client is told to trust.

    The certificate is "of another authority", "expired" or "for another host"; else it is good.
    """
    trusted, other = trustme.CA(), trustme.CA()
    issuer = other if way == "of another authority" else trusted
    name = "elsewhere.example" if way == "for another host" else "127.0.0.1"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(name, not_after=_PAST if way == "expired" else None).configure_cert(context)
    path = folder / "ca.pem"
    trusted.cert_pem.write_to_path(str(path))
    return context, path


class Bench:
    """A workspace, a database and a worker's core. Leave it by `close`."""

    def __init__(self, root: Path, database_url: str, *, settings: str = SETTINGS) -> None:
        root.mkdir()
        self.root = root
        self.settings = settings
        self.truth = root / "truth.log"
        self.log = TruthLog(self.truth)
        self.engine: Engine = open_database(database_url)
        self.workers: Engine = self.engine
        """What the worker's core is given; another one where its way to the database is spoilt."""
        self.lease = LEASE
        self.failures: list[str] = []
        self.port = 0
        self._drain: Drain | None = None
        self._closers: list[Callable[[], Any]] = []
        self.workspace: Workspace

    def sink(self, *plan: str, **more: Any) -> TruthSink:
        """Start a sink of this process, and write the settings for its port."""
        sink = TruthSink(self.log, [Fault.read(text) for text in plan], **more)
        server = TruthServer(sink)
        server.__enter__()
        self._closers.append(server.__exit__)
        self.use_port(server.port)
        return sink

    def provider(self, *plan: str, port: int = 0, tls: ssl.SSLContext | None = None, **more: Any) -> TruthProvider:
        """Start an SMS provider of this process, and write the settings for its port."""
        provider = TruthProvider(self.log, plan_of(*plan), **more)
        server = TruthProviderServer(provider, port, tls)
        server.__enter__()
        self._closers.append(server.__exit__)
        self.use_port(server.port)
        return provider

    def use_port(self, port: int, more: str = "") -> None:
        """Write the settings; the gateway is at this port."""
        self.port = port
        (self.root / "carillon.yaml").write_text(self.settings.format(port=port, more=more), encoding="utf-8")
        self.workspace = load_workspace(self.root, ENVIRONMENT)

    def drain(self) -> Drain:
        """Return the worker's core, made anew after a failure of the making."""
        if self._drain is None:
            self._drain = Drain(self.workers, self.workspace, lease=self.lease)
        return self._drain

    def drive(self, seconds: float = 40.0, lanes_used: Sequence[str] = ("relay",), *, reopen: bool = True) -> None:
        """Call the core again and again, as hints do, until every message is at an end.

        `reopen` opens lanes that closed, as an operator may; otherwise their time is waited for.
        """
        ends = time.monotonic() + seconds
        while self.pending():
            if time.monotonic() > ends:
                raise AssertionError(f"{self.pending()} messages are not at an end after {seconds:.0f} s")
            for lane in lanes_used:
                try:
                    if reopen:
                        self.open_lanes()
                    self.drain().run(lane, budget=timedelta(seconds=20), stopping=lambda: False)
                except (SQLAlchemyError, CarillonError) as error:
                    self.failures.append(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
            time.sleep(0.05)

    def run(self, lane: str = "relay") -> None:
        """Call the core once."""
        self.drain().run(lane, budget=timedelta(seconds=20), stopping=lambda: False)

    def open_lanes(self) -> None:
        with writing(self.engine) as connection:
            for name in connection.execute(select(lanes.c.name)).scalars().all():
                open_lane(connection, name)

    def pending(self) -> int:
        with reading(self.engine) as connection:
            query = select(func.count()).select_from(messages).where(messages.c.state.in_(PENDING_STATES))
            return int(connection.execute(query).scalar_one())

    def accepted(self) -> list[Taken]:
        return [taken for taken in read_truth(self.truth) if taken.kept]

    def judge(self, facts: Facts) -> Judgement:
        return judge(self.engine, read_truth(self.truth), facts, signer=self.workspace.signer())

    def end_servers(self) -> None:
        """End the servers that were started so far."""
        for closer in reversed(self._closers):
            closer()
        self._closers.clear()

    def anew(self) -> None:
        """Make the worker's core anew, as a new process would: settings are read once."""
        if self._drain is not None:
            self._drain.close()
        self._drain = None

    def close(self) -> None:
        self.anew()
        self.end_servers()
        self.workers.dispose()
        self.engine.dispose()
        self.log.close()
