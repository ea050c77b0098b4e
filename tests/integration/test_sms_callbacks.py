"""What Twilio, Vonage, Alibaba Cloud and Tencent Cloud call back, from the door to the tables. On both databases."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy import Engine, update
from twilio.request_validator import RequestValidator

from kernel.settings import Workspace
from store.engine import writing
from store.inbox import gateway_source, put
from store.tables import consents, contacts, inbox, message_events, messages, suppressions
from tests.integration.returning import (
    SENT_AT,
    Site,
    TurnedClock,
    everything,
    make_workspace,
    rows,
    sent_messages,
    served,
    state_of,
)
from tests.integration.test_inbound import _reset
from tests.servers.sms_providers import ACCOUNT, SECRET
from workers.inbound.process import process_inbox
from workers.inbound.vonage import signature

PUBLIC = "https://mail.acme.example"
YAML = f"""\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  twilio: {{type: twilio, account_sid: {ACCOUNT}, auth_token: {SECRET}, sender: "+15005550006", callback_token: s3cret}}
  vonage: {{type: vonage, api_key: key, api_secret: {SECRET}, sender: ACME, callback_token: s3cret}}
  signed: {{type: vonage, api_key: key, api_secret: x, sender: ACME, callback_token: s3cret,
    signature_secret: {SECRET}}}
  aliyun: {{type: aliyun, access_key_id: id, access_key_secret: x, sign_name: 阿里云, callback_token: s3cret}}
  tencent: {{type: tencent, secret_id: id, secret_key: x, app_id: "1", sign_name: 腾讯云, callback_token: s3cret,
    callback_from: [203.0.113.0/24]}}
web: {{public_url: "{PUBLIC}", trusted_proxies: ["127.0.0.1"]}}
"""
NOW = SENT_AT + timedelta(minutes=10)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace", text=YAML)


@pytest.fixture
def site(engine: Engine, workspace: Workspace) -> Iterator[Site]:
    with served(engine, workspace, TurnedClock(NOW)) as running:
        yield running


def twilio_post(site: Site, path: str, fields: dict[str, str], *, token: str = SECRET, url: str = PUBLIC) -> int:
    """Post as Twilio does, signed by Twilio's own library."""
    made = RequestValidator(token).compute_signature(f"{url}{path}", fields)
    return site.post(path, data=fields, headers={"X-Twilio-Signature": made}).status_code


def read(engine: Engine, workspace: Workspace) -> list[str]:
    process_inbox(engine, workspace, now=NOW)
    return [state for _, state in rows(engine, inbox, "id", "state")]


# --- Twilio ----------------------------------------------------------------------------------------------------


def test_twilios_callbacks_move_a_message_whatever_their_order(
    engine: Engine, workspace: Workspace, site: Site
) -> None:
    ids = sent_messages(engine, 3, lane="twilio", channel="sms", state="in_doubt")
    paths = [f"/v1/gateways/twilio/receipt/s3cret?ref={workspace.signer().address_token(message)}" for message in ids]
    for status in ("delivered", "sent", "queued", "sending", "delivered"):
        assert twilio_post(site, paths[0], {"MessageSid": "SM1", "MessageStatus": status, "To": "+447900000001"}) == 200
    assert twilio_post(site, paths[1], {"MessageSid": "SM2", "MessageStatus": "sent"}) == 200
    failed = {"MessageSid": "SM3", "MessageStatus": "undelivered", "ErrorCode": "30005"}
    assert twilio_post(site, paths[2], failed, url=f"{PUBLIC}:443") == 200
    assert read(engine, workspace) == ["done"] * 6
    assert [state_of(engine, message) for message in ids] == ["delivered", "sent", "bounced"]
    assert rows(engine, message_events, "kind", "detail") == [
        ("delivered", "delivered"),
        ("undelivered", "undelivered 30005"),
    ]
    assert rows(engine, suppressions, "address") == []


def test_a_callback_without_twilios_signature_says_nothing_and_does_not_shut_out_the_true_one(
    engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(engine, lane="twilio", channel="sms")
    path = f"/v1/gateways/twilio/receipt/s3cret?ref={workspace.signer().address_token(message)}"
    fields = {"MessageSid": "SM1", "MessageStatus": "failed"}
    assert site.post(path, data=fields).status_code == 200
    twilio_post(site, path, fields, token="another")
    twilio_post(site, path, fields, url="https://other.example")
    assert read(engine, workspace) == ["rejected"] * 3
    assert state_of(engine, message) == "sent"
    twilio_post(site, path, fields)
    assert read(engine, workspace) == ["rejected"] * 3 + ["done"]
    assert state_of(engine, message) == "bounced"


def test_the_golden_vector_of_twilios_sdk(workspace: Workspace) -> None:
    from workers.inbound import twilio

    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675310",
        "Digits": "1234",
        "From": "+14158675310",
        "To": "+18005551212",
    }
    url = "https://example.com/myapp.php?foo=1&bar=2"
    assert twilio.signature("12345", url, list(fields.items())) == "L/OH5YylLD5NRKLltdqwSvS0BnU="
    assert RequestValidator("12345").validate(url, fields, "L/OH5YylLD5NRKLltdqwSvS0BnU=")


