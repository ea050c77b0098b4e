"""SMS a second through one gateway that answers after 20 ms, 32 requests under way at once, by one process.

Two measurements. First the ways to have many requests under way, bare of everything else: a pool of threads over
requests, aiohttp, and our own client, each posting the same form; the processor time of this process a message is
what decides between them, for the rest is the gateway's delay. Then the whole way (claim, eligibility, render, send,
record) by a real worker with one process, on both databases. The gateway runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, update

from kernel.gateways import HttpGateway
from kernel.settings import load_workspace
from kernel.vocabulary import MessageState
from store.engine import open_database, writing
from store.schema import migrate
from store.tables import messages
from templates.sms import ComposedSms
from templates.sms_parts import Encoding
from tests import seeding
from tests.acceptance.processes import Processes, wait_for
from tests.servers.flights import RememberingFlight
from tests.servers.postgres import start_postgres
from workers.app import ready_file
from workers.channels.http import HttpChannel
from workers.channels.port import Parcel
from workers.embedded import answers

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "6000"))
ROUNDS = 3
DELAY_S = 0.02
SEATS = 32
TEXT = "Ann, 10 % off tiles until Friday: https://shop.example/t/9Zk3 Reply STOP to opt out"
FORM = {"to": "{to}", "text": "{text}", "ref": "{ref}"}
_BODY = b'{"status":"0","id":"gw-1"}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


def measure() -> dict[str, Any]:
    """Run every way in turn, print a table, return every figure."""
    figures: dict[str, Any] = {"messages": MESSAGES, "rounds": ROUNDS, "delay_ms": DELAY_S * 1000, "seats": SEATS}
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    with ExitStack() as stack:
        port = _gateway(stack)
        postgres = start_postgres(durable=True)
        stack.callback(postgres.stop)
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                rate, cpu_us = _timed(lambda way=way: way(f"http://127.0.0.1:{port}/sms", MESSAGES))  # type: ignore[misc]
                rates.setdefault(name, []).append(rate)
                costs.setdefault(name, []).append(cpu_us)
            for name in ("SQLite", "PostgreSQL"):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carillon-bench-")))
                url = f"sqlite:///{folder / 'bench.db'}" if name == "SQLite" else postgres.new_database()
                rate, cpu_us = _carillon(folder, url, port)
                rates.setdefault(f"end to end, {name}", []).append(rate)
                costs.setdefault(f"end to end, {name}", []).append(cpu_us)
    print(f"{MESSAGES} SMS, {ROUNDS} rounds, {SEATS} under way at once, answers after {DELAY_S * 1000:g} ms")
    print(f"{'':28}{'msg/s':>9}{'min':>9}{'max':>9}{'µs of CPU a message':>22}")
    for name, values in rates.items():
        cost = statistics.median(costs[name])
        figures[name] = {
            "per_second": round(statistics.median(values)),
            "min": round(min(values)),
            "max": round(max(values)),
            "cpu_us_per_message": round(cost),
        }
        print(f"{name:28}{statistics.median(values):9.0f}{min(values):9.0f}{max(values):9.0f}{cost:22.0f}")
    return figures


# --- the ways, bare --------------------------------------------------------------------------------------------


def _timed(send: Callable[[], None]) -> tuple[float, float]:
    began, busy = time.perf_counter(), time.process_time()
    send()
    return MESSAGES / (time.perf_counter() - began), (time.process_time() - busy) * 1e6 / MESSAGES


def _form(number: int) -> dict[str, str]:
    return {"to": f"+4479{number:08d}", "text": TEXT, "ref": f"ref{number}"}


def _threads(url: str, count: int) -> None:
    import requests

    session = requests.Session()
    session.trust_env = False
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=SEATS)
    session.mount("http://", adapter)

    def one(number: int) -> None:
        answer = session.post(url, data=_form(number), timeout=30, allow_redirects=False)
        if answer.json()["status"] != "0":
            raise RuntimeError(answer.text)

    with ThreadPoolExecutor(SEATS) as pool:
        list(pool.map(one, range(count)))
    session.close()


def _aiohttp(url: str, count: int) -> None:
    import aiohttp
    import uvloop

    async def run() -> None:
        numbers = iter(range(count))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SEATS)) as session:

            async def seat() -> None:
                for number in numbers:
                    async with session.post(url, data=_form(number), allow_redirects=False) as answer:
                        if (await answer.json())["status"] != "0":
                            raise RuntimeError(await answer.text())

            await asyncio.gather(*(seat() for _ in range(SEATS)))

    uvloop.run(run())


def _ours(url: str, count: int) -> None:
    settings = {"type": "http", "url": url, "form": FORM, "reply": {"status": "status", "accepted": ["0"]}}
    channel = HttpChannel(HttpGateway.model_validate({**settings, "concurrency": SEATS}), receipt_url="")
    flight = RememberingFlight()
    parcels = [
        Parcel(
            index=number,
            message_id=number,
            ref=f"ref{number}",
            content=ComposedSms(address=f"+4479{number:08d}", text=TEXT, parts=1, encoding=Encoding.GSM7),
        )
        for number in range(count)
    ]
    channel.deliver(parcels, flight, lambda: True)
    channel.close()
    if list(flight.endings.values()).count("accepted") != count:
        raise RuntimeError(f"{count} sent, {len(flight.receipts)} accepted")


WAYS = {"32 threads over requests": _threads, "aiohttp on uvloop": _aiohttp, "our client": _ours}


# --- the whole way ---------------------------------------------------------------------------------------------


def _carillon(folder: Path, url: str, port: int) -> tuple[float, float]:
    environment = {"CARILLON_DATABASE_URL": url, "CARILLON_SECRET_KEY": "k" * 64}
    (folder / "carillon.yaml").write_text(
        'brand: {name: Acme, postal_address: "1 Dock Road"}\n'
        "senders:\n  default: {name: Acme, email: hello@acme.example}\n"
        "gateways:\n"
        f"  text: {{type: http, url: 'http://127.0.0.1:{port}/sms', concurrency: {SEATS},\n"
        '    form: {to: "{to}", text: "{text}", ref: "{ref}"},\n'
        '    reply: {status: status, accepted: ["0"], gateway_id: id}}\n',
        encoding="utf-8",
    )
    seeding.FILES["offer.txt"] = (
        "{{ contact.first_name }}, 10 % off tiles until Friday: https://shop.example/offers Reply STOP to opt out"
    )
    spec = {**seeding.SPEC, "steps": [{"sms": "offer", "gateway": "text"}]}
    workspace = load_workspace(folder, environment)
    engine = open_database(url)
    migrate(engine)
    processes = Processes(folder, environment)
    try:
        processes.start("redis", "redis")
        wait_for(lambda: answers(workspace), "Redis")
        worker = processes.start("worker", "worker", "--concurrency", "1")
        processes.start("scheduler", "scheduler")
        wait_for(ready_file(folder, "worker").exists, "the worker")
        wait_for(ready_file(folder, "scheduler").exists, "the scheduler")
        seeding.seed_messages(engine, 50, name="warmup", lane="text", channel="sms", spec=spec)
        wait_for(lambda: seeding.states(engine) == {MessageState.SENT: 50}, "the warm-up")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        seeding.seed_messages(engine, MESSAGES, due_at=tomorrow, name="measured", lane="text", channel="sms", spec=spec)
        busy = _cpu_s(worker.pid)
        began = _make_due(engine)
        done = {MessageState.SENT: 50 + MESSAGES}
        wait_for(lambda: seeding.states(engine) == done, "all messages", seconds=300, every_s=0.02)
        return MESSAGES / (time.perf_counter() - began), (_cpu_s(worker.pid) - busy) * 1e6 / MESSAGES
    except BaseException:
        print(processes.log("worker")[-3000:], processes.log("scheduler")[-2000:], file=sys.stderr)
        raise
    finally:
        processes.stop_all()
        engine.dispose()


def _make_due(engine: Engine) -> float:
    with writing(engine) as connection:
        connection.execute(
            update(messages).where(messages.c.state == MessageState.PLANNED).values(due_at=datetime.now(UTC))
        )
    return time.perf_counter()


def _cpu_s(main: int) -> float:
    """Return the processor seconds the worker and its child have used."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat.parent.name == str(main) or fields[1] == str(main):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


# --- the gateway -----------------------------------------------------------------------------------------------


def _gateway(stack: ExitStack) -> int:
    process = subprocess.Popen([sys.executable, "-m", __name__, "--serve"], stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    if process.stdout is None:
        raise RuntimeError("the gateway has no output")
    return int(process.stdout.readline())


class _Gateway(asyncio.Protocol):
    """Answers each request after the delay; reads of it no more than where it ends."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while b"\r\n\r\n" in self._got:
            head, _, rest = self._got.partition(b"\r\n\r\n")
            length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))[15:])
            if len(rest) < length:
                return
            self._got = rest[length:]
            asyncio.get_running_loop().call_later(DELAY_S, self._transport.write, _ANSWER)  # type: ignore[attr-defined]


def _serve() -> None:
    import uvloop

    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Gateway, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(run())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", required=True)
    parser.parse_args()
    _serve()
