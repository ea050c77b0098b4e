"""A real Kannel of our own with its fake SMSC: on loopback ports nobody else uses, in a folder of its own."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tests.outside.programs import absent, program

_FAKESMSC = Path("/usr/lib/kannel/test/fakesmsc")
_CONFIGURATION = """\
group = core
admin-port = {admin}
admin-password = admin
admin-interface = 127.0.0.1
smsbox-port = {box}
smsbox-interface = 127.0.0.1
box-allow-ip = "127.0.0.1"
store-type = file
store-location = "{root}/store"

group = smsc
smsc = fake
smsc-id = FAKE
host = 127.0.0.1
port = {smsc}
connect-allow-ip = 127.0.0.1

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {sendsms}
sendsms-interface = 127.0.0.1

group = sendsms-user
username = carillon
password = secret
concatenation = true
max-messages = 1

group = sms-service
keyword = default
max-messages = 0
get-url = "{incoming}?from=%p&text=%a"
"""
_GOT = re.compile(r"Got message \d+: <(\S+) (\S+) (.*)>$", re.MULTILINE | re.DOTALL)
_SPLIT = re.compile(r"(?=^\d{4}-\d\d-\d\d )", re.MULTILINE)


Got = tuple[str, str, bytes, bytes]
"""Sender, recipient, joining header and body: UTF-16 where we asked for UCS-2, else UTF-8."""


class Kannel:
    """bearerbox, smsbox and fakesmsc; a context manager. `max-messages = 1`: whatever we leave whole, it refuses."""

    def __init__(self, root: Path, *, incoming: str = "http://127.0.0.1:1/") -> None:
        self.root = root
        ports = _free_ports(4)
        self._smsc, self._box, self.sendsms = ports[1], ports[2], ports[3]
        (root / "kannel.conf").write_text(
            _CONFIGURATION.format(
                root=root, admin=ports[0], smsc=ports[1], box=ports[2], sendsms=ports[3], incoming=incoming
            ),
            encoding="utf-8",
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sendsms}/cgi-bin/sendsms"

    def __enter__(self) -> Kannel:
        for name in ("bearerbox", "smsbox"):
            program(name, debian="kannel")
        if not _FAKESMSC.is_file():
            absent("fakesmsc is not installed; on Debian and Ubuntu: apt-get install kannel-extras")
        self.start_boxes()
        self.start_smsc()
        return self

    def __exit__(self, *exc: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)

    def start_boxes(self) -> None:
        self._start("bearerbox", [program("bearerbox", debian="kannel"), str(self.root / "kannel.conf")])
        until(lambda: _listens(self._box), "bearerbox listens")
        self.start_smsbox()

    def start_smsbox(self) -> None:
        self._start("smsbox", [program("smsbox", debian="kannel"), str(self.root / "kannel.conf")])
        until(lambda: _listens(self.sendsms), "smsbox listens")

    def start_smsc(self, *incoming: str) -> None:
        """Connect the fake SMSC; it sends what people wrote, each as "number shortcode text words"."""
        until(lambda: _listens(self._smsc), "bearerbox takes SMSCs")
        command = [str(_FAKESMSC), "-H", "127.0.0.1", "-r", str(self._smsc), "-i", "0.1", "-m", str(len(incoming))]
        self._start("fakesmsc", [*command, *(incoming or ("1 1 text none",))])

    def stop(self, name: str, *, kill: bool = False) -> None:
        process = self._running.pop(name)
        if kill:
            process.kill()
        else:
            process.terminate()
        process.wait(20)

    def got(self, count: int, seconds: float = 20) -> list[Got]:
        """Return what the SMSC was given, once so many messages came."""
        until(lambda: len(self._messages()) >= count, f"{count} messages at the SMSC", seconds)
        return self._messages()

    def _messages(self) -> list[Got]:
        found = []
        for log in sorted(self.root.glob("fakesmsc.*.log")):
            for entry in _SPLIT.split(log.read_text(encoding="utf-8", errors="replace")):
                match = _GOT.search(entry.rstrip("\n"))
                if match:
                    found.append((match[1], match[2], *_read(match[3])))
        return found

    def _start(self, name: str, command: list[str]) -> None:
        self._starts += 1
        with (self.root / f"{name}.{self._starts:03}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.root)


def _read(rest: str) -> tuple[bytes, bytes]:
    """Read what follows the numbers: "text words", or "data %xx" for what is no plain text; after "udh %xx" or not."""
    header = b""
    if rest.startswith("udh "):
        _, octets, rest = rest.split(" ", 2)
        header = unquote_to_bytes(octets.replace("+", " "))
    kind, _, words = rest.partition(" ")
    return header, words.encode() if kind == "text" else unquote_to_bytes(words.replace("+", " "))


def _listens(port: int) -> bool:
    """Tell whether somebody listens, without knocking: bearerbox takes any caller for an SMSC."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in map(str.split, lines))


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