def test_who_told_twilio_to_stop_is_suppressed_when_the_callback_says_so(
    engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(engine, lane="twilio", channel="sms")
    path = f"/v1/gateways/twilio/receipt/s3cret?ref={workspace.signer().address_token(message)}"
    for status in ("failed", "undelivered"):
        twilio_post(site, path, {"MessageSid": "SM1", "MessageStatus": status, "ErrorCode": "21610"})
    read(engine, workspace)
    assert rows(engine, suppressions, "channel", "reason") == [("sms", "stop")]
    assert ("sms", "withdrawn") in rows(engine, consents, "channel", "status")


def test_a_reply_that_twilio_took_for_stop_stops(engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(engine, lane="twilio", channel="sms")
    number = rows(engine, contacts, "phone")[0][0]
    path = "/v1/gateways/twilio/inbound/s3cret"
    twilio_post(site, path, {"From": number, "Body": "Please STOP it", "OptOutType": "STOP", "MessageSid": "SM9"})
    read(engine, workspace)
    assert rows(engine, suppressions, "address", "reason", "message_id") == [(number, "stop", message)]


# --- Vonage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["params", "data", "json"])
def test_vonages_receipts_come_in_any_form(engine: Engine, workspace: Workspace, site: Site, form: str) -> None:
    [message] = sent_messages(engine, lane="vonage", channel="sms", state="in_doubt")
    ref = workspace.signer().address_token(message)
    fields = {"msisdn": "447900000001", "messageId": "V1", "status": "delivered", "err-code": "0", "client-ref": ref}
    method = "GET" if form == "params" else "POST"
    assert site.request(method, "/v1/gateways/vonage/receipt/s3cret", **{form: fields}).status_code == 200
    assert read(engine, workspace) == ["done"]
    assert state_of(engine, message) == "delivered"


@pytest.mark.parametrize("forged", [False, True])
def test_a_signed_vonage_callback_is_verified(engine: Engine, workspace: Workspace, site: Site, forged: bool) -> None:
    [message] = sent_messages(engine, lane="signed", channel="sms")
    fields = {"msisdn": "447900000001", "text": "STOP & go=away", "messageId": "V1", "timestamp": "2026-03-02 09:00:00"}
    fields["sig"] = signature("another" if forged else SECRET, "sha256", fields)
    site.post("/v1/gateways/signed/inbound/s3cret", data=fields)
    fields = {
        "messageId": "V1",
        "status": "failed",
        "client-ref": workspace.signer().address_token(message),
        "nonce": "n",
    }
    fields["sig"] = signature("another" if forged else SECRET, "sha256", fields).upper()
    site.post("/v1/gateways/signed/receipt/s3cret", json=fields)
    assert read(engine, workspace) == (["rejected"] * 2 if forged else ["done"] * 2)
    assert state_of(engine, message) == ("sent" if forged else "bounced")


def test_vonages_plain_md5_signature_is_a_hash_of_fields_and_secret() -> None:
    import hashlib

    fields = {"b": "1&2=3", "a": "x"}
    assert signature("s", "md5hash", fields) == hashlib.md5(b"&a=x&b=1_2_3s").hexdigest()


# --- Alibaba Cloud and Tencent Cloud ------------------------------------------------------------------------------


def test_alibabas_receipts_and_replies(engine: Engine, workspace: Workspace, site: Site) -> None:
    ids = sent_messages(engine, 3, lane="aliyun", channel="sms", state="in_doubt")
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == ids[2]).values(gateway_id="9006^0"))
        connection.execute(update(contacts).where(contacts.c.id == ids[0]).values(phone="+8613800138000"))
    refs = [workspace.signer().address_token(message) for message in ids]
    reports = [
        {"phone_number": "13800138000", "success": True, "err_code": "DELIVERED", "out_id": refs[0], "biz_id": "1^0"},
        {"phone_number": "13900139000", "success": False, "err_code": "MK:0001", "out_id": refs[1], "biz_id": "2^0"},
        {"phone_number": "13700137000", "success": True, "err_code": "DELIVERED", "out_id": "", "biz_id": "9006^0"},
    ]
    answer = site.post("/v1/gateways/aliyun/receipt/s3cret", json=reports)
    assert answer.json() == {"code": 0, "msg": "OK"}
    ups = [{"phone_number": "13800138000", "content": "R", "sign_name": "阿里云", "sequence_id": 1}]
    assert site.post("/v1/gateways/aliyun/inbound/s3cret", json=ups).json()["code"] == 0
    assert read(engine, workspace) == ["done", "done"]
    assert [state_of(engine, message) for message in ids] == ["delivered", "bounced", "delivered"]
    assert rows(engine, suppressions, "address", "reason") == [("+8613800138000", "stop")]


