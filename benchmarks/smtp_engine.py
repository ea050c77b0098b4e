"""What the SMTP engine costs a message: ready-made messages through many connections into Postfix's smtp-sink.

Beside it, in the same run, Postfix's own load generator (`smtp-source -d`, written in C, one fixed body of the same
size), and the engine's own code fed with answers at hand, so that the rest is known to be sockets. For the far relay a
proxy in a process of its own holds every byte back, half the delay each way. User and system time are this process's.

    python -m benchmarks.smtp_engine --connections 50 --delay-ms 50      # one load
    python -m benchmarks.smtp_engine --profile
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import os
import resource
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import uvloop

from kernel.errors import GatewayDown
from kernel.gateways import SmtpGateway
from templates.mail import ComposedMail
from workers.channels.port import Parcel, Receipt
from workers.channels.smtp import SmtpChannel
from workers.smtp.connection import Connection, Relay
from workers.smtp.engine import shared_loop
from workers.smtp.handshake import Terms
from workers.smtp.letters import Batch
from workers.smtp.offers import Offers
from workers.smtp.pool import Pool

_ROUNDS = 3


class TrivialFlight:
    """Counts, and nothing else."""

    def __init__(self) -> None:
        self.endings = {"accepted": 0, "refused": 0, "deferred": 0, "unknown": 0}

    def commit(self, index: int) -> None: ...
    def retract(self, index: int) -> None: ...

    def accepted(self, index: int, receipt: Receipt) -> None:
        self.endings["accepted"] += 1

    def refused(self, index: int, error: Exception) -> None:
        self.endings["refused"] += 1

    def deferred(self, index: int, error: Exception) -> None:
        self.endings["deferred"] += 1

    def unknown(self, index: int, error: Exception) -> None:
        self.endings["unknown"] += 1


def parcels(count: int, octets: int) -> list[Parcel]:
    """Ready-made messages of `octets`, to many domains."""
    body = b"x" * 74 + b"\r\n"
    made = []
    for index in range(count):
        head = b"Message-ID: <%d@acme.example>\r\nSubject: hi\r\n\r\n" % index
        data = head + body * (-(-(octets - len(head)) // len(body)))
        content = ComposedMail(
            envelope_from=f"b+{index}@acme.example",
            envelope_to=f"ann{index}@shop{index % 997}.example",
            message_id_header=f"<{index}@acme.example>",
            subject="hi",
            data=data,
            dotless=True,
        )
        made.append(Parcel(index=index, message_id=index, ref="", content=content))
    return made


@contextmanager
def sink() -> Iterator[int]:
    """Postfix's smtp-sink on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    process = subprocess.Popen([found("smtp-sink"), *user, f"127.0.0.1:{port}", "1000"], stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def found(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        raise SystemExit(f"{program} (Postfix) is not installed")
    return found


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server does not answer")


@contextmanager
def far_away(port: int, delay_s: float) -> Iterator[int]:
    """A proxy that makes the way to a port as long as it is told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[1]
    process = multiprocessing.Process(target=_proxy, args=(own, port, delay_s / 2), daemon=True)
    process.start()
    try:
        _wait_for(own)
        yield own
    finally:
        process.terminate()
        process.join()


def _proxy(own: int, port: int, delay_s: float) -> None:
    class Half(asyncio.Protocol):
        def __init__(self) -> None:
            self.other: Half | None = None
            self.early: list[bytes] = []

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            asyncio.get_running_loop().call_later(delay_s, self.pass_on, data)

        def pass_on(self, data: bytes) -> None:
            if self.other is None:
                self.early.append(data)
            elif not self.other.transport.is_closing():
                self.other.transport.write(data)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.other is not None:
                asyncio.get_running_loop().call_later(delay_s, self.other.transport.close)

    async def join(near: Half) -> None:
        _, far = await asyncio.get_running_loop().create_connection(Half, "127.0.0.1", port)
        near.other, far.other = far, near
        for data in near.early:
            far.transport.write(data)

    joins: set[asyncio.Task[None]] = set()

    def accept() -> Half:
        near = Half()
        task = asyncio.get_running_loop().create_task(join(near))
        joins.add(task)
        task.add_done_callback(joins.discard)
        return near

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", own)
        await server.serve_forever()

    uvloop.run(serve())


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent, and how far."""

    messages: int = 20_000
    octets: int = 6000
    connections: int = 20
    chunk: int = 2000
    delay_ms: float = 0.0


