"""The delivery core over a real SMTP server and both databases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update

from kernel.clock import from_ms, to_ms
from kernel.ids import boot_id, host_name
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import Channel, SuppressionReason
from store.changes import MERGED_EVERY
from store.engine import reading, writing
from store.feedback import suppress
from store.lanes import open_lane
from store.ledger import Claim, claim, mark_sending
from store.tables import changes, claims, consents, contacts, lanes, messages, suppressions
from tests.seeding import SPEC, seed_messages, states
from tests.servers.byte_rules import byte_problems
from tests.servers.smtp_sink import Sink, SinkServer
from workers import preparing
from workers.channels.smtp import SmtpChannel
from workers.drain import Drain
from workers.recorder import FlightRecorder, Slot
from workers.recovery import recorder_path, recover

SHORT = timedelta(seconds=20)
AN_HOUR_AGO_MS = to_ms(datetime.now(UTC) - timedelta(hours=1))
YAML = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, timeout: 5s, final_timeout: 5s}}
"""


@pytest.fixture
def server() -> Iterator[SinkServer]:
    with SinkServer(Sink()) as running:
        yield running


def make_workspace(tmp_path: Path, port: int) -> Workspace:
    root = tmp_path / "shop"
    root.mkdir(exist_ok=True)
    (root / "carillon.yaml").write_text(YAML.format(port=port), encoding="utf-8")
    return load_workspace(root, {"CARILLON_SECRET_KEY": "k" * 64})


@pytest.fixture
def drain(engine: Engine, server: SinkServer, tmp_path: Path) -> Iterator[Drain]:
    made = Drain(engine, make_workspace(tmp_path, server.port))
    yield made
    made.close()


def run(drain: Drain) -> int:
    return drain.run("relay", budget=SHORT, stopping=lambda: False)


def test_everything_due_is_sent_once_and_recorded(engine: Engine, drain: Drain, server: SinkServer) -> None:
    seed_messages(engine, 30)
    assert run(drain) == 30
    assert run(drain) == 0
    assert states(engine) == {"sent": 30}
    assert len({message_id for message_id, _, _ in server.sink.accepted}) == 30
    with reading(engine) as connection:
        row = connection.execute(select(messages).order_by(messages.c.id)).first()
        assert connection.execute(select(claims)).all() == []
    assert row is not None
    assert row.address == "user1@customer.example"
    assert "queued" in row.reply
    assert any(b"Hello Ann 1" in body for body in server.sink.bodies)


def test_every_byte_the_server_received_keeps_to_the_rules(engine: Engine, drain: Drain, server: SinkServer) -> None:
    seed_messages(engine, 4)
    with writing(engine) as connection:
        odd = {1: "Zoë 👋" * 30, 2: "مرحبا", 3: "=?utf-8?q?x?=", 4: ".\u200b'\"<b>"}
        for contact_id, name in odd.items():
            connection.execute(update(contacts).where(contacts.c.id == contact_id).values(first_name=name))
    run(drain)
    assert states(engine) == {"sent": 4}
    assert [byte_problems(body) for body in server.sink.bodies] == [[], [], [], []]
    # What the composer promises and SMTP relies on: no line needs a second full stop, and none was added.
    assert not any(b"\r\n." in body for body in server.sink.bodies)


SENDER = """
import sys
from datetime import timedelta
from pathlib import Path

import workers.main

workers.main.go_without_rich()

import workers.app
import workers.inbound.process
from kernel.settings import load_workspace
from store.engine import open_database
from workers.drain import Drain

workspace = load_workspace(Path(sys.argv[1]), {"CARILLON_SECRET_KEY": "k" * 64})
drain = Drain(open_database(sys.argv[2]), workspace)
drain.run("relay", budget=timedelta(seconds=20), stopping=lambda: False)
drain.close()
print(*sys.modules)
"""
UNNEEDED = {
    *("numpy", "scipy", "sklearn", "pandas", "polars", "pyarrow", "duckdb", "matplotlib"),
    *("cryptography.hazmat", "phonenumbers", "mrml", "css_inline", "rich.console", "pygments"),
    *("alembic", "requests", "typer", "starlette", "uvicorn", "httptools", "aiosmtpd"),
    *("segments", "reports", "web", "cli", "workers.http"),
}
"""What a process that sends e-mail nobody signs would carry about for nothing: tens of megabytes, in each of them."""


