"""The demo's SMS provider: HTTP in, receipts and replies out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests

from demo.sms_gateway import running_sms_gateway, send_receipt, send_reply


@pytest.fixture
def callbacks() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A URL, and what was posted to it."""
    posted: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/receipts", posted
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_keeps_messages_and_calls_back(tmp_path: Path, callbacks: tuple[str, list[dict[str, str]]]) -> None:
    url, posted = callbacks
    with running_sms_gateway(tmp_path) as gateway, requests.Session() as session:
        answer = session.post(
            gateway.url,
            json={"to": "+12015550100", "from": "Northgate", "text": "Grüße €", "client_ref": "17", "callback": url},
            timeout=10,
        )
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
        assert gateway.wait_for(1, 10)
        (sms,) = gateway.messages()
        assert (sms.to, sms.text, sms.client_ref, sms.id) == ("+12015550100", "Grüße €", "17", answer.json()["id"])
        assert send_receipt(session, sms, "delivered") == 200
        assert send_reply(session, sms, "STOP", url) == 200
    assert posted == [
        {"id": sms.id, "client_ref": "17", "status": "delivered"},
        {"id": f"{sms.id}-reply", "from": "+12015550100", "to": "Northgate", "text": "STOP"},
    ]
    assert json.loads((tmp_path / "messages.jsonl").read_text(encoding="utf-8"))["text"] == "Grüße €"


@pytest.mark.parametrize("body", [b"not json", b'"text"', b'{"to": "", "text": "x"}', b'{"to": "+12015550100"}'])
def test_it_rejects_what_is_no_message(tmp_path: Path, body: bytes) -> None:
    with running_sms_gateway(tmp_path) as gateway:
        answer = requests.post(gateway.url, data=body, timeout=10)
        assert (answer.status_code, answer.json()["status"]) == (400, "rejected")
        assert gateway.messages() == []


def test_other_paths_are_not_found(tmp_path: Path) -> None:
    with running_sms_gateway(tmp_path) as gateway:
        assert requests.post(gateway.url.replace("messages", "else"), json={}, timeout=10).status_code == 404
