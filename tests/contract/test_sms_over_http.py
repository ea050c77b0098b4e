"""What can go wrong between us and an SMS gateway over HTTP, against a real server that does it."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from kernel.errors import GatewayDown, OutcomeUnknown
from kernel.gateways import HttpGateway
from kernel.settings import load_workspace
from tests.contract.test_channels import sms
from tests.servers.chaos_http import ChaosServer
from tests.servers.flights import RememberingFlight
from workers.channels.http import HttpChannel
from workers.http import client, delivery
from workers.recorder import Fenced
from workers.single import send_one


def channel(port: int, *, scheme: str = "http", **more: Any) -> HttpChannel:
    settings = {
        "type": "http",
        "url": f"{scheme}://127.0.0.1:{port}/send",
        "json_body": {"to": "{to}", "text": "{text}", "ref": "{ref}"},
        "reply": {"status": "result.status", "accepted": ["0"], "transient": ["1"], "gateway_id": "result.id"},
        "timeout": "1s",
        **more,
    }
    return HttpChannel(HttpGateway.model_validate(settings), receipt_url="")


@pytest.fixture
def server() -> Iterator[ChaosServer]:
    with ChaosServer() as running:
        yield running


@pytest.mark.parametrize(
    ("what", "ending"),
    [
        ("accept", "accepted"),
        ("interim", "accepted"),
        ("chunked", "accepted"),
        ("until-the-end", "accepted"),
        ("two-answers", "accepted"),
        ("nul-json", "accepted"),
        ("status-error", "refused"),
        ("status-throttled", "deferred"),
        ("refuse", "refused"),
        ("huge-refusal", "refused"),
        ("broken", "deferred"),
        ("json-list", "unknown"),
        ("not-json", "unknown"),
        ("deep-json", "unknown"),
        ("empty", "unknown"),
        ("huge", "unknown"),
        ("proxy", "unknown"),
        ("proxy-late", "unknown"),
        ("silence", "unknown"),
        ("drip", "unknown"),
        ("reset", "unknown"),
        ("hang-up", "unknown"),
        ("cut-body", "unknown"),
        ("cut-header", "unknown"),
        ("cut-chunk", "unknown"),
        ("no-http", "unknown"),
        ("endless-header", "unknown"),
    ],
)
def test_each_answer_has_its_meaning_and_harms_no_other_message(server: ChaosServer, what: str, ending: str) -> None:
    way = channel(server.port, concurrency=1)
    flight = RememberingFlight()
    assert way.deliver([sms("accept", 0), sms(what, 1), sms("accept", 2)], flight, lambda: True) == frozenset()
    way.close()
    assert flight.endings == {0: "accepted", 1: ending, 2: "accepted"}
    assert server.whole == ["accept", what, "accept"]
    assert flight.committed == [0, 1, 2]
    assert flight.retracted == []


@pytest.mark.parametrize(
    ("what", "lasting", "wait_s"),
    [
        ("too-many", False, 7.0),
        ("busy", False, 120.0),
        ("odd-wait", False, None),
        ("unauthorized", True, None),
        ("redirect", True, None),
    ],
)
def test_a_gateway_that_refuses_as_a_whole_blames_no_message(
    server: ChaosServer, what: str, lasting: bool, wait_s: float | None
) -> None:
    way = channel(server.port, concurrency=1)
    flight = RememberingFlight()
    with pytest.raises(GatewayDown) as caught:
        way.deliver([sms("accept", 0), sms(what, 1), sms("accept", 2)], flight, lambda: True)
    way.close()
    assert (caught.value.lasting, caught.value.retry_after_s) == (lasting, wait_s)
    assert flight.endings == {0: "accepted"}
    assert set(flight.committed) - set(flight.retracted) == {0}
    assert server.whole == ["accept", what]


def test_of_many_under_way_a_gateway_that_goes_down_leaves_the_rest_untouched(server: ChaosServer) -> None:
    way = channel(server.port, concurrency=4)
    flight = RememberingFlight()
    parcels = [sms(text, index) for index, text in enumerate(["late:0.2"] * 3 + ["busy"] + ["accept"] * 50)]
    with pytest.raises(GatewayDown):
        way.deliver(parcels, flight, lambda: True)
    way.close()
    assert flight.endings == {0: "accepted", 1: "accepted", 2: "accepted"}
    assert set(flight.committed) - set(flight.retracted) == {0, 1, 2}
    assert len(server.whole) == 4


def test_a_request_cut_off_before_its_end_was_not_sent(server: ChaosServer) -> None:
    pad = {"to": "{to}", "text": "{text}", "pad": "x" * 16_000_000}
    way = channel(server.port, headers={"X-Chaos": "reset-in-body"}, json_body=pad)
    flight = RememberingFlight()
    way.deliver([sms("accept")], flight, lambda: True)
    way.close()
    assert flight.endings == {0: "deferred"}
    assert server.whole == []


def test_a_connection_closed_while_idle_costs_nothing(server: ChaosServer) -> None:
    way = channel(server.port, concurrency=1)
    for _ in range(3):
        flight = RememberingFlight()
        way.deliver([sms("two-answers")], flight, lambda: True)  # The answer too many ends the connection.
        assert flight.endings == {0: "accepted"}
    assert server.connections == 3
    way.deliver([sms("accept", index) for index in range(10)], RememberingFlight(), lambda: True)
    way.close()
    assert server.connections == 4


def test_many_are_under_way_at_once(server: ChaosServer) -> None:
    way = channel(server.port, concurrency=20)
    flight = RememberingFlight()
    began = time.monotonic()
    way.deliver([sms("late:0.3", index) for index in range(40)], flight, lambda: True)
    way.close()
    assert set(flight.endings.values()) == {"accepted"}
    assert len(flight.endings) == 40
    assert server.connections == 20
    assert time.monotonic() - began < 40 * 0.3 / 4


def test_two_chunks_at_once_share_the_seats(server: ChaosServer) -> None:
    way = channel(server.port, concurrency=4)
    flights = [RememberingFlight() for _ in range(2)]

    def send(flight: RememberingFlight) -> None:
        way.deliver([sms("late:0.02", index) for index in range(40)], flight, lambda: True)

    threads = [threading.Thread(target=send, args=(flight,)) for flight in flights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    way.close()
    assert [flight.endings for flight in flights] == [dict.fromkeys(range(40), "accepted")] * 2
    assert server.connections == 4


def test_one_silent_request_holds_up_nobody_and_is_told_when_it_is_known(
    server: ChaosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PATIENCE_S", 0.1)
    way = channel(server.port, concurrency=2, timeout="20s")
    flight = RememberingFlight()
    texts = ["late:2", *["accept"] * 30]
    assert way.deliver([sms(text, i) for i, text in enumerate(texts)], flight, lambda: True) == {0}
    assert flight.endings == dict.fromkeys(range(1, 31), "accepted")
    second = RememberingFlight()
    assert way.deliver([sms("accept")], second, lambda: True) == frozenset()
    assert second.endings == {0: "accepted"}
    ends = time.monotonic() + 10
    while 0 not in flight.endings and time.monotonic() < ends:
        time.sleep(0.01)
    assert flight.endings[0] == "accepted"
    way.close()


@pytest.mark.parametrize(
    ("text", "parts"), [("charged", 3), ("charged-text", 2), ("charged-oddly", None), ("accept", None)]
)
def test_the_parts_a_gateway_says_it_charges_are_taken_over(server: ChaosServer, text: str, parts: int | None) -> None:
    reply = {"status": "result.status", "accepted": ["0"], "gateway_id": "result.id", "parts": "result.parts"}
    flight = RememberingFlight()
    sender = channel(server.port, reply=reply)
    sender.deliver([sms(text)], flight, lambda: True)
    sender.close()
    assert flight.receipts[0].parts == parts


@pytest.mark.parametrize(("text", "error"), [("late:1", None), ("silence", OutcomeUnknown)])
def test_a_single_message_is_waited_for(
    server: ChaosServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: type[Exception] | None
) -> None:
    monkeypatch.setattr(delivery, "PATIENCE_S", 0.1)
    (tmp_path / "carillon.yaml").write_text(
        'brand: {name: Acme, postal_address: "1 Dock Road"}\nsenders: {default: {name: A, email: a@acme.example}}\n'
        f"gateways: {{text: {{type: http, url: 'http://127.0.0.1:{server.port}/', timeout: 2s,\n"
        '  json_body: {to: "{to}", text: "{text}"},\n'
        '  reply: {status: result.status, accepted: ["0"], gateway_id: result.id}}}\n',
        encoding="utf-8",
    )
    shop, content = load_workspace(tmp_path, {}), sms(text).content
    if error is None:
        assert send_one(shop, "text", content).gateway_id == "gw-1"
    else:
        with pytest.raises(error):
            send_one(shop, "text", content)


def test_a_gateway_that_leaves_every_seat_without_an_answer_is_down(
    server: ChaosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PATIENCE_S", 0.1)
    way = channel(server.port, concurrency=3, timeout="3s")
    flight, second = RememberingFlight(), RememberingFlight()
    assert way.deliver([sms("silence", index) for index in range(10)], flight, lambda: True) == {0, 1, 2}
    with pytest.raises(GatewayDown, match="every request without an answer"):
        way.deliver([sms("accept")], second, lambda: True)
    assert second.committed == []
    ends = time.monotonic() + 10
    while len(flight.endings) < 3 and time.monotonic() < ends:
        time.sleep(0.01)
    way.close()
    assert flight.endings == dict.fromkeys(range(3), "unknown")
    assert server.whole == ["silence"] * 3


def test_a_process_that_ends_leaves_no_straggler_untold(server: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PATIENCE_S", 0.1)
    way, flight = channel(server.port, timeout="60s"), RememberingFlight()
    assert way.deliver([sms("silence", 0), sms("accept", 1)], flight, lambda: True) == {0}
    way.close()
    ends = time.monotonic() + 10
    while 0 not in flight.endings and time.monotonic() < ends:
        time.sleep(0.01)
    assert flight.endings == {0: "unknown", 1: "accepted"}


def test_a_fenced_chunk_sends_nothing_more_and_what_was_out_is_told(server: ChaosServer) -> None:
    class FencedFlight(RememberingFlight):
        def commit(self, index: int) -> None:
            if index == 2:
                raise Fenced
            super().commit(index)

    way = channel(server.port, concurrency=2)
    flight = FencedFlight()
    with pytest.raises(Fenced):
        way.deliver([sms("late:0.1", index) for index in range(9)], flight, lambda: True)
    way.close()
    assert 2 not in flight.endings
    assert set(flight.endings) == set(flight.committed) <= {0, 1, 3}
    assert len(server.whole) == len(flight.committed)


def test_the_flight_is_told_from_one_thread(server: ChaosServer) -> None:
    seen: set[str] = set()

    class WatchedFlight(RememberingFlight):
        def commit(self, index: int) -> None:
            seen.add(threading.current_thread().name)
            super().commit(index)

    way = channel(server.port)
    way.deliver([sms("accept", index) for index in range(50)], WatchedFlight(), lambda: True)
    way.close()
    assert seen == {"http-channels"}


def test_a_forked_process_has_a_loop_of_its_own(server: ChaosServer) -> None:
    way = channel(server.port)
    way.deliver([sms("accept")], RememberingFlight(), lambda: True)
    child = os.fork()
    if not child:
        flight = RememberingFlight()
        other = channel(server.port)
        other.deliver([sms("accept")], flight, lambda: True)
        os._exit(0 if flight.endings == {0: "accepted"} else 1)
    assert os.waitpid(child, 0)[1] == 0
    way.close()


# --- TLS -------------------------------------------------------------------------------------------------------


def tls(host: str, tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, str(path)


def test_a_verified_gateway_is_spoken_to_over_tls(tmp_path: Path) -> None:
    context, ca_file = tls("127.0.0.1", tmp_path)
    with ChaosServer(context) as server:
        way = channel(server.port, scheme="https", ca_file=ca_file)
        flight = RememberingFlight()
        texts = ["accept", "hang-up", "silence", "cut-body", "accept"]
        way.deliver([sms(text, index) for index, text in enumerate(texts)], flight, lambda: True)
        way.close()
    assert [flight.endings[index] for index in range(5)] == ["accepted", "unknown", "unknown", "unknown", "accepted"]


@pytest.mark.parametrize("trouble", ["unknown authority", "another host", "no TLS"])
def test_a_gateway_that_does_not_prove_who_it_is_gets_nothing(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_CONNECT_S", 0.5)
    context, ca_file = tls("sms.example" if trouble == "another host" else "127.0.0.1", tmp_path)
    with ChaosServer(None if trouble == "no TLS" else context) as server:
        trusted = {} if trouble == "unknown authority" else {"ca_file": ca_file}
        way = channel(server.port, scheme="https", **trusted)
        flight = RememberingFlight()
        with pytest.raises(GatewayDown) as caught:
            way.deliver([sms("accept")], flight, lambda: True)
        way.close()
        assert server.whole == []
    assert caught.value.lasting is (trouble != "no TLS")
    assert flight.committed == []
