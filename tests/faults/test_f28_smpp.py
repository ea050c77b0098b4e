"""F27 and F28: an SMSC that throttles, hangs up, unbinds, falls silent; receipts early, twice, in any order.

The SMSC writes what it takes over to disk before it answers, by the number it went to: each person gets one message.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from store.engine import reading, writing
from store.inbox import gateway_source, put
from store.tables import campaign_versions, contacts, inbox, message_events, messages
from tests.faults.bench import Bench
from tests.faults.checker import Facts, Judgement
from tests.faults.matrix import in_turn
from tests.faults.people import seed_sms
from tests.integration.returning import rows
from tests.seeding import states
from tests.servers.smsc import Said, Smsc, Submit
from tests.servers.truth import Taken
from workers.inbound.process import process_inbox

SETTINGS = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  texts: {{type: smpp, host: 127.0.0.1, port: {port}, tls: none, system_id: u, password: secret, window: 8,
           timeout: 2s, enquire_link: 1s{more}}}
limits: {{first_retry: 1s}}
"""
WINDOW = 8
MESSAGES = 60
LONG = "Hello {{ contact.first_name }} " + "a" * 400


class TruthfulSmsc:
    """Faces a bench's lane; `misbehave` says for a submit_sm what to answer instead, and whether to keep it first."""

    def __init__(self, bench: Bench, misbehave: Callable[[int, Submit], tuple[bool, Said] | None]) -> None:
        self._bench = bench
        self._misbehave = misbehave
        self._parts: dict[str, set[int]] = {}
        self._seen = 0
        self._names: dict[str, str] = {}
        self.smsc = Smsc(self.answer, hex_ids=True, first_id=0x1A0)

    def know_people(self) -> None:
        """Learn whose number is whose message."""
        signer = self._bench.workspace.signer()
        query = select(contacts.c.phone, messages.c.id).join(messages, messages.c.contact_id == contacts.c.id)
        with reading(self._bench.engine) as connection:
            self._names = {phone: signer.address_token(message) for phone, message in connection.execute(query)}

    def answer(self, submit: Submit) -> Said:
        self._seen += 1
        kept, said = self._misbehave(self._seen, submit) or (True, 0)
        if kept:
            self._keep(submit)
        return said

    def _keep(self, submit: Submit) -> None:
        number = f"+{submit.destination[2]}"
        total = submit.header[4] if submit.header else 1
        parts = self._parts.setdefault(number, set())
        assert submit.part not in parts, f"part {submit.part} for {number} taken over twice"
        parts.add(submit.part)
        if len(parts) == total:
            digest = hashlib.sha256(number.encode()).hexdigest()
            self._bench.log.write(Taken(self._names[number], "", number, digest, time.time(), kept=True))


@pytest.fixture
def smpp_bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "shop", database_url, settings=SETTINGS)
    yield made
    made.close()


def run_against(bench: Bench, misbehave: Callable[[int, Submit], tuple[bool, Said] | None], text: str = "") -> Smsc:
    """Send everything planned to an SMSC that misbehaves now and then."""
    seed_sms(bench.engine, MESSAGES)
    if text:
        with writing(bench.engine) as connection:
            connection.execute(update(campaign_versions).values(files={"note.txt": text}))
    truthful = TruthfulSmsc(bench, misbehave)
    with truthful.smsc as smsc:
        bench.use_port(smsc.port)
        truthful.know_people()
        bench.drive(lanes_used=("texts",))
        return smsc


@pytest.mark.cell("F28")
@pytest.mark.parametrize("status", in_turn("F28", [0x58, 0x14]))
@pytest.mark.parametrize("text", ["", LONG], ids=["short", "long"])
def test_an_smsc_that_throttles_gets_everything_once(
    status: int, text: str, smpp_bench: Bench, weigh: Callable[..., Judgement]
) -> None:
    run_against(smpp_bench, lambda number, _: (False, status) if number % 7 == 0 else None, text)
    weigh(smpp_bench, Facts())
    assert states(smpp_bench.engine) == {"sent": MESSAGES}
    assert {attempts for (attempts,) in rows(smpp_bench.engine, messages, "attempts")} == {0}


@pytest.mark.cell("F28")
@pytest.mark.parametrize("said", in_turn("F28", ["drop", "unbind"]))
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_a_session_lost_with_an_open_window_leaves_a_window_in_doubt(
    kept: bool, said: str, smpp_bench: Bench, weigh: Callable[..., Judgement]
) -> None:
    losses = 3
    smsc = run_against(
        smpp_bench, lambda number, _: (kept, said) if number % 15 == 0 and number <= 15 * losses else None
    )
    judgement = weigh(smpp_bench, Facts(doubtful=losses * WINDOW))
    assert judgement.in_doubt >= 1
    assert len(smsc.binds) == losses + 1