def test_a_sending_process_loads_nothing_heavy_that_it_has_no_use_for(
    engine: Engine, database_url: str, server: SinkServer, tmp_path: Path
) -> None:
    seed_messages(engine, 3)
    with writing(engine) as connection:
        # The next note has a number at which an import merges what there is; a sender does not.
        connection.execute(changes.insert().values(id=MERGED_EVERY - 1, subject="contact", subject_ids=b""))
        if engine.dialect.name == "postgresql":
            connection.execute(
                text("SELECT setval(pg_get_serial_sequence('changes', 'id'), :last)"), {"last": MERGED_EVERY - 1}
            )
    root = make_workspace(tmp_path, server.port).root
    sender = subprocess.run(
        [sys.executable, "-c", SENDER, str(root), database_url],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
        check=True,
    )
    assert states(engine) == {"sent": 3}
    assert UNNEEDED & set(sender.stdout.split()) == set()


def test_a_chunk_may_hold_messages_of_any_number_of_campaigns(sqlite_engine: Engine, tmp_path: Path) -> None:
    with SinkServer(Sink()) as server:
        drain = Drain(sqlite_engine, make_workspace(tmp_path, server.port))
        for number in range(70):
            seed_messages(sqlite_engine, 1, name=f"campaign-{number}")
        assert run(drain) == 70
        drain.close()
    assert states(sqlite_engine) == {"sent": 70}


def test_who_may_not_be_sent_to_is_skipped_with_a_reason(engine: Engine, drain: Drain, server: SinkServer) -> None:
    seed_messages(engine, 5)
    with writing(engine) as connection:
        connection.execute(update(consents).where(consents.c.contact_id == 1).values(status="withdrawn"))
        suppress(
            connection,
            channel=Channel.EMAIL,
            address="user2@customer.example",
            reason=SuppressionReason.COMPLAINT,
            at=datetime.now(UTC),
        )
        connection.execute(update(contacts).where(contacts.c.id == 3).values(email=None))
    run(drain)
    with reading(engine) as connection:
        got = {row.contact_id: (row.state, row.reason) for row in connection.execute(select(messages))}
    assert got == {
        1: ("skipped", "no_consent"),
        2: ("skipped", "suppressed"),
        3: ("skipped", "no_address"),
        4: ("sent", None),
        5: ("sent", None),
    }
    assert len(server.sink.accepted) == 2


def test_a_template_that_fails_for_one_contact_harms_only_that_message(engine: Engine, drain: Drain) -> None:
    seed_messages(engine, 3)
    with writing(engine) as connection:
        connection.execute(update(contacts).where(contacts.c.id == 2).values(first_name="x\r\nBcc: everyone@x.example"))
    run(drain)
    with reading(engine) as connection:
        got = {row.contact_id: (row.state, row.reason) for row in connection.execute(select(messages))}
    assert got == {1: ("sent", None), 2: ("failed", "template_error"), 3: ("sent", None)}


def test_a_dead_address_is_refused_and_suppressed(engine: Engine, drain: Drain) -> None:
    seed_messages(engine, 1, address="rcpt550+{n}@customer.example")
    run(drain)
    assert states(engine) == {"failed": 1}
    with reading(engine) as connection:
        row = connection.execute(select(suppressions)).one()
    assert (row.address, row.reason) == ("rcpt550+1@customer.example", "hard_bounce")


