"""Doubts ended by asking the provider, from a lost answer to the ledger. On both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from kernel.settings import Workspace, load_workspace
from store.engine import reading, writing
from store.tables import contacts, message_events, messages
from tests import seeding
from tests.servers import sms_providers
from tests.servers.sms_adapters import aliyun_gateway, tencent_gateway, twilio_gateway
from tests.servers.sms_providers import ACCOUNT, SECRET, Aliyun, ProviderServer, Reply, Seen, TwilioAccount
from workers.asking import Asker
from workers.drain import Drain
from workers.reconcilers.port import Absent, Found, Question, Unclear
from workers.reconcilers.registry import open_reconciler

HEAD = """\
brand: {name: Acme, postal_address: "1 Dock Road, Leeds"}
senders:
  default: {name: Acme, email: hello@acme.example}
gateways:
"""
GATEWAYS = {
    "twilio": (
        '  text: {{type: twilio, account_sid: {account}, auth_token: {secret}, sender: "+15005550006", url: "{url}"}}\n'
    ),
    "aliyun": (
        "  text: {{type: aliyun, access_key_id: id, access_key_secret: {secret}, sign_name: a,\n"
        '    template: SMS_1, url: "{url}/"}}\n'
    ),
    "vonage": '  text: {{type: vonage, api_key: key, api_secret: {secret}, sender: ACME, url: "{url}/sms/json"}}\n',
}
SPEC = {**seeding.SPEC, "steps": [{"sms": "word", "gateway": "text"}]}


def workspace(folder: Path, kind: str, url: str) -> Workspace:
    text = HEAD + GATEWAYS[kind].format(account=ACCOUNT, secret=SECRET, url=url)
    (folder / "carillon.yaml").write_text(text, encoding="utf-8")
    return load_workspace(folder, {"CARILLON_SECRET_KEY": "k" * 64})


def plan(engine: Engine, words: list[str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seeding.FILES, "word.txt", text)
    seeding.seed_messages(engine, len(words), lane="text", channel="sms", spec=SPEC)
    with writing(engine) as connection:
        for number, word in enumerate(words, start=1):
            connection.execute(update(contacts).where(contacts.c.id == number).values(first_name=word))


def send(engine: Engine, shop: Workspace) -> None:
    drain = Drain(engine, shop)
    drain.run("text", budget=timedelta(seconds=20), stopping=lambda: False)
    drain.close()


def told(engine: Engine) -> dict[str, tuple[str, str | None]]:
    with reading(engine) as connection:
        rows = connection.execute(
            select(contacts.c.first_name, messages.c.state, messages.c.gateway_id).join(
                contacts, contacts.c.id == messages.c.contact_id
            )
        )
        return {row[0]: (row[1], row[2]) for row in rows}


def after(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


def test_twilio_is_asked_and_only_what_it_never_got_is_sent_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = TwilioAccount()
    with ProviderServer(account) as server:
        shop = workspace(tmp_path, "twilio", server.url)
        plan(engine, ["accept", "drop after", "drop"], "{{ contact.first_name }}", monkeypatch)
        send(engine, shop)
        assert {word: state for word, (state, _) in told(engine).items()} == {
            "accept": "sent",
            "drop after": "in_doubt",
            "drop": "in_doubt",
        }
        asker = Asker(engine, shop)
        assert asker.ask(now=after(0)) == 0
        assert asker.ask(now=after(2)) == 1
        kept = next(message["sid"] for message in account.messages if message["body"] == "drop after")
        assert told(engine)["drop after"] == ("sent", kept)
        assert told(engine)["drop"][0] == "in_doubt"
        assert asker.ask(now=after(20)) == 1
        assert told(engine)["drop"][0] == "planned"
        asker.close()
    assert [message["body"] for message in account.messages].count("drop after") == 1
    with reading(engine) as connection:
        words = connection.execute(select(message_events.c.detail).where(message_events.c.kind == "settled")).scalars()
        details = sorted(words)
    assert details[0].startswith("not_sent: Twilio lists none of its 0 messages")
    assert details[1].startswith("sent: Twilio lists it as SM")


def test_a_text_that_is_not_ours_settles_nothing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = TwilioAccount()
    with ProviderServer(account) as server:
        shop = workspace(tmp_path, "twilio", server.url)
        plan(engine, ["drop"], "{{ contact.first_name }}", monkeypatch)
        send(engine, shop)
        for _ in range(5):
            account.take("+447900000001", "Your code is 1234")
        asker = Asker(engine, shop)
        for minutes in (2, 20, 60, 600):
            assert asker.ask(now=after(minutes)) == 0
        asker.close()
    assert told(engine)["drop"][0] == "in_doubt"


def test_alibaba_is_asked_for_our_reference_and_what_it_never_got_arrives_once(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = Aliyun()
    with ProviderServer(cloud) as server:
        shop = workspace(tmp_path, "aliyun", server.url)
        plan(engine, ["drop after", "drop"], "name: {{ contact.first_name }}", monkeypatch)
        send(engine, shop)
        assert {state for state, _ in told(engine).values()} == {"in_doubt"}
        asker = Asker(engine, shop)
        assert asker.ask(now=after(2)) == 1
        assert told(engine)["drop after"][0] == "delivered"
        assert asker.ask(now=after(20)) == 1
        asker.close()
        with writing(engine) as connection:
            assert told(engine)["drop"][0] == "planned"
            due = datetime.now(UTC) - timedelta(seconds=1)
            connection.execute(update(messages).where(messages.c.state == "planned").values(due_at=due))
            connection.execute(update(contacts).where(contacts.c.first_name == "drop").values(first_name="accept"))
        send(engine, shop)
    assert told(engine)["accept"] == ("sent", "9006^0")
    assert len(cloud.sent) == 2


def test_who_cannot_be_asked_is_not_asked(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ProviderServer(sms_providers.vonage) as server:
        shop = workspace(tmp_path, "vonage", server.url)
        plan(engine, ["drop"], "{{ contact.first_name }}", monkeypatch)
        send(engine, shop)
        asker = Asker(engine, shop)
        assert asker.ask(now=after(60)) == 0
        asker.close()
        assert len(server.seen) == 1
    assert told(engine)["drop"][0] == "in_doubt"


def test_a_doubt_is_asked_about_at_growing_intervals(
    sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = TwilioAccount()
    with ProviderServer(account) as server:
        shop = workspace(tmp_path, "twilio", server.url)
        plan(sqlite_engine, ["drop"], "{{ contact.first_name }}", monkeypatch)
        send(sqlite_engine, shop)
        account.take("+447900000001", "not ours")
        asker, asked = Asker(sqlite_engine, shop), []
        for minutes in range(120):
            before = len(server.seen)
            asker.ask(now=after(minutes))
            if len(server.seen) > before:
                asked.append(minutes)
        asker.close()
    assert asked[0] in (1, 2)
    assert 5 <= len(asked) <= 9
    assert all(later - earlier >= earlier - 1 for earlier, later in pairwise(asked))


# --- what answers prove ------------------------------------------------------------------------------------------

SINCE = datetime(2026, 11, 26, 15, 58, tzinfo=UTC)
"""Close to midnight in China."""


def question(text: str = "hello") -> Question:
    return Question(
        ref="ref0", address="+8613800138000", since=SINCE, text=lambda: text, is_ours=lambda sid: sid == "SM-known"
    )


def ask(answer: Reply | None, kind: str, *, minutes: float, text: str = "hello") -> Found | Absent | Unclear:
    def reply(seen: Seen) -> Reply:
        return sms_providers.DROP if answer is None else answer

    with ProviderServer(reply) as server:
        made = {"twilio": twilio_gateway, "aliyun": aliyun_gateway, "tencent": tencent_gateway}[kind](f"{server.url}/")
        reconciler = open_reconciler(made)
        assert reconciler is not None
        finding = reconciler.ask(question(text), now=SINCE + timedelta(minutes=minutes))
        reconciler.close()
        return finding


def listed(*messages: dict[str, str], more: str | None = None) -> Reply:
    base = {"sid": "SM1", "body": "hello", "direction": "outbound-api", "status": "queued"}
    created = {"date_created": "Thu, 26 Nov 2026 15:57:40 +0000"}
    return Reply(200, {"messages": [{**base, **created, **message} for message in messages], "next_page_uri": more})


@pytest.mark.parametrize(
    ("answer", "early", "late"),
    [
        (listed({}), Found, Found),
        (listed({"body": "Sent from your Twilio trial account - hello"}), Found, Found),
        (listed(), Unclear, Absent),
        (listed({"direction": "inbound"}), Unclear, Absent),
        (listed({"sid": "SM-known"}), Unclear, Absent),
        (listed({"date_created": "Thu, 26 Nov 2026 12:00:00 +0000"}), Unclear, Absent),
        (listed({"date_created": "soon"}, {"body": "x"}), Found, Found),
        (listed({"body": "something else"}), Unclear, Unclear),
        (listed({"body": "x"}, more="/again"), Unclear, Unclear),
        (Reply(401, {"code": 20003}), Unclear, Unclear),
        (Reply(500, b"oops"), Unclear, Unclear),
        (Reply(200, b"<html>"), Unclear, Unclear),
        (Reply(200, {"messages": None}), Unclear, Unclear),
        (None, Unclear, Unclear),
    ],
)
def test_what_twilios_list_proves(answer: Reply | None, early: type, late: type) -> None:
    assert isinstance(ask(answer, "twilio", minutes=2), early)
    assert isinstance(ask(answer, "twilio", minutes=20), late)


def details(*rows: dict[str, object], total: object = None, code: str = "OK") -> Reply:
    data = {"Code": code, "TotalCount": len(rows) if total is None else total}
    return Reply(200, {**data, "SmsSendDetailDTOs": {"SmsSendDetailDTO": list(rows)}})


@pytest.mark.parametrize(
    ("answer", "early", "late"),
    [
        (details({"OutId": "ref0", "SendStatus": 1}), Found, Found),
        (details({"OutId": "other", "SendStatus": 3}), Unclear, Absent),
        (details(), Unclear, Absent),
        (details({"OutId": "other"}, total=9999), Unclear, Unclear),
        (details(total="many"), Unclear, Unclear),
        (details(code="isv.ACCOUNT_ABNORMAL"), Unclear, Unclear),
        (Reply(200, {"Code": "OK", "TotalCount": 0}), Unclear, Unclear),
        (Reply(200, b"?"), Unclear, Unclear),
        (None, Unclear, Unclear),
    ],
)
def test_what_alibabas_details_prove(answer: Reply | None, early: type, late: type) -> None:
    assert isinstance(ask(answer, "aliyun", minutes=2), early)
    assert isinstance(ask(answer, "aliyun", minutes=20), late)


def test_alibaba_is_asked_for_every_day_of_china_the_message_may_be_of() -> None:
    days: list[str] = []

    def reply(seen: Seen) -> Reply:
        days.append(seen.form["SendDate"])
        return details()

    with ProviderServer(reply) as server:
        reconciler = open_reconciler(aliyun_gateway(f"{server.url}/"))
        assert reconciler is not None
        reconciler.ask(question(), now=SINCE + timedelta(hours=1))
        reconciler.close()
    assert days == ["20261126", "20261127"]


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ([{"SessionContext": "ref0", "SerialNo": "5:1", "ReportStatus": "SUCCESS"}], Found),
        ([{"SessionContext": "other", "SerialNo": "5:1", "ReportStatus": "SUCCESS"}], Unclear),
        ([], Unclear),
        (None, Unclear),
    ],
)
def test_tencents_silence_proves_nothing(statuses: list[dict[str, str]] | None, kind: type) -> None:
    def reply(seen: Seen) -> Reply:
        assert seen.headers["authorization"] == sms_providers.tencent_oracle(seen)
        assert json.loads(seen.body)["PhoneNumber"] == "+8613800138000"
        return Reply(200, {"Response": {"PullSmsSendStatusSet": statuses}})

    with ProviderServer(reply) as server:
        reconciler = open_reconciler(tencent_gateway(f"{server.url}/"))
        assert reconciler is not None
        finding = reconciler.ask(question(), now=SINCE + timedelta(hours=20))
        reconciler.close()
    assert isinstance(finding, kind)
    if isinstance(finding, Found):
        assert (finding.gateway_id, finding.kind) == ("5:1", "delivered")