@pytest.mark.cell("F28")
@pytest.mark.parametrize("deaf", in_turn("F28", [False, True]), ids=["answers enquire_link", "deaf"])
def test_an_smsc_that_falls_silent_leaves_in_doubt_what_it_left_unanswered(
    deaf: bool, smpp_bench: Bench, weigh: Callable[..., Judgement]
) -> None:
    silent = {10, 25, 40}

    def misbehave(number: int, _: Submit) -> tuple[bool, Said] | None:
        return (True, "silent") if number in silent else None

    seed_sms(smpp_bench.engine, MESSAGES)
    truthful = TruthfulSmsc(smpp_bench, misbehave)
    truthful.smsc.deaf = deaf
    with truthful.smsc as smsc:
        smpp_bench.use_port(smsc.port)
        truthful.know_people()
        smpp_bench.drive(lanes_used=("texts",))
    assert weigh(smpp_bench, Facts(doubtful=len(silent))).in_doubt == len(silent)


def receipt(told: str, state: str = "DELIVRD") -> bytes:
    return f"id:{told} sub:001 dlvrd:001 submit date:2611261530 done date:2611261531 stat:{state} err:000".encode()


@pytest.mark.cell("F28")
@pytest.mark.parametrize(
    "spelling", in_turn("F28", [str, lambda number: f"{number:x}", lambda number: f"{number:010X}"])
)
def test_receipts_find_their_messages_in_hex_and_in_decimal(
    spelling: Callable[[int], str], smpp_bench: Bench, weigh: Callable[..., Judgement]
) -> None:
    seed_sms(smpp_bench.engine, MESSAGES)
    truthful = TruthfulSmsc(smpp_bench, lambda *_: None)
    with truthful.smsc as smsc:
        smpp_bench.use_port(smsc.port)
        truthful.know_people()
        smpp_bench.drive(lanes_used=("texts",))
        for number, submit in enumerate(smsc.submits):
            told = spelling(0x1A0 + number)
            assert smsc.deliver(submit.destination[2], receipt(told), esm_class=4) == 0
    process_inbox(smpp_bench.engine, smpp_bench.workspace, now=datetime.now(UTC))
    weigh(smpp_bench, Facts())
    assert states(smpp_bench.engine) == {"delivered": MESSAGES}


@pytest.mark.cell("F27", quick=True)
def test_receipts_before_the_answer_twice_backwards_and_for_nobody(
    smpp_bench: Bench, weigh: Callable[..., Judgement]
) -> None:
    seed_sms(smpp_bench.engine, MESSAGES)
    truthful = TruthfulSmsc(smpp_bench, lambda *_: None)
    truthful.smsc.receipt_first = receipt
    truthful.smsc.delay_s = 0.05
    now = datetime.now(UTC)
    with truthful.smsc as smsc:
        smpp_bench.use_port(smsc.port)
        truthful.know_people()
        smpp_bench.drain()
        # Receipts are in the inbox while their messages are still being sent: reading must wait for the ledger.
        smpp_bench.run("texts")
        smsc.wait(lambda smsc: smsc.delivered == MESSAGES)
        ids = [f"{0x1A0 + number:08X}" for number in range(MESSAGES)]
        for number in reversed(range(MESSAGES)):
            destination = smsc.submits[number].destination[2]
            assert smsc.deliver(destination, receipt(ids[number]), esm_class=4) == 0
            assert smsc.deliver(destination, receipt(ids[number], "ENROUTE"), esm_class=4) == 0
        assert smsc.deliver("447900099999", receipt("99999999"), esm_class=4) == 0
    process_inbox(smpp_bench.engine, smpp_bench.workspace, now=now + timedelta(hours=1))
    weigh(smpp_bench, Facts())
    assert states(smpp_bench.engine) == {"delivered": MESSAGES}
    read = [state for (state,) in rows(smpp_bench.engine, inbox, "state")]
    assert (read.count("done"), read.count("unclassified")) == (2 * MESSAGES, 1)


@pytest.mark.cell("F27", quick=True)
def test_callbacks_over_http_before_the_answer_twice_and_forged(
    sms_bench: Bench, weigh: Callable[..., Judgement]
) -> None:
    seed_sms(sms_bench.engine, MESSAGES)
    sms_bench.provider()
    signer, now = sms_bench.workspace.signer(), datetime.now(UTC)
    with reading(sms_bench.engine) as connection:
        ids = list(connection.execute(select(messages.c.id).order_by(messages.c.id)).scalars())
    refs = [signer.address_token(message) for message in ids]

    def call_back(status: str, ref: str, key: str) -> None:
        with writing(sms_bench.engine) as connection:
            meta = {"kind": "receipt", "query": f"client_ref={ref}&status={status}&id=x", "headers": {}}
            source = gateway_source("texts")
            put(connection, key=key, source=source, body=b"", meta=meta, received_at=now)

    for ref in refs:
        call_back("delivered", ref, f"early {ref}")
    assert process_inbox(sms_bench.engine, sms_bench.workspace, now=now) == 0
    sms_bench.drive(lanes_used=("texts",))
    for ref in reversed(refs):
        call_back("queued", ref, f"late {ref}")
        call_back("delivered", ref, f"again {ref}")
        call_back("delivered", ref, f"again {ref}")
    call_back("delivered", "forged", "forged")
    process_inbox(sms_bench.engine, sms_bench.workspace, now=now + timedelta(minutes=1))
    weigh(sms_bench, Facts())
    assert states(sms_bench.engine) == {"delivered": MESSAGES}
    events = rows(sms_bench.engine, message_events, "message_id", "kind")
    assert sorted(events) == sorted((message, "delivered") for message in ids)
