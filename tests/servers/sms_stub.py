"""A real HTTP server that plays an SMS gateway; what it does is written in the text of the message."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSON_ANSWERS: dict[str, tuple[int, str]] = {
    "accept": (200, '{"result": {"status": "0", "id": "gw-1"}}'),
    "refuse": (400, '{"error": "invalid number"}'),
    "status-error": (200, '{"result": {"status": "7"}}'),
    "status-throttled": (200, '{"result": {"status": "1"}}'),
    "busy": (503, "busy"),
    "too-many": (429, "slow down"),
    "unauthorized": (401, "who are you"),
    "broken": (500, "oops"),
    "proxy": (502, "bad gateway"),
    "garbage": (200, "<html>hello</html>"),
    "redirect": (302, ""),
}
KANNEL_ANSWERS: dict[str, tuple[int, str]] = {
    "accept": (202, "0: Accepted for delivery"),
    "queue": (202, "3: Queued for later delivery"),
    "refuse": (400, "Missing receiver number, rejected"),
    "unauthorized": (403, "Authorization failed for sendsms"),
    "no-sender": (400, "Sender missing and no global set, rejected"),
    "busy": (503, "Temporal failure, try again later."),
    "garbage": (200, "what"),
}


class SmsStub:
    """Answers requests on 127.0.0.1; keeps what it took."""

    def __init__(self, answers: dict[str, tuple[int, str]], *, delay_s: float = 0.0) -> None:
        self.requests: list[dict[str, Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer(body)

            def do_GET(self) -> None:
                self.answer(b"")

            def answer(self, body: bytes) -> None:
                parameters = urllib.parse.urlsplit(self.path).query
                query = dict(urllib.parse.parse_qsl(parameters))
                if "udh" in query:  # octets, not text
                    query["udh"] = dict(urllib.parse.parse_qsl(parameters, encoding="latin-1"))["udh"]
                data = json.loads(body) if body else query
                time.sleep(delay_s)
                stub.requests.append({"data": data, "headers": dict(self.headers), "query": query})
                text = str(data.get("text", ""))
                if text == "drop":
                    self.close_connection = True
                    self.connection.close()
                    return
                if text.endswith(" once"):
                    before = [request["data"].get("text") for request in stub.requests[:-1]]
                    text = "accept" if text in before else text.removesuffix(" once")
                status, answer = answers.get(text, answers["accept"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                if status == 429:
                    self.send_header("Retry-After", "7")
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> SmsStub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
