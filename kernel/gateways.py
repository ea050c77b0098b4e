"""Gateways as carillon.yaml describes them: SMTP relays and SMS providers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from kernel.errors import Refusal
from kernel.fields import SpanText, Strict, UrlText, form
from kernel.limits import DomainLimits, DomainName, Limited, Priced
from kernel.placeholders import misspelt_placeholders, texts_in
from kernel.sms_providers import AliyunGateway, HttpWay, TencentGateway, TwilioGateway, VonageGateway
from kernel.sms_terms import SmsTerms
from kernel.strict_yaml import KEY
from kernel.vocabulary import Channel
from kernel.webhooks import Webhook

_VISIBLE = "holds more than SMPP carries: letters, digits and signs of ASCII, without blanks"
PlainText = Annotated[
    str, form(r"[\x20-\x7e]*", "holds more than SMPP carries: letters, digits, signs and blanks of ASCII")
]


class SmtpGateway(Limited):
    type: Literal["smtp"]
    host: str
    port: int = Field(default=587, ge=1, le=65535)
    tls: Literal["starttls", "implicit", "none"] = Field(
        default="starttls", description="starttls and implicit verify the certificate; none only for localhost."
    )
    ca_file: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    auth: Literal["auto", "plain", "login", "cram-md5", "xoauth2"] = Field(
        default="auto", description="How to log in; auto takes PLAIN, LOGIN or CRAM-MD5, the first the relay offers."
    )
    token: SecretStr | None = Field(default=None, description="For xoauth2: the token itself.")
    token_file: str | None = Field(default=None, description="For xoauth2: a file that holds the token of the hour.")
    token_command: str | None = Field(default=None, description="For xoauth2: a command that prints the token.")
    helo: str | None = None
    timeout: SpanText = Field(default="5min", description="Patience with every answer but the last (RFC 5321).")
    final_timeout: SpanText = Field(default="10min", description="Patience after the final dot (RFC 5321 4.5.3.2).")
    messages_per_connection: int = Field(default=100, ge=1)
    connections: int = Field(default=20, ge=1, le=1000, description="At most so many at once in each worker process.")
    webhook: Webhook | None = Field(default=None, description="How the provider tells what became of messages.")
    dsn: bool = Field(default=False, description="Ask for delivery status notifications where the relay offers DSN.")
    domains: dict[DomainName, DomainLimits] = Field(
        default={}, description='By recipient domain; "*": every other domain, each by itself.'
    )

    @model_validator(mode="after")
    def _secrets(self) -> Self:
        tokens = [source for source in (self.token, self.token_file, self.token_command) if source is not None]
        if self.auth == "xoauth2" and (len(tokens) != 1 or self.username is None):
            raise ValueError("auth: xoauth2 needs a username and one of token, token_file and token_command")
        if self.auth != "xoauth2" and tokens:
            raise ValueError("token, token_file and token_command are for auth: xoauth2; the others use a password")
        return self

    @property
    def channel(self) -> Channel:
        return Channel.EMAIL


class HttpReply(Strict):
    """How an HTTP gateway's answer is read; `accepted` and the others list values of the field `status`."""

    format: Literal["json", "text"] = "json"
    status: str | None = Field(default=None, description="Path of the status in a JSON answer, as messages.0.status.")
    accepted: list[str] = Field(default=[], description="Values that mean accepted; none: any 2xx answer.")
    transient: list[str] = Field(default=[])
    gateway_id: str | None = Field(default=None, description="Path of the gateway's own id of the message.")
    parts: str | None = Field(default=None, description="Path of the number of parts it charges.")


class HttpReceipt(Strict):
    """How receipts and replies of an HTTP gateway are read (fields of the JSON or form it posts)."""

    message: str = Field(default="client_ref", description="Field that carries our reference.")
    gateway_id: str = "id"
    status: str = "status"
    delivered: list[str] = Field(default=["delivered"])
    undelivered: list[str] = Field(default=["undelivered", "failed", "rejected", "expired"])
    sender: str = Field(default="from", description="Field of an incoming SMS that carries the sender's number.")
    text: str = "text"