def engine(port: int, load: Load, ready: list[Parcel]) -> dict[str, float]:
    """Return messages a second, and microseconds of CPU a message: user, system."""
    gateway = SmtpGateway(
        type="smtp",
        host="127.0.0.1",
        port=port,
        tls="none",
        connections=load.connections,
        messages_per_connection=100_000,
        helo="bench.example",
    )
    channel = SmtpChannel(gateway)
    flight = TrivialFlight()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for at in range(0, len(ready), load.chunk):
        channel.deliver(ready[at : at + load.chunk], flight, lambda: True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    channel.close()
    if flight.endings["accepted"] != len(ready):
        raise SystemExit(f"not all were accepted: {flight.endings}")
    micro = 1e6 / len(ready)
    return {
        "messages_per_s": len(ready) / seconds,
        "user_us": (after.ru_utime - before.ru_utime) * micro,
        "system_us": (after.ru_stime - before.ru_stime) * micro,
    }


def source(port: int, load: Load) -> dict[str, float]:
    """Return what smtp-source reaches, in messages a second, and its CPU."""
    command = [found("smtp-source"), "-s", str(load.connections), "-m", str(load.messages)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "-l", str(load.octets), "-d", f"127.0.0.1:{port}"], check=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    micro = 1e6 / load.messages
    return {
        "messages_per_s": load.messages / seconds,
        "user_us": (after.ru_utime - before.ru_utime) * micro,
        "system_us": (after.ru_stime - before.ru_stime) * micro,
    }


class _Nowhere(asyncio.Transport):
    def write(self, data: bytes) -> None: ...  # type: ignore[override]
    def abort(self) -> None: ...


def without_sockets(ready: list[Parcel]) -> float:
    """Return microseconds of CPU a message with the answers at hand and nowhere to write: what our own code costs."""
    relay = Relay(
        host="x", port=1, context=None, timeout_s=60.0, final_timeout_s=600.0, messages_per_connection=10**9,
        connections=1, dsn=False,
    )  # fmt: skip

    async def dial(_fresh: bool) -> Terms:
        raise GatewayDown("nowhere")

    async def run() -> float:
        loop = asyncio.get_running_loop()
        flight = TrivialFlight()
        started = time.process_time()
        batch = Batch([(parcel, parcel.content) for parcel in ready], flight)  # type: ignore[misc]
        pool = Pool(relay, dial, loop)
        pool.submit(batch)
        connection = Connection(relay, pool, loop.time)
        connection.connection_made(_Nowhere())
        connection.carry(Offers(pipelining=True, sized=True, eight_bit=True))
        connection.begin()
        envelope = b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
        connection.data_received(envelope)
        for _ in ready[1:]:
            connection.data_received(b"250 2.0.0 Ok: queued as 4bR7xw2kPvz9rYd\r\n" + envelope)
        connection.data_received(b"250 2.0.0 Ok: queued as 4bR7xw2kPvz9rYd\r\n")
        if flight.endings["accepted"] != len(ready):
            raise SystemExit(f"not all were accepted: {flight.endings}")
        return (time.process_time() - started) / len(ready) * 1e6

    return asyncio.run(run())


def measure() -> dict[str, Any]:
    """Measure near and far, print a table, return every figure."""
    near, far, wide = Load(), Load(messages=8000, connections=50, delay_ms=50), Load(
        messages=16_000, connections=100, delay_ms=50
    )  # fmt: skip
    ready = parcels(near.messages, near.octets)
    rounds: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        port = stack.enter_context(sink())
        distant = stack.enter_context(far_away(port, far.delay_ms / 1000))
        for _ in range(_ROUNDS):
            for name, taken in (
                ("smtp-source -d, 20 sessions", source(port, near)),
                ("the engine, 20 connections", engine(port, near, ready)),
                ("the engine, 50 connections, 50 ms away", engine(distant, far, ready[: far.messages])),
                ("the engine, 100 connections, 50 ms away", engine(distant, wide, ready[: wide.messages])),
                ("our own code alone, without sockets", {"user_us": without_sockets(ready)}),
            ):
                rounds.setdefault(name, []).append(taken)
    medians = {
        name: {key: round(statistics.median(taken[key] for taken in many), 1) for key in many[0]}
        for name, many in rounds.items()
    }
    print(f"{'':42} {'messages/s':>10} {'user us':>8} {'system us':>9}")
    for name, figures in medians.items():
        cells = (figures.get(key) for key in ("messages_per_s", "user_us", "system_us"))
        print(f"{name:42} " + " ".join(f"{'' if cell is None else format(cell, ',.1f'):>9}" for cell in cells))
    return {"loads": [asdict(load) for load in (near, far, wide)], "medians": medians, "rounds": rounds}


def main() -> None:
    """Measure one load, or profile it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for field in fields(Load):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("--profile", action="store_true")
    options = vars(parser.parse_args())
    profile = options.pop("profile")
    load = Load(**options)
    ready = parcels(load.messages, load.octets)
    with ExitStack() as stack:
        port = stack.enter_context(sink())
        if load.delay_ms:
            port = stack.enter_context(far_away(port, load.delay_ms / 1000))
        if profile:
            _profile(port, load, ready)
            return
        for _ in range(_ROUNDS):
            print(json.dumps(engine(port, load, ready)), flush=True)


def _profile(port: int, load: Load, ready: list[Parcel]) -> None:
    profile = cProfile.Profile()
    loop = shared_loop()
    loop.call_soon_threadsafe(profile.enable)
    time.sleep(0.2)
    print(engine(port, load, ready))
    loop.call_soon_threadsafe(profile.disable)
    time.sleep(0.2)
    profile.print_stats("tottime")


if __name__ == "__main__":
    main()
