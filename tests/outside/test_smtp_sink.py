"""The engine against Postfix's own misbehaving server: what `smtp-sink` is told to do wrong means what it should."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.errors import GatewayDown
from tests.contract.test_smtp_faults import parcel
from tests.contract.test_smtp_stages import gateway
from tests.outside.programs import program
from tests.servers.flights import RememberingFlight
from workers.channels.smtp import SmtpChannel

MESSAGES = 3


@contextmanager
def smtp_sink(*flags: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    command = [program("smtp-sink", debian="postfix"), *user, *flags, f"127.0.0.1:{port}", "100"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < ends, "smtp-sink does not listen"
                time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait()


def told(port: int, **settings: object) -> tuple[str, RememberingFlight]:
    """Send three messages; return what became of them in a word, and the flight."""
    channel = SmtpChannel(gateway(port, connections=1, **settings))
    flight = RememberingFlight()
    try:
        channel.deliver([parcel(index) for index in range(MESSAGES)], flight, lambda: True)
    except GatewayDown as down:
        assert flight.endings == {}
        assert set(flight.committed) <= set(flight.retracted)
        return ("lasting" if down.lasting else "down"), flight
    finally:
        channel.close()
    assert flight.endings.keys() == set(range(MESSAGES))
    (ending,) = set(flight.endings.values())
    return ending, flight


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-q", "CONNECT"], "down"),
        (["-q", "EHLO,HELO"], "down"),
        (["-q", "MAIL"], "down"),
        (["-q", "RCPT"], "deferred"),
        (["-q", "DATA"], "deferred"),
        (["-q", "."], "unknown"),
        (["-q", "QUIT"], "accepted"),
        (["-Q", "CONNECT"], "down"),
        (["-Q", "EHLO,HELO"], "down"),
        (["-Q", "MAIL"], "down"),
        (["-Q", "RCPT"], "down"),
        (["-Q", "DATA"], "down"),
        (["-Q", "."], "down"),
        (["-Q", "QUIT"], "accepted"),
        (["-f", "CONNECT"], "down"),
        (["-f", "EHLO"], "accepted"),  # HELO is tried then
        (["-f", "EHLO,HELO"], "down"),
        (["-f", "MAIL"], "lasting"),
        (["-f", "RCPT"], "refused"),
        (["-f", "DATA"], "refused"),
        (["-f", "."], "refused"),
        (["-f", "QUIT"], "accepted"),
        (["-r", "CONNECT"], "down"),
        (["-r", "EHLO"], "down"),
        (["-r", "MAIL"], "down"),
        (["-r", "RCPT"], "deferred"),
        (["-r", "DATA"], "deferred"),
        (["-r", "."], "deferred"),
        (["-b", "452 4.3.1 quota", "-r", "RCPT"], "down"),
        (["-B", "550 5.7.26 unauthenticated", "-f", "."], "lasting"),
        (["-B", "552 5.2.2 full", "-f", "RCPT"], "deferred"),
        (["-8"], "accepted"),
        (["-N"], "accepted"),
        (["-p"], "accepted"),
        (["-e"], "accepted"),
        (["-E"], "accepted"),
        (["-P"], "accepted"),
        (["-8", "-N", "-p", "-E"], "accepted"),
        (["-w", "1"], "accepted"),
    ],
    ids=str,
)
def test_what_it_does_wrong_means_what_it_should(flags: list[str], expected: str) -> None:
    with smtp_sink(*flags) as port:
        verdict, flight = told(port)
    assert verdict == expected
    if expected in ("deferred", "refused") and "." not in flags:
        assert flight.committed == []


def test_a_server_that_stops_reading_in_the_middle_has_not_taken_the_message() -> None:
    long = parcel(0, data=b"Message-ID: <m0@x>\r\n\r\n" + (b"x" * 70 + b"\r\n") * 400_000)
    with smtp_sink("-A", "0") as port:
        channel, flight = SmtpChannel(gateway(port)), RememberingFlight()
        channel.deliver([long], flight, lambda: True)
        channel.close()
    assert flight.endings[0] in ("deferred", "refused")
    assert flight.committed == []


def test_what_it_writes_to_disk_is_what_was_sent() -> None:
    data = b"Message-ID: <m0@x>\r\nSubject: dots\r\n\r\n.\r\n..\r\n.x\r\nend\r\n"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # smtp-sink writes as nobody where the tests are run by root.
        with smtp_sink("-d", f"{folder}/%M.") as port:
            channel, flight = SmtpChannel(gateway(port)), RememberingFlight()
            channel.deliver([parcel(0, data=data)], flight, lambda: True)
            channel.close()
        (dump,) = [path.read_bytes() for path in Path(folder).iterdir()]
    assert flight.endings == {0: "accepted"}
    # It ends lines with LF, and puts X-...-Args lines and a Received field before the message.
    assert dump.rstrip(b"\n").endswith(data.replace(b"\r\n", b"\n").rstrip(b"\n"))
