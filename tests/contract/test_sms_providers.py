"""What each SMS provider's words mean, against servers that answer as the provider documents it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kernel.errors import OPTED_OUT, GatewayDown
from tests.contract.test_channels import sms
from tests.servers import sms_providers
from tests.servers.flights import RememberingFlight
from tests.servers.sms_adapters import NOW, aliyun, tencent, twilio, vonage
from tests.servers.sms_providers import SECRET, ProviderServer, Reply, Seen
from workers.channels.over_http import SmsOverHttp
from workers.channels.tencent import until_morning_s

Opened = Callable[..., SmsOverHttp]


def sent(make: Opened, answer: Callable[[Seen], Reply], text: str, **more: Any) -> tuple[RememberingFlight, list[Seen]]:
    """Send one SMS to a server of its own."""
    with ProviderServer(answer) as server:
        channel, flight = make(server.url, **more), RememberingFlight()
        try:
            channel.deliver([sms(text)], flight, lambda: True)
        finally:
            channel.close()
        return flight, server.seen


# --- Twilio ----------------------------------------------------------------------------------------------------


def test_twilio_is_asked_as_it_documents() -> None:
    flight, [request] = sent(twilio, sms_providers.twilio, "accept", receipt_url="https://x.example/r/s", validity="1h")
    assert (request.method, request.path) == ("POST", f"/2010-04-01/Accounts/{sms_providers.ACCOUNT}/Messages.json")
    assert request.form == {
        "To": "+4915112345678",
        "Body": "accept",
        "From": "+15005550006",
        "ValidityPeriod": "3600",
        "StatusCallback": "https://x.example/r/s?ref=ref0",
    }
    receipt = flight.receipts[0]
    assert (receipt.gateway_id, receipt.parts, receipt.code) == ("SM1", 2, 201)


def test_a_twilio_messaging_service_has_not_counted_yet() -> None:
    service = "MG" + "1" * 32
    flight, [request] = sent(twilio, sms_providers.twilio, "service", messaging_service_sid=service, sender="")
    assert request.form["MessagingServiceSid"] == service
    assert "From" not in request.form
    assert flight.receipts[0].parts is None


@pytest.mark.parametrize(
    ("word", "ending"),
    [
        ("21211", "refused"),
        ("21614", "refused"),
        ("21408", "refused"),
        ("21610", "refused"),
        ("21617", "refused"),
        ("failed", "refused"),
        ("http500", "deferred"),
        ("http502", "unknown"),
        ("no sid", "unknown"),
        ("drop", "unknown"),
    ],
)
def test_what_twilio_says_of_one_sms(word: str, ending: str) -> None:
    flight, seen = sent(twilio, sms_providers.twilio, word)
    assert flight.endings == {0: ending}
    assert len(seen) == 1
    assert (word == "21610") == (ending == "refused" and str(flight.errors[0]).startswith(OPTED_OUT))


@pytest.mark.parametrize(
    ("word", "lasting", "wait_s"),
    [
        ("20429", False, 9.0),
        ("http503", False, 9.0),
        ("21606", True, None),
        ("21703", True, None),
        ("http404", True, None),
    ],
)
def test_what_twilio_says_of_us(word: str, lasting: bool, wait_s: float | None) -> None:
    with pytest.raises(GatewayDown) as caught:
        sent(twilio, sms_providers.twilio, word)
    assert (caught.value.lasting, caught.value.retry_after_s) == (lasting, wait_s)


@pytest.mark.parametrize("make", [twilio, vonage])
def test_a_wrong_password_closes_the_lane(make: Opened) -> None:
    server, field = (sms_providers.twilio, "auth_token") if make is twilio else (sms_providers.vonage, "api_secret")
    with pytest.raises(GatewayDown) as caught:
        sent(make, server, "accept", **{field: "wrong"})
    assert caught.value.lasting


# --- Vonage ----------------------------------------------------------------------------------------------------


def test_vonage_is_asked_as_it_documents() -> None:
    flight, [request] = sent(vonage, sms_providers.vonage, "accept", receipt_url="https://x.example/r/s", validity="1h")
    assert (request.method, request.path) == ("POST", "/sms/json")
    assert request.form == {
        "to": "4915112345678",
        "from": "ACME",
        "text": "accept",
        "type": "text",
        "client-ref": "ref0",
        "ttl": "3600000",
        "status-report-req": "1",
        "callback": "https://x.example/r/s",
    }
    receipt = flight.receipts[0]
    assert (receipt.gateway_id, receipt.parts) == ("V1", 2)


def test_vonage_is_told_of_other_alphabets() -> None:
    _, [request] = sent(vonage, sms_providers.vonage, "你好")
    assert request.form["type"] == "unicode"


@pytest.mark.parametrize(
    ("word", "ending"),
    [
        ("2", "refused"),
        ("6", "refused"),
        ("7", "refused"),
        ("33", "refused"),
        ("5", "deferred"),
        ("mixed", "unknown"),
        ("no messages", "unknown"),
        ("no status", "unknown"),
        ("drop", "unknown"),
    ],
)
def test_what_vonage_says_of_one_sms_stands_in_an_answer_of_200(word: str, ending: str) -> None:
    flight, _ = sent(vonage, sms_providers.vonage, word)
    assert flight.endings == {0: ending}


@pytest.mark.parametrize(("word", "lasting"), [("1", False), ("9", True), ("15", True), ("http503", False)])
def test_what_vonage_says_of_us(word: str, lasting: bool) -> None:
    with pytest.raises(GatewayDown) as caught:
        sent(vonage, sms_providers.vonage, word)
    assert caught.value.lasting is lasting


# --- Alibaba Cloud ---------------------------------------------------------------------------------------------


def test_alibaba_is_asked_as_it_documents_and_its_sdk_agrees_on_the_signature() -> None:
    flight, [request] = sent(aliyun, sms_providers.Aliyun(), "template: SMS_9\nname: accept\noffer: a*b~c & 你")
    form = request.form
    assert json.loads(form["TemplateParam"]) == {"name": "accept", "offer": "a*b~c & 你"}
    assert (form["TemplateCode"], form["SignName"], form["OutId"]) == ("SMS_9", "阿里云", "ref0")
    assert (form["Action"], form["Version"], form["RegionId"]) == ("SendSms", "2017-05-25", "cn-hangzhou")
    assert form["PhoneNumbers"] == "4915112345678"
    assert form["Timestamp"] == "2026-11-26T15:30:00Z"
    assert flight.receipts[0].gateway_id == "9006^0"


@pytest.mark.parametrize(
    ("word", "ending"),
    [
        ("isv.MOBILE_NUMBER_ILLEGAL", "refused"),
        ("isv.TEMPLATE_MISSING_PARAMETERS", "refused"),
        ("isv.BLACK_KEY_CONTROL_LIMIT", "refused"),
        ("isv.SOMETHING_NEW", "refused"),
        ("isv.BUSINESS_LIMIT_CONTROL", "deferred"),
        ("isp.SYSTEM_ERROR", "deferred"),
        ("InternalError", "deferred"),
        ("http500", "deferred"),
        ("http504", "unknown"),
    ],
)
def test_what_alibaba_says_of_one_sms(word: str, ending: str) -> None:
    flight, _ = sent(aliyun, sms_providers.Aliyun(), f"name: {word}")
    assert flight.endings == {0: ending}


@pytest.mark.parametrize(
    ("word", "lasting"),
    [
        ("Throttling.User", False),
        ("isv.AMOUNT_NOT_ENOUGH", True),
        ("isv.SMS_TEMPLATE_ILLEGAL", True),
        ("isv.SMS_SIGNATURE_ILLEGAL", True),
        ("isv.DAY_LIMIT_CONTROL", True),
        ("InvalidAccessKeyId.NotFound", True),
    ],
)
def test_what_alibaba_says_of_us(word: str, lasting: bool) -> None:
    with pytest.raises(GatewayDown) as caught:
        sent(aliyun, sms_providers.Aliyun(), f"name: {word}")
    assert caught.value.lasting is lasting


def test_a_wrong_secret_is_told_apart_by_the_signature() -> None:
    with pytest.raises(GatewayDown, match="SignatureDoesNotMatch"):
        sent(aliyun, sms_providers.Aliyun(), "name: accept", access_key_secret="wrong")


@pytest.mark.parametrize(
    ("word", "ending", "words"),
    [
        ("drop before", "accepted", ""),
        ("drop after", "unknown", "it had arrived"),
        ("drop", "unknown", "again: connection lost"),
        ("drop, then isv.MOBILE_NUMBER_ILLEGAL", "refused", "MOBILE_NUMBER"),
        ("drop, then Throttling.User", "unknown", "Throttling"),
        ("drop, then http503", "unknown", "JSON"),
    ],
)
def test_a_request_alibaba_did_not_answer_is_sent_again_byte_for_byte(word: str, ending: str, words: str) -> None:
    cloud = sms_providers.Aliyun()
    flight, seen = sent(aliyun, cloud, f"name: {word}")
    assert flight.endings == {0: ending}
    first, second = seen
    assert (first.body, first.headers) == (second.body, second.headers)
    assert len(cloud.sent) == (1 if "before" in word or "after" in word else 0)
    if ending != "accepted":
        assert words in str(flight.errors[0])


# --- Tencent Cloud ---------------------------------------------------------------------------------------------


def test_tencent_is_asked_as_it_documents_and_its_sdk_agrees_on_the_signature() -> None:
    flight, [request] = sent(tencent, sms_providers.tencent, "template: 77\n1: accept\n2: 你好")
    assert json.loads(request.body) == {
        "PhoneNumberSet": ["+4915112345678"],
        "SmsSdkAppId": "1400006666",
        "SignName": "腾讯云",
        "TemplateId": "77",
        "TemplateParamSet": ["accept", "你好"],
        "SessionContext": "ref0",
    }
    assert (request.headers["x-tc-action"], request.headers["x-tc-version"]) == ("SendSms", "2021-01-11")
    receipt = flight.receipts[0]
    assert (receipt.gateway_id, receipt.parts) == ("5000:1", 2)


@pytest.mark.parametrize(
    ("word", "ending"),
    [
        ("InvalidParameterValue.IncorrectPhoneNumber", "refused"),
        ("FailedOperation.ContainSensitiveWord", "refused"),
        ("FailedOperation.PhoneNumberInBlacklist", "refused"),
        ("Error FailedOperation.TemplateParamSetNotMatchApprovedTemplate", "refused"),
        ("LimitExceeded.PhoneNumberOneHourLimit", "deferred"),
        ("Error InternalError.OtherError", "deferred"),
        ("http500", "deferred"),
        ("InternalError.Timeout", "unknown"),
        ("Error InternalError.SendAndRecvFail", "unknown"),
        ("no set", "unknown"),
        ("drop", "unknown"),
    ],
)
def test_what_tencent_says_of_one_sms_stands_in_an_answer_of_200(word: str, ending: str) -> None:
    flight, _ = sent(tencent, sms_providers.tencent, f"1: {word}")
    assert flight.endings == {0: ending}
    told = ending == "refused" and str(flight.errors[0]).startswith(OPTED_OUT)
    assert told == ("Blacklist" in word)


@pytest.mark.parametrize(
    ("word", "lasting"),
    [
        ("Error RequestLimitExceeded", False),
        ("LimitExceeded.DeliveryFrequencyLimit", False),
        ("FailedOperation.InsufficientBalanceInSmsPackage", True),
        ("FailedOperation.TemplateIncorrectOrUnapproved", True),
        ("LimitExceeded.AppDailyLimit", True),
        ("Error UnauthorizedOperation.ServiceSuspendDueToArrears", True),
        ("Error InternalError.RequestTimeException", True),
    ],
)
def test_what_tencent_says_of_us(word: str, lasting: bool) -> None:
    with pytest.raises(GatewayDown) as caught:
        sent(tencent, sms_providers.tencent, f"1: {word}")
    assert caught.value.lasting is lasting


def test_at_night_in_china_the_lane_waits_for_the_morning() -> None:
    with pytest.raises(GatewayDown) as caught:
        sent(tencent, sms_providers.tencent, "1: FailedOperation.MarketingSendTimeConstraint")
    assert (caught.value.lasting, caught.value.retry_after_s) == (False, 8.5 * 3600)
    assert until_morning_s(NOW) == 8.5 * 3600
    assert until_morning_s(datetime(2026, 11, 26, 0, 0, tzinfo=UTC)) == 24 * 3600


def test_a_wrong_key_is_told_apart_by_the_signature() -> None:
    with pytest.raises(GatewayDown, match="AuthFailure"):
        sent(tencent, sms_providers.tencent, "1: accept", secret_key="wrong")


# --- the SDKs against the same servers: is the server a fair one? ------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_alibabas_sdk_is_content_with_our_server() -> None:
    from aliyunsdkcore.client import AcsClient
    from aliyunsdkcore.request import CommonRequest

    with ProviderServer(sms_providers.Aliyun()) as server:
        request = CommonRequest(domain=f"127.0.0.1:{server.port}", version="2017-05-25", action_name="SendSms")
        request.set_protocol_type("http")
        request.set_method("POST")
        fields = {"PhoneNumbers": "13800138000", "SignName": "阿里云", "TemplateCode": "SMS_1", "OutId": "r"}
        for name, value in {**fields, "TemplateParam": '{"name":"accept"}'}.items():
            request.add_body_params(name, value)
        answer = json.loads(AcsClient("id", SECRET, "cn-hangzhou").do_action_with_exception(request))
    assert answer["Code"] == "OK"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tencents_sdk_is_content_with_our_server() -> None:
    from tencentcloud.common.credential import Credential
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.sms.v20210111.models import SendSmsRequest
    from tencentcloud.sms.v20210111.sms_client import SmsClient

    with ProviderServer(sms_providers.tencent) as server:
        http = HttpProfile(protocol="http", endpoint=f"127.0.0.1:{server.port}")
        client = SmsClient(Credential("id", SECRET), "ap-guangzhou", ClientProfile(httpProfile=http))
        request = SendSmsRequest()
        request.from_json_string(
            json.dumps({"PhoneNumberSet": ["+8613800138000"], "TemplateParamSet": ["accept"], "SessionContext": "r"})
        )
        answer = client.SendSms(request)
    assert answer.SendStatusSet[0].Code == "Ok"


def test_twilios_library_asks_as_we_do_and_reads_our_servers_pages() -> None:
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    account = sms_providers.TwilioAccount()
    with ProviderServer(account) as server:

        class Here(TwilioHttpClient):
            def request(self, method: str, url: str, *arguments: Any, **options: Any) -> Any:
                here = url.replace("https://api.twilio.com", server.url)
                return super().request(method, here, *arguments, **options)

        theirs = Here(pool_connections=True)
        client = Client(sms_providers.ACCOUNT, SECRET, http_client=theirs)
        client.messages.create(
            to="+4915112345678",
            from_="+15005550006",
            body="accept",
            status_callback="https://x.example/r/s?ref=ref0",
            validity_period=3600,
        )
        ours = twilio(server.url, receipt_url="https://x.example/r/s", validity="1h")
        for _ in range(4):
            ours.deliver([sms("accept", 0)], RememberingFlight(), lambda: True)
        ours.close()
        first, *others = server.seen
        listed = client.messages.list(to="+4915112345678")
        theirs.session.close()
    assert [(seen.method, seen.path, seen.form) for seen in others] == [(first.method, first.path, first.form)] * 4
    assert first.headers["authorization"] == others[0].headers["authorization"]
    assert [message.sid for message in listed] == [message["sid"] for message in reversed(account.messages)]
