"""A local SMS provider: takes messages as JSON over HTTP, keeps them, and calls back with receipts and replies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

_BODY_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sms:
    """One message taken over; `callback` is where its receipt goes."""

    id: str
    to: str
    sender: str
    text: str
    client_ref: str
    callback: str


class SmsGateway:
    """What a running provider has taken over. Safe to read from other threads.

    `POST /v1/messages` with `{to, from, text, client_ref, callback}` answers 202 `{id, status: "accepted"}`.
    Receipts are `{id, client_ref, status}`, posted as JSON to the callback; replies `{from, to, text, id}` to the
    address that the sender has told the provider once.
    """

    def __init__(self, folder: Path) -> None:
        """Keep messages in `folder`/messages.jsonl."""
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "messages.jsonl"
        self.port = 0
        self._messages: list[Sms] = []
        self._arrived = threading.Condition()
        self._log = self.file.open("a", encoding="utf-8", buffering=1)

    @property
    def url(self) -> str:
        """Where messages are posted."""
        return f"http://127.0.0.1:{self.port}/v1/messages"

    def messages(self, after: int = 0) -> list[Sms]:
        """Return what was taken over, without the first `after` messages."""
        with self._arrived:
            return self._messages[after:]

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until `count` messages are here in all; return whether they are."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self._messages) >= count, timeout_s)

    def take(self, fields: dict[str, str]) -> Sms:
        """Keep a message and give it an id."""
        with self._arrived:
            sms = Sms(
                id=f"sms-{len(self._messages) + 1:06d}",
                to=fields["to"],
                sender=fields.get("from", ""),
                text=fields["text"],
                client_ref=fields.get("client_ref", ""),
                callback=fields.get("callback", ""),
            )
            self._log.write(json.dumps(asdict(sms), ensure_ascii=False) + "\n")
            self._messages.append(sms)
            self._arrived.notify_all()
        return sms

    def close(self) -> None:
        """Close the file of messages."""
        self._log.close()


def send_receipt(session: requests.Session, sms: Sms, status: str) -> int:
    """Tell the sender what became of a message, as providers do; return the HTTP status of the answer."""
    receipt = {"id": sms.id, "client_ref": sms.client_ref, "status": status}
    return session.post(sms.callback, json=receipt, timeout=20).status_code


def send_reply(session: requests.Session, sms: Sms, text: str, url: str) -> int:
    """Hand the sender's own address for incoming SMS what the recipient answered; return the HTTP status."""
    reply = {"id": f"{sms.id}-reply", "from": sms.to, "to": sms.sender, "text": text}
    return session.post(url, json=reply, timeout=20).status_code


@contextmanager
def running_sms_gateway(folder: Path, *, port: int = 0) -> Iterator[SmsGateway]:
    """Run a gateway on 127.0.0.1, in threads of its own; port 0 takes a free one, told in `port`."""
    gateway = SmsGateway(folder)
    server = _Server(("127.0.0.1", port), _Handler)
    server.gateway = gateway
    gateway.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="sms", daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
        gateway.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gateway: SmsGateway


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, _BODY_LIMIT))
        if self.path != "/v1/messages":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "POST /v1/messages is all there is"})
            return
        try:
            fields = json.loads(body)
            wrong = [name for name in ("to", "text") if not isinstance(fields.get(name), str) or not fields[name]]
        except (ValueError, AttributeError):
            self._answer(HTTPStatus.BAD_REQUEST, {"status": "rejected", "error": "the body is not a JSON object"})
            return
        if wrong:
            self._answer(HTTPStatus.BAD_REQUEST, {"status": "rejected", "error": f"missing: {', '.join(wrong)}"})
            return
        sms = self.server.gateway.take(fields)
        self._answer(HTTPStatus.ACCEPTED, {"id": sms.id, "status": "accepted"})

    def _answer(self, status: HTTPStatus, data: dict[str, str]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Keep standard error quiet."""
