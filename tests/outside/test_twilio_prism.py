"""What we ask of Twilio, before Twilio's own OpenAPI document behind Prism (npm @stoplight/prism-cli).

The document is the one Twilio publishes; npm `@twilio-alpha/mcp`, Twilio's own package, carries it. Prism answers only
what the document allows and says what breaks it. That the official library accepts our reading of callback signatures
stands in tests/integration/test_sms_callbacks.py.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from socket import socket

import pytest
import requests

from templates.sms import ComposedSms
from templates.sms_parts import split
from tests.outside.programs import NODE, node_package, program
from tests.servers.flights import RememberingFlight
from tests.servers.sms_adapters import twilio, twilio_gateway
from tests.servers.sms_providers import ACCOUNT, SECRET
from workers.channels.port import Parcel
from workers.reconcilers.port import Question
from workers.reconcilers.twilio import TwilioReconciler

PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
SERVICE = "MG" + "1" * 32


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Twilio's document served by Prism, which refuses a request that breaks it."""
    document = node_package("@twilio-alpha/mcp") / "twilio-oai" / "spec" / "json" / "twilio_api_v2010.json"
    node_package("@stoplight/prism-cli")
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("prism") / "log"
    command = [program("node", debian="nodejs npm"), str(NODE / "node_modules" / ".bin" / "prism"), "mock"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), str(document)], stdout=output, stderr=output
        )
    try:
        _wait_for(log, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 120
    while b"is listening" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.1)


def sms(text: str) -> Parcel:
    parts = split(text)
    content = ComposedSms(address="+4915112345678", text=text, parts=len(parts.parts), encoding=parts.encoding)
    return Parcel(index=0, message_id=1, ref="ref0", content=content)


def test_the_judge_judges(prism: str) -> None:
    def post(path: str = PATH, **options: object) -> int:
        return requests.post(f"{prism}{path}", timeout=20, **options).status_code  # type: ignore[arg-type]

    fields = {"To": "+4915112345678", "From": "+15005550006", "Body": "hello"}
    auth = (ACCOUNT, SECRET)
    assert post(data=fields, auth=auth) == 201
    assert post(data=fields) == 401
    assert post(data={"Body": "hello"}, auth=auth) == 422
    assert post(data={**fields, "StatusCallback": "not an address"}, auth=auth) == 422
    assert post(json=fields, auth=auth) == 415
    assert post(f"{PATH.replace(ACCOUNT, 'AC1')}", data=fields, auth=auth) == 422


@pytest.mark.parametrize("text", ["hello", "Grüße ☕ & = + %", "x" * 1600])
@pytest.mark.parametrize(
    "settings", [{}, {"messaging_service_sid": SERVICE, "sender": ""}, {"validity": "4h"}, {"sender": "ACME"}]
)
def test_what_we_send_is_what_twilios_document_asks_for(prism: str, settings: dict[str, str], text: str) -> None:
    channel = twilio(prism, receipt_url="https://mail.acme.example/v1/gateways/t/receipt/s", **settings)
    flight = RememberingFlight()
    channel.deliver([sms(text)], flight, lambda: True)
    channel.close()
    assert flight.endings == {0: "accepted"}, flight.errors
    receipt = flight.receipts[0]
    assert receipt.code == 201
    assert (receipt.gateway_id or "")[:2] in ("SM", "MM")


def test_what_we_ask_of_a_doubt_is_what_twilios_document_asks_for(prism: str) -> None:
    reconciler = TwilioReconciler(twilio_gateway(prism))
    question = Question(
        ref="r", address="+4915112345678", since=datetime.now(UTC), text=lambda: "hello", is_ours=lambda _: False
    )
    finding = reconciler.ask(question, now=datetime.now(UTC))
    reconciler.close()
    # The document's own example is of long ago, and its address of the next page is an example too.
    assert finding.words.startswith("Twilio lists"), finding
