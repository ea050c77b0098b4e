"""F31: poison templates and poison data harm their own message or campaign, with a reason; all others leave on time."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from store.engine import reading, writing
from store.tables import campaign_versions, campaigns, contacts, messages, runs
from tests.faults.bench import Bench
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.stage import SETTINGS, Stage
from tests.seeding import FILES, seed_messages, states
from tests.servers.byte_rules import byte_problems

pytestmark = pytest.mark.cell("F31")

MESSAGES = 20
TEMPLATES = {
    "an undefined name": "Dear {{ contact.shoe_size.left }}",
    "an endless loop": "{% for a in range(900) %}" * 3 + "x" + "{% endfor %}" * 3,
    "a gigantic text": "{{ 'x' * 1000000000 }}",
    "a filter that is none": "{{ contact.first_name|shout }}",
    "an unclosed block": "{% if contact.first_name %}",
    "a division by zero": "{{ 1 // 0 }}",
    "an attack": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
}
NAMES = {
    "line ends": "Ann\r\nBcc: everybody@customer.example\r\n\r\nhello",
    "a NUL": "Ann\0Bell",
    "a line separator": "Ann\u2028Bell\u2029",
    "template code": "{{ 7 * 7 }}{% for x in y %}",
    "a lone dot": "\r\n.\r\nMAIL FROM:<x@y>\r\n",
    "a quarter of a megabyte": "A" * 250_000,
    "right to left": "\u202eبحر\u202c",
    "emoji": "👩‍👩‍👧‍👦" * 500,
}


@pytest.mark.parametrize("poison", in_turn("F31", TEMPLATES, both=["an endless loop"]))
def test_a_poison_template_stops_its_own_campaign_alone(poison: str, bench: Bench, note: Callable[..., None]) -> None:
    sick = seed_messages(bench.engine, MESSAGES, name="sick", address="sick{n}@customer.example")
    seed_messages(bench.engine, MESSAGES, name="well", address="well{n}@customer.example")
    with writing(bench.engine) as connection:
        mine = select(runs.c.version_id).where(runs.c.id == sick)
        files = {**FILES, "hello/body.txt": TEMPLATES[poison]}
        connection.execute(update(campaign_versions).where(campaign_versions.c.id.in_(mine)).values(files=files))
    bench.sink()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    bench.run()
    took_s = time.monotonic() - began
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    note(messages=2 * MESSAGES, accepted=len(bench.accepted()), took_s=round(took_s, 1), grown_mb=grown_mb)
    assert {taken.recipient.partition("@")[0][:4] for taken in bench.accepted()} == {"well"}
    assert len(bench.accepted()) == MESSAGES
    assert took_s < 30
    assert grown_mb < 200
    with reading(bench.engine) as connection:
        rows = connection.execute(
            select(messages.c.state, messages.c.reason, messages.c.reply).where(messages.c.run_id == sick)
        ).all()
        assert connection.execute(select(campaigns.c.state)).scalars().all() == ["active", "active"]
    # Either it is each message's own trouble, with its reason, or the step cannot be made at all and waits.
    assert {row.state for row in rows} in ({"failed"}, {"planned"})
    assert all(row.reason == "template_error" and row.reply for row in rows if row.state == "failed")


@pytest.mark.parametrize("poison", in_turn("F31", NAMES, both=["line ends"]))
def test_a_poison_name_harms_its_own_message_alone(poison: str, bench: Bench, weigh: Callable[..., None]) -> None:
    seed_messages(bench.engine, MESSAGES)
    name = NAMES[poison]
    if "\0" in name and bench.engine.dialect.name == "postgresql":
        name = name.replace("\0", "\x01")  # PostgreSQL keeps no NUL: an import refuses it earlier.
    with writing(bench.engine) as connection:
        connection.execute(update(contacts).where(contacts.c.id == 7).values(first_name=name))
    sink = bench.sink(keep_bodies=True)
    bench.drive()
    weigh(bench, Facts())
    found = states(bench.engine)
    assert found.get("sent", 0) >= MESSAGES - 1
    assert found.get("sent", 0) + found.get("failed", 0) == MESSAGES
    assert {taken.recipient for taken in bench.accepted()} <= {f"user{n}@customer.example" for n in range(1, 21)}
    assert [problems for body in sink.bodies if (problems := byte_problems(body))] == []


@pytest.mark.cell("F31", quick="postgresql")
def test_a_message_over_which_its_worker_dies_each_time_is_given_up(stage: Stage, quiet: Callable[..., None]) -> None:
    tries = 3
    stage.settings = SETTINGS.replace("first_retry: 1s", f"first_retry: 1s, longest_retry: 1s, max_attempts: {tries}")
    stage.start_sink()
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(FAULTS_POISON="user7@customer.example")
    stage.start_scheduler()
    # Whoever dies while a message is being made has none in the air: nobody is in doubt.
    quiet(Facts(crashes=tries, connections=0))
    with reading(stage.engine) as connection:
        failed = connection.execute(select(messages).where(messages.c.state == "failed")).one()
        assert set(connection.execute(select(messages.c.attempts).where(messages.c.state == "sent")).scalars()) == {0}
    assert (failed.contact_id, failed.reason, failed.attempts) == (7, "retries_exhausted", tries - 1)
    assert len(stage.accepted()) == MESSAGES - 1