class HttpGateway(HttpWay):
    """A generic HTTP SMS gateway. Values may hold {to} {from} {text} {ref} {parts} {receipt_url}."""

    type: Literal["http"]
    url: UrlText
    method: Literal["POST", "GET"] = "POST"
    headers: dict[str, SecretStr] = Field(default={})
    username: str | None = None
    password: SecretStr | None = None
    json_body: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    query: dict[str, str] | None = None
    sender: str = ""
    reply: HttpReply = HttpReply()
    receipt: HttpReceipt = HttpReceipt()

    @model_validator(mode="after")
    def _can_be_filled_in(self) -> Self:
        Refusal.all_of(self._flaws())
        return self

    def _flaws(self) -> Iterator[Refusal]:
        if self.json_body is not None and self.form is not None:
            yield Refusal("a request has one body", "keep json_body or form", at=(KEY, "form"))
        bodies = {"url": self.url, "query": self.query, "json_body": self.json_body, "form": self.form}
        written = [(place, text) for name, body in bodies.items() for place, text in texts_in(body, (name,))]
        misspelt = [
            Refusal(message, hint, at=place) for place, text in written for message, hint in misspelt_placeholders(text)
        ]
        if misspelt:
            yield from misspelt
            return
        written += [((name,), value.get_secret_value()) for name, value in self.headers.items()]
        for name, what in (("to", "the number"), ("text", "the text")):
            if not any(f"{{{name}}}" in text for _, text in written):
                message = f"{what} goes nowhere: {{{name}}} is in none of url, query, json_body and form"
                yield Refusal(message, f'put it where the provider wants it, as json_body: {{{name}: "{{{name}}}"}}')


class KannelGateway(HttpWay):
    type: Literal["kannel"]
    url: UrlText
    username: str
    password: SecretStr
    sender: str = ""
    smsc: str | None = None
    dlr_mask: int = Field(default=31, ge=0, le=31)


class SmppGateway(Priced, SmsTerms):
    """An SMSC spoken to by SMPP 3.4, over one session for each worker process."""

    type: Literal["smpp"]
    host: str
    port: int = Field(default=2775, ge=1, le=65535)
    tls: Literal["implicit", "none"] = Field(
        default="implicit", description="implicit verifies the certificate; none is for a private network or a tunnel."
    )
    ca_file: str | None = None
    system_id: Annotated[str, form(r"[\x21-\x7e]+", _VISIBLE)] = Field(max_length=15)
    password: SecretStr = Field(max_length=8, description="SMPP 3.4 carries eight characters.")
    system_type: PlainText = Field(default="", max_length=12)
    bind: Literal["transceiver", "transmitter"] = Field(
        default="transceiver", description="transmitter: workers only send, `carillon inbound` receives."
    )
    receiver: bool = Field(
        default=True, description="`carillon inbound` binds as a receiver: replies come at any hour."
    )
    sender: PlainText = Field(default="", max_length=20, description="A number or a name.")
    sender_ton: int | None = Field(default=None, ge=0, le=255, description="Type of number; none: told by its form.")
    sender_npi: int | None = Field(default=None, ge=0, le=255)
    service_type: PlainText = Field(default="", max_length=5)
    window: int = Field(default=10, ge=1, le=1000, description="How many submit_sm may be out unanswered.")
    validity: SpanText | None = Field(default=None, description="How long the SMSC tries; none: its default.")
    receipts: bool = True
    message_ids: Literal["auto", "same"] = Field(
        default="auto", description="auto: receipts may write in hex what was given in decimal, or the other way."
    )
    statuses: dict[str, Literal["transient", "permanent", "throttled", "down", "settings"]] = Field(
        default={}, description='What the SMSC\'s own statuses mean, as {"0x41d": permanent}.'
    )
    enquire_link: SpanText = "30s"
    timeout: SpanText = "60s"

    @field_validator("password")
    @classmethod
    def _ascii(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().isascii():
            raise ValueError("SMPP carries passwords in ASCII")
        return value

    @model_validator(mode="after")
    def _hears_back(self) -> Self:
        if self.receipts and self.bind == "transmitter" and not self.receiver:
            raise ValueError("nobody would hear receipts and replies: set receiver: true, or bind: transceiver")
        return self

    @field_validator("statuses")
    @classmethod
    def _numbers(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            try:
                int(key, 0)
            except ValueError:
                raise ValueError(f'{key!r} is no status; write it as "0x41d" or "1053"') from None
        return value

    @property
    def channel(self) -> Channel:
        return Channel.SMS


Gateway = Annotated[
    SmtpGateway
    | HttpGateway
    | KannelGateway
    | SmppGateway
    | TwilioGateway
    | VonageGateway
    | AliyunGateway
    | TencentGateway,
    Field(discriminator="type"),
]