def test_refusals_that_may_pass_are_counted_and_those_of_the_content_are_not(engine: Engine, drain: Drain) -> None:
    faults = ("rcptfull", "rcptroute", "body550")
    for number in range(3):
        for fault in faults:
            # A full mailbox is tried again; here the first try is the last.
            spec = {**SPEC, "limits": {"max_attempts": 1}}
            seed_messages(engine, 1, address=f"{fault}+x@customer.example", spec=spec, name=f"{fault}-{number}")
    run(drain)
    assert states(engine) == {"failed": 9}
    with reading(engine) as connection:
        found = connection.execute(select(suppressions.c.address, suppressions.c.reason)).all()
    assert sorted(found) == [
        ("rcptfull+x@customer.example", "mailbox_full"),
        ("rcptroute+x@customer.example", "soft_bounce"),
    ]


def test_a_greylisted_message_waits_and_is_tried_again(engine: Engine, drain: Drain, server: SinkServer) -> None:
    seed_messages(engine, 1, address="once450+{n}@customer.example")
    run(drain)
    with reading(engine) as connection:
        row = connection.execute(select(messages)).one()
    assert (row.state, row.attempts) == ("planned", 1)
    assert timedelta(minutes=4, seconds=50) < row.due_at - datetime.now(UTC) < timedelta(minutes=10)
    with writing(engine) as connection:
        connection.execute(update(messages).values(due_at=datetime.now(UTC) - timedelta(seconds=1)))
    run(drain)
    assert states(engine) == {"sent": 1}
    assert len({sender for _, sender, _ in server.sink.accepted}) == 1


def test_a_message_deferred_too_often_fails_with_its_last_reply(engine: Engine, drain: Drain) -> None:
    seed_messages(engine, 1, address="rcpt450+{n}@customer.example", spec={**SPEC, "limits": {"max_attempts": 3}})
    for _ in range(3):
        with writing(engine) as connection:
            connection.execute(
                update(messages)
                .where(messages.c.state == "planned")
                .values(due_at=datetime.now(UTC) - timedelta(seconds=1))
            )
        run(drain)
    with reading(engine) as connection:
        row = connection.execute(select(messages)).one()
    assert (row.state, row.reason) == ("failed", "retries_exhausted")
    assert "450" in row.reply


def test_retries_and_waits_do_not_make_a_message_younger(engine: Engine, drain: Drain, server: SinkServer) -> None:
    seed_messages(engine, 2, spec={**SPEC, "limits": {"max_age": "1h", "first_retry": "10min"}})
    first_due = datetime.now(UTC) - timedelta(hours=1, seconds=1)
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == 1).values(planned_for=first_due, attempts=1))
    run(drain)
    with reading(engine) as connection:
        got = [(row.state, row.reason) for row in connection.execute(select(messages).order_by(messages.c.id))]
    assert got == [("skipped", "too_late"), ("sent", None)]
    assert len(server.sink.accepted) == 1


def test_a_lost_answer_is_in_doubt_and_never_sent_again(engine: Engine, drain: Drain, server: SinkServer) -> None:
    seed_messages(engine, 1, address="dotdrop+{n}@customer.example")
    run(drain)
    run(drain)
    assert states(engine) == {"in_doubt": 1}
    assert len(server.sink.accepted) == 1


def test_a_gateway_that_is_down_costs_no_message_and_closes_its_lane(engine: Engine, tmp_path: Path) -> None:
    with SinkServer(Sink(banner=b"554 5.3.2 go away\r\n")) as server:
        drain = Drain(engine, make_workspace(tmp_path, server.port))
        seed_messages(engine, 3)
        assert run(drain) == 0
        drain.close()
    with reading(engine) as connection:
        lane = connection.execute(select(lanes)).one()
        assert {row.attempts for row in connection.execute(select(messages))} == {0}
    assert states(engine) == {"planned": 3}
    assert lane.failures == 1
    assert "554" in lane.reason


