"""A small IMAP server on a real socket: one account, its folders in memory, faults on demand.

It speaks what the collector uses of RFC 3501, 4315 and 6851, and refuses all else.
"""

from __future__ import annotations

import re
import socket
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

LITERAL = re.compile(rb"\{(\d+)\}$")


@dataclass
class Box:
    """What the account holds: by folder, by UID, the mail and its flags."""

    username: str = "bounces"
    password: str = 'secret "quoted"'
    capabilities: str = "IMAP4rev1 UIDPLUS MOVE"
    folders: dict[str, dict[int, bytes]] = field(default_factory=lambda: {"INBOX": {}})
    flags: dict[int, set[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    drop_in_fetch_of: set[int] = field(default_factory=set)
    """UIDs whose FETCH breaks off in the middle of the literal, once."""
    drop_before: set[str] = field(default_factory=set)
    """Commands at which the connection is closed without an answer, once each."""
    uids: int = 0

    def put(self, raw: bytes, folder: str = "INBOX") -> int:
        self.uids += 1
        self.folders.setdefault(folder, {})[self.uids] = raw
        self.flags[self.uids] = set()
        return self.uids


class _Gone(Exception):
    """The server closes the connection."""


class _Talk(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.box: Box = self.server.box  # type: ignore[attr-defined]  # set by ImapServer
        self.folder = ""
        self.logged_in = False
        try:
            self.say(f"* OK [CAPABILITY {self.box.capabilities}] ready")
            while line := self.rfile.readline():
                self.answer(line.rstrip(b"\r\n"))
        except (_Gone, OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def answer(self, line: bytes) -> None:
        while literal := LITERAL.search(line):
            self.say("+ go on")
            line = line[: literal.start()] + self.rfile.read(int(literal[1])) + self.rfile.readline().rstrip(b"\r\n")
        tag, _, rest = line.decode("utf-8", "replace").partition(" ")
        words = [quoted.replace('\\"', '"').replace("\\\\", "\\") if quoted else plain
                 for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\([^)]*\)|\S+)', rest)]  # fmt: skip
        name = words[0].upper() + (f" {words[1].upper()}" if words[0].upper() == "UID" else "")
        self.box.said.append(name)
        if name in self.box.drop_before:
            self.box.drop_before.discard(name)
            raise _Gone
        handler = {
            "CAPABILITY": self.capability,
            "LOGIN": self.login,
            "SELECT": self.select,
            "EXAMINE": self.select,
            "UID SEARCH": self.search,
            "UID FETCH": self.fetch,
            "UID STORE": self.store,
            "UID MOVE": self.move,
            "UID COPY": self.copy,
            "UID EXPUNGE": self.expunge,
            "LOGOUT": self.logout,
        }.get(name)
        told = handler(words[2:] if name.startswith("UID ") else words[1:]) if handler else "BAD unknown"
        self.say(f"{tag} {told}")

    def capability(self, _words: list[str]) -> str:
        self.say(f"* CAPABILITY {self.box.capabilities}")
        return "OK done"

    def login(self, words: list[str]) -> str:
        self.logged_in = words == [self.box.username, self.box.password]
        return "OK welcome" if self.logged_in else "NO [AUTHENTICATIONFAILED] who are you"

    def select(self, words: list[str]) -> str:
        if not self.logged_in or words[0] not in self.box.folders:
            return "NO no such folder"
        self.folder = words[0]
        self.say(f"* {len(self.box.folders[self.folder])} EXISTS")
        self.say("* OK [UIDVALIDITY 1] valid")
        return "OK [READ-WRITE] selected"

    def search(self, words: list[str]) -> str:
        without = {"UNSEEN": r"\Seen", "UNDELETED": r"\Deleted"}
        found = [
            uid
            for uid in sorted(self.box.folders[self.folder])
            if not any(without[word] in self.box.flags[uid] for word in words)
        ]
        self.say(f"* SEARCH {' '.join(map(str, found))}".rstrip())
        return "OK found"

    def fetch(self, words: list[str]) -> str:
        uid = int(words[0])
        asked = re.fullmatch(r"\(BODY\.PEEK\[\]<0\.(\d+)>\)", words[1])
        assert asked, words
        raw = self.box.folders[self.folder].get(uid)
        if raw is not None:
            part = raw[: int(asked[1])]
            self.wfile.write(b"* 1 FETCH (UID %d BODY[]<0> {%d}\r\n" % (uid, len(part)))
            if uid in self.box.drop_in_fetch_of:
                self.box.drop_in_fetch_of.discard(uid)
                self.wfile.write(part[: len(part) // 2])
                raise _Gone
            self.wfile.write(part + b")\r\n")
        return "OK fetched"

    def store(self, words: list[str]) -> str:
        assert words[1] == "+FLAGS.SILENT"
        self.box.flags[int(words[0])] |= set(words[2].strip("()").split())
        return "OK stored"

    def move(self, words: list[str]) -> str:
        if "MOVE" not in self.box.capabilities or words[1] not in self.box.folders:
            return "NO [TRYCREATE] no such folder"
        self.box.put(self.box.folders[self.folder].pop(int(words[0])), words[1])
        return "OK moved"

    def copy(self, words: list[str]) -> str:
        if words[1] not in self.box.folders:
            return "NO [TRYCREATE] no such folder"
        self.box.put(self.box.folders[self.folder][int(words[0])], words[1])
        return "OK copied"

    def expunge(self, words: list[str]) -> str:
        if "UIDPLUS" not in self.box.capabilities:
            return "BAD unknown"
        del self.box.folders[self.folder][int(words[0])]
        return "OK expunged"

    def logout(self, _words: list[str]) -> str:
        self.say("* BYE")
        return "OK bye"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    box: Box
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True)
        return connection, address


class ImapServer:
    """Serves a box; a context manager."""

    def __init__(self, box: Box, context: ssl.SSLContext | None = None) -> None:
        self.box = box
        self._server = _Server(("127.0.0.1", 0), _Talk)
        self._server.box, self._server.context = box, context
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> ImapServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
