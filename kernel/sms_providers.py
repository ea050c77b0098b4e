"""SMS providers over HTTP as carillon.yaml describes them: what all have, and the four that are known by name."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from kernel.fields import SpanText, UrlText, form
from kernel.limits import Priced
from kernel.sms_terms import SmsTerms
from kernel.vocabulary import Channel


class HttpWay(Priced, SmsTerms):
    """What every SMS provider over HTTP has."""

    timeout: SpanText = "30s"
    concurrency: int = Field(default=32, ge=1, le=1000, description="Requests under way at once, in each process.")
    ca_file: str | None = Field(default=None, description="Certificates to trust beside the system's.")
    callback_token: SecretStr | None = Field(default=None, description="Secret part of the receipt URL.")
    callback_from: list[str] = Field(default=[], description="Networks callbacks may come from; none: any.")

    callback_answer: ClassVar[str] = ""
    """What the provider wants to hear from the door; anything else makes it repeat."""

    @field_validator("callback_from")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for network in value:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; write addresses or networks like 203.0.113.0/24") from None
        return value

    @property
    def channel(self) -> Channel:
        return Channel.SMS


class TwilioGateway(HttpWay):
    type: Literal["twilio"]
    account_sid: Annotated[str, form("AC[0-9a-fA-F]{32}", "is no account SID; it is AC and 32 hexadecimal digits")]
    auth_token: SecretStr = Field(description="Signs in, and verifies what Twilio calls back.")
    sender: str = Field(default="", description="A number of yours or an alphanumeric name.")
    messaging_service_sid: (
        Annotated[str, form("MG[0-9a-fA-F]{32}", "is no messaging service's SID; it is MG and 32 hexadecimal digits")]
        | None
    ) = None
    validity: SpanText | None = Field(default=None, description="How long Twilio keeps trying.")
    url: UrlText = "https://api.twilio.com"

    @model_validator(mode="after")
    def _from_somewhere(self) -> TwilioGateway:
        if not self.sender and not self.messaging_service_sid:
            raise ValueError("give a sender or a messaging_service_sid")
        return self


class VonageGateway(HttpWay):
    type: Literal["vonage"]
    api_key: str
    api_secret: SecretStr
    signature_secret: SecretStr | None = Field(default=None, description="Verifies what Vonage calls back.")
    signature_method: Literal["md5hash", "md5", "sha1", "sha256", "sha512"] = "sha256"
    sender: str
    validity: SpanText | None = Field(default=None, description="How long Vonage keeps trying.")
    url: UrlText = "https://rest.nexmo.com/sms/json"


class FilledTemplates(HttpWay):
    """What providers have that send approved templates only: our text fills them in, one `name: value` a line."""

    own_words: ClassVar[bool] = False

    sign_name: str = Field(description="The approved signature, without its brackets.")
    template: str | None = Field(default=None, description="Template of SMS whose text names none.")

    @model_validator(mode="after")
    def _no_words_of_ours(self) -> FilledTemplates:
        if self.opt_out:
            raise ValueError("opt_out cannot be added here: the approved template has its own wording")
        return self


class AliyunGateway(FilledTemplates):
    """Alibaba Cloud's Dysmsapi. The text of an SMS gives the values of a template, one `name: value` a line."""

    type: Literal["aliyun"]
    access_key_id: str
    access_key_secret: SecretStr
    region: str = "cn-hangzhou"
    url: UrlText = "https://dysmsapi.aliyuncs.com/"
    callback_answer: ClassVar[str] = '{"code":0,"msg":"OK"}'


class TencentGateway(FilledTemplates):
    """Tencent Cloud SMS. The text of an SMS gives the values of a template, `1: value` on the first line and so on."""

    type: Literal["tencent"]
    secret_id: str
    secret_key: SecretStr
    app_id: str
    region: str = "ap-guangzhou"
    url: UrlText = "https://sms.tencentcloudapi.com/"
    callback_answer: ClassVar[str] = '{"result":0,"errmsg":"OK"}'
