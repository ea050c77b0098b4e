"""F22 to F24: TLS that cannot be trusted, refused log-ins and senders, servers that offer little."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from store.engine import reading, writing
from store.tables import contacts, lanes, suppressions
from tests.faults.bench import Bench, certified
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.stage import SETTINGS
from tests.seeding import seed_messages, states

MESSAGES = 20
CLEAR = "tls: none, timeout: 5s, final_timeout: 8s"
LOGIN = ', username: acme, password: "a-secret-word"'


def _nothing_said(bench: Bench, sink: object) -> None:
    assert states(bench.engine) == {"planned": MESSAGES}
    assert bench.accepted() == []
    with reading(bench.engine) as connection:
        (reason,) = connection.execute(select(lanes.c.reason)).scalars()
    assert reason


@pytest.mark.cell("F22")
@pytest.mark.parametrize("way", in_turn("F22", ["of another authority", "expired", "for another host"]))
def test_nothing_is_said_to_a_server_whose_certificate_is(way: str, bench: Bench, weigh: Callable[..., None]) -> None:
    context, authority = certified(way, bench.root)
    bench.settings = SETTINGS.replace(CLEAR, f"tls: implicit, ca_file: {authority}, timeout: 3s, final_timeout: 8s")
    seed_messages(bench.engine, MESSAGES)
    sink = bench.sink(tls=context)
    bench.use_port(bench.port, LOGIN)
    bench.run()
    _nothing_said(bench, sink)
    assert sink.mails == []
    assert "a-secret-word" not in sink.heard()


@pytest.mark.cell("F22")
@pytest.mark.parametrize(
    ("way", "plan", "offers"),
    in_turn(
        "F22",
        [
            ("stripped", "", False),
            ("refused", "starttls:=454 4.7.0 not now;*", True),
            ("hung", "starttls:=220 go;*", True),
            ("injected into", "starttls:=220 go\\n250 injected;*", True),
        ],
    ),
)
def test_nothing_is_said_in_clear_where_starttls_is(way: str, plan: str, offers: bool, bench: Bench) -> None:
    bench.settings = SETTINGS.replace(CLEAR, "tls: starttls, timeout: 3s, final_timeout: 8s")
    seed_messages(bench.engine, MESSAGES)
    sink = bench.sink(
        *([plan] if plan else []), extensions=(b"STARTTLS", b"PIPELINING") if offers else (b"PIPELINING",)
    )
    bench.use_port(bench.port, LOGIN)
    bench.run()
    _nothing_said(bench, sink)
    assert sink.mails == []
    assert "AUTH" not in sink.heard()


@pytest.mark.cell("F22", quick="sqlite")
def test_a_good_certificate_is_trusted(bench: Bench, weigh: Callable[..., None]) -> None:
    context, authority = certified("good", bench.root)
    bench.settings = SETTINGS.replace(CLEAR, f"tls: implicit, ca_file: {authority}, timeout: 5s, final_timeout: 8s")
    seed_messages(bench.engine, MESSAGES)
    bench.sink(tls=context)
    bench.drive()
    weigh(bench, Facts())
    assert states(bench.engine) == {"sent": MESSAGES}


@pytest.mark.cell("F23")
@pytest.mark.parametrize(
    ("stage", "reply"),
    in_turn(
        "F23",
        [
            ("auth", "535 5.7.8 wrong"),
            ("auth", "454 4.7.0 later"),
            ("mail", "452 4.3.1 out of room"),
            ("rcpt", "452 4.3.1 out of room"),
            ("mail", "452 4.4.5 daily quota"),
            ("rcpt", "550 5.7.26 not authenticated"),
            ("dot", "550 5.7.515 below the required level"),
            ("dot", "550 5.7.30 no DKIM"),
        ],
        both=[("auth", "535 5.7.8 wrong")],
    ),
)
def test_a_refusal_that_blames_us_pauses_the_gateway_and_no_person(
    stage: str, reply: str, bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    sink = bench.sink(f"{stage}:={reply};*:{0 if stage == 'auth' else 5}", auth=True)
    bench.use_port(bench.port, LOGIN)
    bench.run()
    found = states(bench.engine)
    assert set(found) <= {"sent", "planned"}
    assert found["planned"] >= MESSAGES - 8
    with reading(bench.engine) as connection:
        assert reply.split(" ", 1)[0] in connection.execute(select(lanes.c.reason)).scalar_one()
        assert connection.execute(select(suppressions)).all() == []
    sink.plan.clear()
    bench.drive()
    weigh(bench, Facts())
    assert states(bench.engine) == {"sent": MESSAGES}


OFFERS = [b"PIPELINING", b"SIZE 10485760", b"8BITMIME", b"SMTPUTF8", b"DSN", b"ENHANCEDSTATUSCODES"]


@pytest.mark.cell("F24")
@pytest.mark.parametrize(
    "without", in_turn("F24", ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "everything", "EHLO"])
)
def test_a_server_that_offers_less_gets_what_it_can_take(
    without: str, bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    with writing(bench.engine) as connection:
        connection.execute(update(contacts).where(contacts.c.id == 1).values(email="zoë@customer.example"))
    bare = without in ("everything", "EHLO")
    offers = [] if bare else [offer for offer in OFFERS if not offer.startswith(without.encode())]
    sink = bench.sink(*(["ehlo:=502 5.5.1 what;*"] if without == "EHLO" else []), extensions=offers, helo=True)
    bench.drive()
    weigh(bench, Facts())
    # RFC 6531 section 3.1: SMTPUTF8 asks for 8BITMIME beside it. Without either the one such address is refused.
    failed = 1 if bare or without in ("SMTPUTF8", "8BITMIME") else 0
    assert states(bench.engine) == {"sent": MESSAGES - failed} | ({"failed": 1} if failed else {})
    said = " ".join(sink.mails).upper()
    for word, offer in (("SIZE=", "SIZE"), ("BODY=8BITMIME", "8BITMIME"), (" SMTPUTF8", "SMTPUTF8"), ("RET=", "DSN")):
        if bare or without == offer:
            assert word not in said
