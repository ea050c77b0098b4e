"""How an e-mail provider tells what became of messages, as carillon.yaml describes it under `webhook:`.

Our reference travels in a header of the provider's own, which it takes off and sends back with every event.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from kernel.fields import Strict, form

REFERENCE = "carillon"
"""What our reference is called among a provider's metadata."""


class _Door(Strict):
    token: SecretStr = Field(description="Secret part of the address the provider is to call.")


class SesWebhook(_Door):
    """Amazon SES by way of SNS: events are signed by SNS."""

    type: Literal["ses"]
    topic: Annotated[
        str,
        form(
            "arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]+",
            "is no topic; write its ARN, as arn:aws:sns:eu-west-1:123456789012:mail",
        ),
    ] = Field(description="The topic's ARN.")
    configuration_set: Annotated[str, form("[A-Za-z0-9_-]{1,64}", "is no configuration set's name")] | None = Field(
        default=None, description="The SES configuration set that publishes events."
    )

    def fields(self, reference: str) -> list[tuple[str, str]]:
        """Return the header fields that carry our reference."""
        chosen = [("X-SES-CONFIGURATION-SET", self.configuration_set)] if self.configuration_set else []
        return [*chosen, ("X-SES-MESSAGE-TAGS", f"{REFERENCE}={reference}")]


class SendgridWebhook(_Door):
    """SendGrid's signed event webhook."""

    type: Literal["sendgrid"]
    key: str = Field(description="The verification key SendGrid shows: a public ECDSA key in base64.")

    def fields(self, reference: str) -> list[tuple[str, str]]:
        """Return the header field that carries our reference."""
        return [("X-SMTPAPI", json.dumps({"unique_args": {REFERENCE: reference}}))]


class MailgunWebhook(_Door):
    """Mailgun's webhooks, signed with the account's HTTP webhook signing key."""

    type: Literal["mailgun"]
    key: SecretStr = Field(description="The HTTP webhook signing key.")

    def fields(self, reference: str) -> list[tuple[str, str]]:
        """Return the header field that carries our reference."""
        return [("X-Mailgun-Variables", json.dumps({REFERENCE: reference}))]


class PostmarkWebhook(_Door):
    """Postmark's webhooks: not signed, so the secret address and basic authentication are all there is."""

    type: Literal["postmark"]
    username: str | None = None
    password: SecretStr | None = None

    def fields(self, reference: str) -> list[tuple[str, str]]:
        """Return the header field that carries our reference."""
        return [(f"X-PM-Metadata-{REFERENCE}", reference)]


Webhook = Annotated[SesWebhook | SendgridWebhook | MailgunWebhook | PostmarkWebhook, Field(discriminator="type")]
