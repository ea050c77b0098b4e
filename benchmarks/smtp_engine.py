"""What the SMTP engine costs a message: ready-made messages through many connections into Postfix's smtp-sink.

    python -m benchmarks.smtp_engine [--messages 20000] [--connections 20] [--octets 6000] [--delay-ms 0] [--profile]

Reports messages a second and microseconds of this process's CPU a message (user and system); beside them, in the same
run, what Postfix's own load generator reaches (`smtp-source -d`, one fixed body). With --delay-ms a proxy of its own
process stands between and holds every byte back, half the delay each way.
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
from typing import Any

import uvloop

from kernel.gateways import SmtpGateway
from templates.mail import ComposedMail
from workers.channels.port import Parcel, Receipt
from workers.channels.smtp import SmtpChannel
from workers.smtp.engine import shared_loop

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


def engine(port: int, options: argparse.Namespace, chunk: list[Parcel]) -> tuple[float, float, float]:
    """Return messages a second, and microseconds of CPU a message: user, system."""
    gateway = SmtpGateway(
        type="smtp",
        host="127.0.0.1",
        port=port,
        tls="none",
        connections=options.connections,
        messages_per_connection=options.per_connection,
        helo="bench.example",
    )
    channel = SmtpChannel(gateway)
    flight = TrivialFlight()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for at in range(0, len(chunk), options.chunk):
        channel.deliver(chunk[at : at + options.chunk], flight, lambda: True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    channel.close()
    if flight.endings["accepted"] != len(chunk):
        raise SystemExit(f"not all were accepted: {flight.endings}")
    micro = 1e6 / len(chunk)
    user_us, system_us = (after.ru_utime - before.ru_utime) * micro, (after.ru_stime - before.ru_stime) * micro
    return len(chunk) / seconds, user_us, system_us


def source(port: int, options: argparse.Namespace) -> float:
    """Return what smtp-source reaches, in messages a second."""
    command = [found("smtp-source"), "-s", str(options.connections), "-m", str(options.messages)]
    started = time.perf_counter()
    subprocess.run([*command, "-l", str(options.octets), "-d", f"127.0.0.1:{port}"], check=True)
    return options.messages / (time.perf_counter() - started)


def main() -> None:
    """Measure, and print the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--per-connection", type=int, default=100_000)
    parser.add_argument("--octets", type=int, default=6000)
    parser.add_argument("--chunk", type=int, default=2000)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    chunk = parcels(options.messages, options.octets)
    with ExitStack() as stack:
        port = stack.enter_context(sink())
        if options.delay_ms:
            port = stack.enter_context(far_away(port, options.delay_ms / 1000))
        if options.profile:
            _profile(port, options, chunk)
            return
        rounds = [
            (*engine(port, options, chunk), 0 if options.delay_ms else source(port, options)) for _ in range(_ROUNDS)
        ]
    rates, user, system, sources = zip(*rounds, strict=True)
    figures = {
        "messages_per_s": round(statistics.median(rates)),
        "user_us": round(statistics.median(user), 1),
        "system_us": round(statistics.median(system), 1),
        "smtp_source_per_s": round(statistics.median(sources)),
    }
    print(json.dumps(vars(options) | figures))


def _profile(port: int, options: argparse.Namespace, chunk: list[Parcel]) -> None:
    profile = cProfile.Profile()
    loop = shared_loop()
    loop.call_soon_threadsafe(profile.enable)
    time.sleep(0.2)
    print(engine(port, options, chunk))
    loop.call_soon_threadsafe(profile.disable)
    time.sleep(0.2)
    profile.print_stats("tottime")


if __name__ == "__main__":
    main()
