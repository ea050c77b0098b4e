"""Events of e-mail providers, from the door to the tables. On both databases."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, update

from kernel.gateways import SmtpGateway
from kernel.ids import message_id_header
from kernel.settings import Workspace
from store.engine import reading, writing
from store.inbox import BOUNCE_SOURCE, InboxState, gateway_source, put
from store.schema import installation
from store.tables import (
    consent_events,
    consents,
    inbox,
    message_events,
    messages,
    suppression_words,
    suppressions,
)
from templates.mail import ComposedMail
from tests.integration.returning import (
    SENT_AT,
    WORKSPACE_YAML,
    Site,
    TurnedClock,
    everything,
    make_workspace,
    rows,
    sent_messages,
    served,
    state_of,
)
from tests.integration.test_inbound import bounce_address, complaint
from tests.integration.test_inbound import report as returned_mail
from tests.servers.flights import RememberingFlight
from tests.servers.smtp_sink import Sink, SinkServer
from tests.unit.test_provider_events import SENDGRID
from workers.channels.port import Parcel
from workers.channels.smtp import SmtpChannel
from workers.inbound import sns
from workers.inbound.process import process_inbox

NOW = SENT_AT + timedelta(minutes=10)
WITH_WEBHOOKS = WORKSPACE_YAML.replace(
    "  relay: {type: smtp, host: 127.0.0.1, port: 2525, tls: none}\n",
    f"""\
  relay:
    {{type: smtp, host: 127.0.0.1, tls: none,
     webhook: {{type: sendgrid, token: sg-secret, key: "{SENDGRID.webhook.key}"}}}}
  postmark:
    {{type: smtp, host: 127.0.0.1, tls: none,
     webhook: {{type: postmark, token: pm-secret, username: u, password: p}}}}
  gun: {{type: smtp, host: 127.0.0.1, tls: none, webhook: {{type: mailgun, token: mg-secret, key: k}}}}
  plain: {{type: smtp, host: 127.0.0.1, tls: none}}