def test_tencents_receipts_and_replies(engine: Engine, workspace: Workspace, site: Site) -> None:
    ids = sent_messages(engine, 2, lane="tencent", channel="sms")
    with writing(engine) as connection:
        for number, message in enumerate(ids):
            connection.execute(update(messages).where(messages.c.id == message).values(gateway_id=f"5000:{number}"))
        connection.execute(update(contacts).where(contacts.c.id == ids[0]).values(phone="+8613800138000"))
    reports = [
        {"nationcode": "86", "mobile": "13800138000", "report_status": "SUCCESS", "errmsg": "DELIVRD", "sid": "5000:0"},
        {"nationcode": "86", "mobile": "13900139000", "report_status": "FAIL", "errmsg": "UNDELIV", "sid": "5000:1"},
    ]
    inside = {"ip": "203.0.113.9"}
    assert site.post("/v1/gateways/tencent/receipt/s3cret", json=reports, **inside).json() == {
        "result": 0,
        "errmsg": "OK",
    }
    reply = {"nationcode": "86", "mobile": "13800138000", "text": "拒收", "sign": "腾讯云", "time": 1}
    assert site.post("/v1/gateways/tencent/inbound/s3cret", json=reply, **inside).json()["result"] == 0
    assert read(engine, workspace) == ["done", "done"]
    assert [state_of(engine, message) for message in ids] == ["delivered", "bounced"]
    assert rows(engine, suppressions, "address", "reason") == [("+8613800138000", "stop")]


def test_from_elsewhere_the_door_stays_shut(engine: Engine, site: Site) -> None:
    assert site.post("/v1/gateways/tencent/receipt/s3cret", json=[], ip="198.51.100.1").status_code == 404
    assert site.post("/v1/gateways/tencent/receipt/s3cret", json=[]).status_code == 404
    assert site.post("/v1/gateways/tencent/receipt/wrong", json=[], ip="203.0.113.9").status_code == 404
    assert rows(engine, inbox, "id") == []


def test_a_tencent_receipt_that_overtakes_the_ledger_waits_for_the_id(
    engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(engine, lane="tencent", channel="sms")
    report = [{"report_status": "SUCCESS", "sid": "5000:1"}]
    site.post("/v1/gateways/tencent/receipt/s3cret", json=report, ip="203.0.113.9")
    assert read(engine, workspace) == ["new"]
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == message).values(gateway_id="5000:1"))
    assert read(engine, workspace) == ["done"]
    assert state_of(engine, message) == "delivered"


def test_callbacks_twice_and_in_any_order_leave_the_same_tables(engine: Engine, workspace: Workspace) -> None:
    [one] = sent_messages(engine, lane="twilio", channel="sms", name="one")
    [two] = sent_messages(engine, lane="aliyun", channel="sms", name="two")
    signer, before = workspace.signer(), everything(engine)
    arrivals: list[tuple[str, str, dict[str, str], bytes]] = []
    query = f"ref={signer.address_token(one)}"
    url = f"{PUBLIC}/v1/gateways/twilio/receipt/s3cret?{query}"
    for status, error in (("sent", ""), ("delivered", ""), ("queued", ""), ("undelivered", "21610")):
        fields = {"MessageSid": "SM1", "MessageStatus": status, "ErrorCode": error}
        headers = {"x-twilio-signature": RequestValidator(SECRET).compute_signature(url, fields)}
        arrivals.append(("twilio", query, headers, urlencode(fields).encode()))
    for success in (True, False):
        report = [{"out_id": signer.address_token(two), "success": success, "err_code": "x"}]
        arrivals.append(("aliyun", "", {"content-type": "application/json"}, json.dumps(report).encode()))
    dice, ends = random.Random(7), []
    for _ in range(3):
        with writing(engine) as connection:
            for number, (name, asked, headers, body) in enumerate(dice.sample(arrivals * 2, len(arrivals) * 2)):
                meta = {"kind": "receipt", "query": asked, "headers": headers}
                source = gateway_source(name)
                put(connection, key=str(number), source=source, body=body, meta=meta, received_at=NOW)
        assert set(read(engine, workspace)) == {"done"}
        end = everything(engine)
        end.pop("inbox")
        ends.append(end)
        _reset(engine, before)
    assert ends[0] == ends[1] == ends[2]
    assert len(ends[0]["suppressions"]) == 1