def test_a_lane_opens_again_after_a_success(engine: Engine, drain: Drain) -> None:
    seed_messages(engine, 2)
    with writing(engine) as connection:
        connection.execute(lanes.insert().values(name="relay", failures=2, reason="was down"))
    run(drain)
    with writing(engine) as connection:
        assert not open_lane(connection, "relay")
    assert states(engine) == {"sent": 2}


def test_asked_to_stop_it_finishes_the_messages_in_hand_and_gives_the_rest_back(
    engine: Engine, drain: Drain, server: SinkServer
) -> None:
    server.sink.ponders_s = 0.1
    seed_messages(engine, 60)
    drain.run("relay", budget=SHORT, stopping=lambda: bool(server.sink.accepted))
    got = states(engine)
    assert got.keys() == {"sent", "planned"}
    assert got["sent"] == len(server.sink.accepted) < 60
    with reading(engine) as connection:
        assert connection.execute(select(claims)).all() == []


def abandon(
    engine: Engine, drain_folder: Path, lease: timedelta, *, boot: str | None = None
) -> tuple[Claim, FlightRecorder]:
    """Do what a worker does up to the middle of a chunk, then walk away."""
    with writing(engine) as connection:
        mine = claim(
            connection,
            lane="relay",
            limit=4,
            lease=lease,
            host=host_name(),
            boot=boot or boot_id(),
            recorder=str(drain_folder),
        )
        assert mine is not None
    recorder = FlightRecorder.create(recorder_path(str(drain_folder), mine.id), mine.id, [m.id for m in mine.messages])
    with writing(engine) as connection:
        # A lease of nothing would forbid this; the worker had it when it began.
        from sqlalchemy import update as change

        connection.execute(change(claims).values(lease_until=datetime.now(UTC) + timedelta(hours=1)))
        assert mark_sending(connection, mine.id)
        connection.execute(change(claims).values(lease_until=datetime.now(UTC) + lease))
    recorder.commit(0, AN_HOUR_AGO_MS)
    recorder.record(0, Slot.ACCEPTED, 250, "250 2.0.0 queued", at_ms=AN_HOUR_AGO_MS)
    recorder.commit(1, AN_HOUR_AGO_MS)
    recorder.record(2, Slot.REFUSED, 550, "RCPT: 550 5.1.1 no such user", at_ms=AN_HOUR_AGO_MS)
    return mine, recorder


def test_a_dead_workers_chunk_is_settled_by_what_its_recorder_says(engine: Engine, tmp_path: Path) -> None:
    seed_messages(engine, 4)
    mine, recorder = abandon(engine, tmp_path, timedelta(hours=1))
    recorder.close(remove=False)  # The lock goes as it does when a process dies.
    assert recover(engine, make_workspace(tmp_path, 1).settings, tariffs={}) == 1
    with reading(engine) as connection:
        got = [row.state for row in connection.execute(select(messages).order_by(messages.c.id))]
        sent = connection.execute(select(messages).where(messages.c.state == "sent")).one()
        dead = connection.execute(select(suppressions.c.address, suppressions.c.reason)).all()
    assert got == ["sent", "in_doubt", "failed", "planned"]
    assert (sent.address, sent.reply, sent.gateway_id) == ("user1@customer.example", "250 2.0.0 queued", None)
    assert sent.sent_at == from_ms(AN_HOUR_AGO_MS)
    assert dead == [("user3@customer.example", "hard_bounce")]
    assert not recorder_path(str(tmp_path), mine.id).exists()