""",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace", text=WITH_WEBHOOKS)


@pytest.fixture
def site(engine: Engine, workspace: Workspace) -> Iterator[Site]:
    with served(engine, workspace, TurnedClock(NOW)) as site:
        yield site


def event(workspace: Workspace, message: int, word: str, minutes: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "event": word,
        "email": f"user{message}@customer.example",
        "timestamp": int((SENT_AT + timedelta(minutes=minutes)).timestamp()),
        "carillon": workspace.signer().address_token(message),
        **more,
    }


def keep(engine: Engine, events: list[dict[str, Any]], *, key: str = "k", signed: bool = True) -> None:
    made = SENDGRID.call(events)
    with writing(engine) as connection:
        put(
            connection,
            key=key,
            source=gateway_source("relay"),
            body=made.body if signed else made.body + b" ",
            meta={"kind": "events", "query": "", "headers": dict(made.headers)},
            received_at=NOW,
        )


def test_events_come_in_by_the_door_once_and_have_their_consequences(
    engine: Engine, workspace: Workspace, site: Site
) -> None:
    ids = sent_messages(engine, 6, state="in_doubt")
    made = SENDGRID.call(
        [
            event(workspace, ids[0], "delivered", response="250 ok"),
            event(workspace, ids[1], "bounce", status="5.1.1", reason="550 5.1.1 unknown", type="bounce"),
            event(workspace, ids[2], "spamreport"),
            event(workspace, ids[3], "group_unsubscribe"),
            event(workspace, ids[4], "open"),
        ]
    )
    for _ in range(2):
        answer = site.post("/v1/gateways/relay/events/sg-secret", data=made.body, headers=dict(made.headers))
        assert (answer.status_code, answer.content) == (200, b"")
    assert process_inbox(engine, workspace, now=NOW) == 1
    assert [state_of(engine, message) for message in ids] == [
        *("delivered", "bounced", "complained", "sent", "sent", "in_doubt"),
    ]
    assert rows(engine, suppressions, "address", "reason", "at") == [
        (f"user{ids[1]}@customer.example", "hard_bounce", SENT_AT + timedelta(minutes=5)),
        (f"user{ids[2]}@customer.example", "complaint", SENT_AT + timedelta(minutes=5)),
        (f"user{ids[3]}@customer.example", "unsubscribe", SENT_AT + timedelta(minutes=5)),
    ]
    withdrawn = {row[0] for row in rows(engine, consents, "contact_id", "channel", "status") if row[2] == "withdrawn"}
    assert withdrawn == {ids[2], ids[3]}
    assert rows(engine, inbox, "state", "note") == [
        ("done", "1 delivered, 1 hard, 1 complaint, 1 unsubscribed, 1 notice")
    ]


def test_what_is_not_the_providers_changes_nothing(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine)
    keep(engine, [event(workspace, message, "spamreport")], signed=False)
    process_inbox(engine, workspace, now=NOW)
    assert state_of(engine, message) == "sent"
    [(state, note)] = rows(engine, inbox, "state", "note")
    assert state == "rejected"
    assert "not SendGrid's" in note


def test_a_message_id_counts_only_with_the_person_it_went_to(engine: Engine, workspace: Workspace) -> None:
    ids = sent_messages(engine, 2)
    with reading(engine) as connection:
        name = installation(connection)
    names = [message_id_header(message, name, "acme.example") for message in ids]
    bare = [event(workspace, message, "delivered", **{"smtp-id": names[n]}) for n, message in enumerate(ids)]
    for one in bare:
        del one["carillon"]
    bare[1]["email"] = "mallory@evil.example"
    keep(engine, [*bare, {"event": "delivered"}])
    process_inbox(engine, workspace, now=NOW)
    assert [state_of(engine, message) for message in ids] == ["delivered", "sent"]
    [(state, note)] = rows(engine, inbox, "state", "note")
    assert (state, note) == (
        "unclassified",
        "3 delivered; 2 about no message of ours, 0 in words we do not know",
    )


def test_a_clock_that_is_ahead_dates_nothing_into_the_future(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine)
    keep(engine, [event(workspace, message, "bounce", 9_999_999, status="5.1.1", reason="550 5.1.1 x")])
    process_inbox(engine, workspace, now=NOW)
    assert rows(engine, suppressions, "at") == [(NOW,)]


def test_one_message_still_in_a_workers_hands_holds_up_no_other_of_its_call(
    engine: Engine, workspace: Workspace
) -> None:
    early, other = sent_messages(engine, 2)
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == early).values(state="planned"))
    keep(engine, [event(workspace, message, "delivered") for message in (early, other)])
    assert process_inbox(engine, workspace, now=NOW) == 0
    assert state_of(engine, other) == "delivered"
    assert rows(engine, inbox, "state") == [(InboxState.NEW.value,)]
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == early).values(state="sent"))
    assert process_inbox(engine, workspace, now=NOW) == 1
    assert state_of(engine, early) == "delivered"
    assert len(rows(engine, message_events, "id")) == 2


def test_a_call_of_many_events_is_written_in_parts_and_marked_once(
    engine: Engine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.inbound.process._EVENTS_AT_ONCE", 3)
    ids = sent_messages(engine, 8)
    keep(engine, [*(event(workspace, message, "delivered") for message in ids), {"event": "a new word"}])
    keep(engine, [], key="empty")
    assert process_inbox(engine, workspace, now=NOW) == 2
    assert {state_of(engine, message) for message in ids} == {"delivered"}
    assert rows(engine, inbox, "state", "note") == [
        ("done", "nothing about messages"),
        (
            "unclassified",
            "3 delivered; 2 delivered, 1 unclassified; 1 about no message of ours, 0 in words we do not know",
        ),
    ]


def test_events_twice_and_in_any_order_end_the_same(engine: Engine, workspace: Workspace) -> None:
    ids = sent_messages(engine, 4)
    calls = [
        [event(workspace, ids[0], "deferred", minute, response=f"450 try {minute}") for minute in (1, 2, 3)],
        [event(workspace, ids[0], "delivered", 4), event(workspace, ids[0], "click", 5)],
        [event(workspace, ids[1], "bounce", minute, status="5.1.1", reason=f"5.1.1 {minute}") for minute in (2, 1)],
        [event(workspace, ids[1], "delivered", 3)],
        [event(workspace, ids[2], "spamreport", 2), event(workspace, ids[2], "delivered", 1)],
        [event(workspace, ids[2], "unsubscribe", 3)],
        [event(workspace, ids[3], "bounce", 2, status="5.2.2", reason="full"), event(workspace, ids[3], "new word")],
    ]
    before, dice, ends = everything(engine), random.Random(4), []
    for _ in range(4):
        for number, one in enumerate(dice.sample(calls * 2, len(calls) * 2)):
            keep(engine, dice.sample(one, len(one)), key=str(number))
        process_inbox(engine, workspace, now=NOW)
        end = everything(engine)
        end.pop("inbox")
        ends.append(end)
        with writing(engine) as connection:
            for table in (message_events, suppressions, suppression_words, consent_events, inbox):
                connection.execute(delete(table))
            connection.execute(update(messages).values(state="sent", ended_at=SENT_AT))
            connection.execute(update(consents).values(status="granted", at=before["consents"][0][3], source=""))
        assert everything(engine) == before
    assert ends[0] == ends[1] == ends[2] == ends[3]
    assert {row[2] for row in ends[0]["suppressions"]} == {"complaint", "unsubscribe"}, "the bounce was disproved"


def test_what_two_doors_tell_of_one_message_is_counted_once_and_in_any_order(
    engine: Engine, workspace: Workspace
) -> None:
    ids = sent_messages(engine, 3)
    mails = [
        (returned_mail(), bounce_address(workspace, ids[0])),
        (returned_mail(status="5.2.2", words="full"), bounce_address(workspace, ids[1])),
        (complaint(), bounce_address(workspace, ids[2])),
    ]
    calls = [
        [event(workspace, ids[0], "bounce", 3, status="5.1.1", reason="550 5.1.1 gone")],
        [event(workspace, ids[1], "bounce", 3, status="5.2.2", reason="552 5.2.2 full")],
        [event(workspace, ids[2], "spamreport", 4), event(workspace, ids[2], "unsubscribe", 2)],
    ]
    before, dice, ends = everything(engine), random.Random(8), []
    for _ in range(4):
        arrivals = [*mails, *calls] * 2
        for number, one in enumerate(dice.sample(arrivals, len(arrivals))):
            if isinstance(one, tuple):
                with writing(engine) as connection:
                    put(
                        connection,
                        key=f"mail{number}",
                        source=BOUNCE_SOURCE,
                        body=one[0],
                        meta={"recipient": one[1]},
                        received_at=NOW,
                    )
            else:
                keep(engine, one, key=str(number))
        process_inbox(engine, workspace, now=NOW)
        end = everything(engine)
        end.pop("inbox")
        ends.append(end)
        with writing(engine) as connection:
            for table in (message_events, suppressions, suppression_words, consent_events, inbox):
                connection.execute(delete(table))
            connection.execute(update(messages).values(state="sent", ended_at=SENT_AT))
            connection.execute(update(consents).values(status="granted", at=before["consents"][0][3], source=""))
    assert ends[0] == ends[1] == ends[2] == ends[3]
    assert sorted(row[2] for row in ends[0]["message_events"]) == [
        *("bounced", "complained", "mailbox_full", "unsubscribed"),
    ]
    assert [row[3] for row in ends[0]["message_events"] if row[2] == "bounced"] == [SENT_AT + timedelta(minutes=3)]


@pytest.mark.parametrize(
    ("path", "login", "status"),
    [
        ("/v1/gateways/relay/events/wrong", None, 404),
        ("/v1/gateways/plain/events/sg-secret", None, 404),
        ("/v1/gateways/nobody/events/sg-secret", None, 404),
        ("/v1/gateways/relay/receipt/sg-secret", None, 404),
        ("/v1/gateways/text/events/gateway-secret", None, 404),
        ("/v1/gateways/postmark/events/pm-secret", None, 404),
        ("/v1/gateways/postmark/events/pm-secret", "u:wrong", 404),
        ("/v1/gateways/postmark/events/wrong", "u:p", 404),
        ("/v1/gateways/postmark/events/pm-secret", "u:p", 200),
    ],
)
def test_the_door_opens_to_who_knows_the_secrets(
    sqlite_engine: Engine, workspace: Workspace, path: str, login: str | None, status: int
) -> None:
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    with served(sqlite_engine, workspace, TurnedClock(NOW)) as site:
        assert site.post(path, data=b"{}", headers=headers).status_code == status
    found = rows(sqlite_engine, inbox, "meta")
    assert len(found) == (status == 200)
    assert "authorization" not in json.dumps([meta for (meta,) in found]).lower()


def test_a_large_batch_is_taken(sqlite_engine: Engine, workspace: Workspace) -> None:
    with served(sqlite_engine, workspace, TurnedClock(NOW)) as site:
        path = "/v1/gateways/relay/events/sg-secret"
        assert site.post(path, data=b"x" * 800_000).status_code == 200
        assert site.post(path, data=b"x" * 1_100_000).status_code == 413


@pytest.mark.parametrize("gateway", ["relay", "gun", "postmark", "plain"])
def test_our_reference_leaves_in_the_providers_own_header(workspace: Workspace, gateway: str) -> None:
    settings = workspace.settings.gateways[gateway]
    assert isinstance(settings, SmtpGateway)
    token = workspace.signer().address_token(42)
    mail = ComposedMail(
        envelope_from=f"bounce+{token}@acme.example",
        envelope_to="jo@customer.example",
        message_id_header="<m42.x@acme.example>",
        subject="s",
        data=b"Message-ID: <m42.x@acme.example>\r\nSubject: s\r\n\r\nHello\r\n",
        needs_smtputf8=False,
    )
    with SinkServer(Sink()) as server:
        channel = SmtpChannel(settings.model_copy(update={"port": server.port}))
        channel.deliver([Parcel(index=0, message_id=42, ref=token, content=mail)], RememberingFlight(), lambda: True)
        channel.close()
        [body] = server.sink.bodies
    added = body.removesuffix(mail.data).decode()
    expected = {
        "relay": r'X-SMTPAPI: \{"unique_args": \{"carillon": "TOKEN"\}\}\r\n',
        "gun": r'X-Mailgun-Variables: \{"carillon": "TOKEN"\}\r\n',
        "postmark": r"X-PM-Metadata-carillon: TOKEN\r\n",
        "plain": "",
    }
    assert re.fullmatch(expected[gateway].replace("TOKEN", token), added)


def test_a_certificate_that_cannot_be_had_rejects_the_call_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # Nothing listens there: the network is away.
    with pytest.raises(sns.CallbackError, match="does not answer"):
        sns.fetch_from_amazon("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-x.pem")
