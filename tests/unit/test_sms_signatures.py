"""Signatures of the SMS providers, beside those of their own libraries; and the text that fills their templates."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import PermanentError, TransientError
from tests.servers.sms_adapters import NOW, aliyun_gateway
from workers.channels.aliyun import signature
from workers.channels.provider_templates import read_filled
from workers.channels.tencent import authorization

FIELDS = st.dictionaries(
    st.text("abcXYZ", min_size=1, max_size=8), st.text(max_size=30).filter(lambda s: s.isprintable())
)


@given(FIELDS)
def test_an_alibaba_signature_is_that_of_the_sdk(fields: dict[str, str]) -> None:
    from aliyunsdkcore.auth.algorithm import sha_hmac1
    from aliyunsdkcore.auth.composer import rpc_signature_composer as composer

    sts = composer.__dict__["__compose_string_to_sign"]("POST", fields)
    assert signature("POST", fields, "secret") == sha_hmac1.get_sign_string(sts, "secret&")


@given(st.binary(max_size=200), st.text("abc.-:1", min_size=1, max_size=20))
def test_a_tencent_signature_is_that_of_the_sdk(body: bytes, host: str) -> None:
    from tencentcloud.common.credential import Credential
    from tencentcloud.sms.v20210111.sms_client import SmsClient

    header = {"Content-Type": "application/json", "Host": host, "X-TC-Timestamp": str(int(NOW.timestamp()))}
    request = SimpleNamespace(method="POST", uri="/", data=body, header=header)
    client = SmsClient(Credential("id", "secret"), "ap-guangzhou")
    theirs = client._get_tc3_signature(None, request, "2026-11-26", "sms", "secret")
    ours = authorization("id", "secret", host=host, body=body, at=NOW)
    assert ours == (
        f"TC3-HMAC-SHA256 Credential=id/2026-11-26/sms/tc3_request, SignedHeaders=content-type;host, Signature={theirs}"
    )
    assert len(theirs) == len(hashlib.sha256().hexdigest())


def test_a_text_fills_a_template() -> None:
    filled = read_filled("template: SMS_1\nname:Ann: the first\nempty:", None)
    assert (filled.template, filled.values) == ("SMS_1", {"name": "Ann: the first", "empty": ""})
    assert read_filled("1: a\n2: b", "77").in_order() == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "hello Ann",
        "name: Ann\nname: Bob",
        "name: Ann\ntemplate: SMS_666",
        "template: SMS_1\nname: Ann\nother words",
        "a:\n\nb:",
    ],
)
def test_a_value_cannot_pass_for_another_line(text: str) -> None:
    with pytest.raises(PermanentError):
        read_filled(text, "SMS_1")


@pytest.mark.parametrize("text", ["2: b\n1: a", "1: a\n3: c", "name: a"])
def test_numbered_values_come_in_order(text: str) -> None:
    with pytest.raises(PermanentError):
        read_filled(text, "77").in_order()


def test_where_nobody_names_a_template_the_message_waits_for_an_operator() -> None:
    with pytest.raises(TransientError, match="template"):
        read_filled("name: Ann", None)


def test_wording_of_ours_cannot_be_added_to_an_approved_template() -> None:
    with pytest.raises(ValueError, match="approved template"):
        aliyun_gateway("http://127.0.0.1:1/", opt_out="拒收请回复R")
