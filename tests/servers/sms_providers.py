"""Real HTTP servers that answer as Twilio, Vonage, Alibaba Cloud and Tencent Cloud document it.

What a server does is written in the text of the SMS: `accept`, `drop` (take the request whole and hang up), or a code
of the provider. Alibaba's and Tencent's recompute every signature with the signer of the official SDK.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

ACCOUNT = "AC" + "0" * 32
SECRET = "not-a-secret"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived whole."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class Reply:
    status: int
    data: Any
    headers: dict[str, str] = field(default_factory=dict)


DROP = Reply(0, None)


class ProviderServer:
    """Listens on 127.0.0.1 and answers by a function; `seen` holds what it took."""

    def __init__(self, answer: Callable[[Seen], Reply]) -> None:
        self.seen: list[Seen] = []
        self._open: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer._open.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                where = urlsplit(self.path)
                query = dict(parse_qsl(where.query, keep_blank_values=True))
                seen = Seen(self.command, where.path, query, {k.lower(): v for k, v in self.headers.items()}, body)
                outer.seen.append(seen)
                reply = answer(seen)
                if reply is DROP:
                    self.close_connection = True
                    return
                raw = reply.data if isinstance(reply.data, bytes) else json.dumps(reply.data).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # Closing the server then waits for the threads of its connections.
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> ProviderServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join(5)


def twilio(seen: Seen) -> Reply:
    expected = base64.b64encode(f"{ACCOUNT}:{SECRET}".encode()).decode()
    if seen.headers.get("authorization") != f"Basic {expected}":
        return Reply(401, {"code": 20003, "message": "Authenticate", "status": 401})
    word = seen.form["Body"]
    if word == "accept":
        return Reply(201, {"sid": "SM1", "status": "queued", "num_segments": "2", "error_code": None})
    if word == "service":
        return Reply(201, {"sid": "SM2", "status": "accepted", "num_segments": "0", "error_code": None})
    if word == "failed":
        return Reply(201, {"sid": "SM3", "status": "failed", "num_segments": "1", "error_code": 30003})
    if word == "no sid":
        return Reply(201, {"status": "queued"})
    if word == "drop":
        return DROP
    if word.startswith("http"):
        return Reply(int(word[4:]), b"<html>no JSON here</html>", {"Retry-After": "9"})
    status = 429 if word == "20429" else 400
    return Reply(status, {"code": int(word), "message": f"error {word}", "status": status}, {"Retry-After": "9"})


class TwilioAccount:
    """Keeps the messages it took over, and lists them by number, two a page."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def __call__(self, seen: Seen) -> Reply:
        if seen.method == "GET":
            return self.page(seen)
        word = seen.form["Body"]
        if word == "drop after":
            self.take(seen.form["To"], word)
            return DROP
        reply = twilio(seen)
        if reply.status == 201:
            sid = self.take(seen.form["To"], word)
            return Reply(201, {**reply.data, "sid": sid})
        return reply

    def take(self, number: str, body: str) -> str:
        sid = f"SM{len(self.messages):032x}"
        created = format_datetime(datetime.now(UTC))
        message = {"sid": sid, "to": number, "body": body, "status": "sent", "direction": "outbound-api"}
        # As the real one: what still waits in the queue has no date_sent.
        self.messages.append({**message, "date_created": created, "date_sent": None})
        return sid

    def page(self, seen: Seen) -> Reply:
        found = [message for message in reversed(self.messages) if message["to"] == seen.query["To"]]
        start = int(seen.query.get("Page", "0")) * 2
        more = f"{seen.path}?{urlencode({'To': seen.query['To'], 'Page': start // 2 + 1})}"
        following = more if len(found) > start + 2 else None
        return Reply(200, {"messages": found[start : start + 2], "next_page_uri": following})


def vonage(seen: Seen) -> Reply:
    expected = base64.b64encode(f"key:{SECRET}".encode()).decode()
    if seen.headers.get("authorization") != f"Basic {expected}":
        return Reply(200, {"message-count": "1", "messages": [{"status": "4", "error-text": "Bad Credentials"}]})
    word = seen.form["text"]
    if word == "drop":
        return DROP
    if word.startswith("http"):
        return Reply(int(word[4:]), b"<html>no JSON here</html>")
    if word == "no messages":
        return Reply(200, {"message-count": "0", "messages": []})
    if word == "no status":
        return Reply(200, {"messages": [{"to": "1"}]})
    statuses = {"accept": ["0", "0"], "mixed": ["0", "1"]}.get(word, [word])
    parts = [
        {"to": seen.form["to"], "message-id": f"V{number}", "status": status}
        if status == "0"
        else {"status": status, "error-text": f"error {status}"}
        for number, status in enumerate(statuses, start=1)
    ]
    return Reply(200, {"message-count": str(len(parts)), "messages": parts})