@pytest.mark.parametrize("died", ["once the gateway had put it off", "while it made the message"])
def test_a_message_whose_worker_dies_each_time_is_given_up_in_the_end(
    died: str, engine: Engine, tmp_path: Path
) -> None:
    seed_messages(engine, 4, spec={**SPEC, "limits": {"max_attempts": 3}})
    settings = make_workspace(tmp_path, 1).settings
    making = "made" in died
    for tries in (1, 2, 3):
        with writing(engine) as connection:
            mine = claim(
                connection, lane="relay", limit=4, lease=SHORT, host=host_name(), boot=boot_id(), recorder=str(tmp_path)
            )
            assert mine is not None
            assert making or mark_sending(connection, mine.id)
        ids = [message.id for message in mine.messages]
        assert len(ids) == 4
        recorder = FlightRecorder.create(recorder_path(str(tmp_path), mine.id), mine.id, ids)
        if making:
            recorder.hold(2)
        else:
            recorder.record(2, Slot.DEFERRED, 450, "RCPT: 450 4.2.1 try later", at_ms=AN_HOUR_AGO_MS)
        recorder.close(remove=False)  # The lock goes as it does when a process dies.
        assert recover(engine, settings, tariffs={}) == 1
        with writing(engine) as connection:
            first, second, third, fourth = connection.execute(select(messages).order_by(messages.c.id)).all()
            for other in (first, second, fourth):
                assert (other.state, other.attempts) == ("planned", 0)
                assert other.due_at < datetime.now(UTC)
            assert ("the worker died" if making else "450 4.2.1") in third.reply
            if tries < 3:
                # It does not stand in the way of the others meanwhile.
                assert (third.state, third.attempts) == ("planned", tries)
                waits = third.due_at - datetime.now(UTC)
                if making and tries == 1:
                    assert timedelta(0) < waits <= timedelta(seconds=5), "it may have been in hand by chance"
                else:
                    assert waits > timedelta(minutes=4)
                connection.execute(update(messages).values(due_at=from_ms(AN_HOUR_AGO_MS)))
            else:
                assert (third.state, third.reason) == ("failed", "retries_exhausted")


def test_a_living_workers_chunk_is_left_alone_until_its_lease_runs_out(engine: Engine, tmp_path: Path) -> None:
    seed_messages(engine, 4)
    _, recorder = abandon(engine, tmp_path, timedelta(hours=1))
    assert recover(engine, make_workspace(tmp_path, 1).settings, tariffs={}) == 0
    assert states(engine) == {"claimed": 4}
    with writing(engine) as connection:
        connection.execute(update(claims).values(lease_until=datetime.now(UTC) - timedelta(seconds=1)))
    assert recover(engine, make_workspace(tmp_path, 1).settings, tariffs={}) == 1
    assert states(engine) == {"sent": 1, "in_doubt": 1, "failed": 1, "planned": 1}
    recorder.close(remove=True)


def test_after_a_restart_of_the_machine_the_recorder_is_not_believed(engine: Engine, tmp_path: Path) -> None:
    seed_messages(engine, 4)
    _, recorder = abandon(engine, tmp_path, timedelta(seconds=-1), boot="before")
    recorder.close(remove=False)
    assert recover(engine, make_workspace(tmp_path, 1).settings, tariffs={}) == 1
    assert states(engine) == {"in_doubt": 4}


def test_large_messages_are_made_a_few_at_a_time(
    drain: Drain, engine: Engine, server: SinkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk is claimed by number, but memory holds octets: what it has no room for goes back and leaves next."""
    seed_messages(engine, 40)
    monkeypatch.setattr(preparing, "MOST_OCTETS", 10_000)
    sizes = []
    deliver = SmtpChannel.deliver

    def watched(channel: SmtpChannel, parcels: Any, *others: Any) -> frozenset[int]:
        sizes.append(sum(len(parcel.content.data) for parcel in parcels))
        return deliver(channel, parcels, *others)

    monkeypatch.setattr(SmtpChannel, "deliver", watched)
    assert drain.run("relay", budget=SHORT, stopping=lambda: False) == 40
    assert states(engine) == {"sent": 40}
    assert len(server.sink.bodies) == 40
    assert len(sizes) > 3
    assert max(sizes) < 10_000 + 5_000, "one message more than there is room for, at most"