class Aliyun:
    """Keeps every nonce it has seen, as the real one does for 31 minutes."""

    def __init__(self) -> None:
        self.nonces: set[str] = set()
        self.sent: dict[str, dict[str, str]] = {}

    def __call__(self, seen: Seen) -> Reply:
        from aliyunsdkcore.auth.algorithm import sha_hmac1
        from aliyunsdkcore.auth.composer import rpc_signature_composer as composer

        fields = seen.query | seen.form  # The SDK puts the common parameters into the query.
        given = fields.pop("Signature")
        sts = composer.__dict__["__compose_string_to_sign"](seen.method, fields)
        if given != sha_hmac1.get_sign_string(sts, f"{SECRET}&"):
            return Reply(400, {"Code": "SignatureDoesNotMatch", "Message": "signature"})
        nonce = fields["SignatureNonce"]
        if fields["Action"] == "QuerySendDetails":
            return self.details(fields)
        word = next(iter(json.loads(fields["TemplateParam"]).values()))
        if word == "drop before":  # The first never arrived; what is sent again does.
            if nonce not in self.nonces:
                self.nonces.add(nonce)
                self.nonces.add(f"{nonce} lost")
                return DROP
            if f"{nonce} lost" in self.nonces:
                self.nonces.discard(f"{nonce} lost")
                return self.accept(fields)
        if word.startswith("drop, then ") and nonce not in self.nonces:
            self.nonces.add(nonce)
            return DROP
        if word.startswith("drop, then "):
            return self.code(word.removeprefix("drop, then "), fields)
        if nonce in self.nonces and word != "drop":
            return Reply(400, {"Code": "SignatureNonceUsed", "Message": "used"})
        self.nonces.add(nonce)
        if word == "drop":
            return DROP
        if word == "drop after":
            self.accept(fields)
            return DROP
        return self.code(word, fields)

    def code(self, word: str, fields: dict[str, str]) -> Reply:
        if word == "accept":
            return self.accept(fields)
        if word.startswith("http"):
            return Reply(int(word[4:]), b"<html>no JSON here</html>")
        return Reply(200 if word.startswith("is") else 400, {"Code": word, "Message": "no", "RequestId": "r"})

    def accept(self, fields: dict[str, str]) -> Reply:
        self.sent[fields["OutId"]] = fields
        return Reply(200, {"Code": "OK", "Message": "OK", "BizId": "9006^0", "RequestId": "r"})

    def details(self, fields: dict[str, str]) -> Reply:
        size, page = int(fields["PageSize"]), int(fields["CurrentPage"])
        found = [
            {"OutId": out_id, "SendStatus": 3, "ErrCode": "DELIVRD", "PhoneNum": sent["PhoneNumbers"]}
            for out_id, sent in self.sent.items()
            if sent["PhoneNumbers"] == fields["PhoneNumber"]
        ]
        rows = found[(page - 1) * size : page * size]
        return Reply(200, {"Code": "OK", "TotalCount": len(found), "SmsSendDetailDTOs": {"SmsSendDetailDTO": rows}})


def tencent(seen: Seen) -> Reply:
    if seen.headers["authorization"] != tencent_oracle(seen):
        return Reply(200, {"Response": {"Error": {"Code": "AuthFailure.SignatureFailure", "Message": "no"}}})
    data = json.loads(seen.body)
    word = data["TemplateParamSet"][0]
    if word == "drop":
        return DROP
    if word.startswith("http"):
        return Reply(int(word[4:]), b"<html>no JSON here</html>")
    if word == "no set":
        return Reply(200, {"Response": {"RequestId": "r"}})
    if word.startswith("Error "):
        return Reply(200, {"Response": {"Error": {"Code": word[6:], "Message": "no"}, "RequestId": "r"}})
    status = {"PhoneNumber": data["PhoneNumberSet"][0], "SessionContext": data["SessionContext"], "IsoCode": "CN"}
    if word == "accept":
        status |= {"SerialNo": "5000:1", "Fee": 2, "Code": "Ok", "Message": "send success"}
    else:
        status |= {"SerialNo": "", "Fee": 0, "Code": word, "Message": "no"}
    return Reply(200, {"Response": {"SendStatusSet": [status], "RequestId": "r"}})


def tencent_oracle(seen: Seen) -> str:
    """Return the Authorization header the official SDK's own code gives for a request."""
    from types import SimpleNamespace

    from tencentcloud.common.credential import Credential
    from tencentcloud.sms.v20210111.sms_client import SmsClient

    at = datetime.fromtimestamp(int(seen.headers["x-tc-timestamp"]), UTC)
    header = {
        "Content-Type": seen.headers["content-type"],
        "Host": seen.headers["host"],
        "X-TC-Timestamp": seen.headers["x-tc-timestamp"],
    }
    request = SimpleNamespace(method=seen.method, uri=seen.path, data=seen.body, header=header)
    client = SmsClient(Credential("id", SECRET), "ap-guangzhou")
    made = client._get_tc3_signature(None, request, f"{at:%Y-%m-%d}", "sms", SECRET)
    scope = f"id/{at:%Y-%m-%d}/sms/tc3_request"
    return f"TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host, Signature={made}"
