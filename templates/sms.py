"""SMS: one text, its links shortened to signed ones, its parts counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernel.settings import Brand
from kernel.signing import Signer
from kernel.sms_terms import SmsTerms
from templates import markup
from templates.budget import Rendering
from templates.context import SMS_SHAPE
from templates.files import SmsTemplate
from templates.footer import brand_values
from templates.links import Links, Tracking, TrackingStep
from templates.prepared import Renderer, Workshop
from templates.problems import TemplateProblem
from templates.sms_parts import Encoding, count_cn, split

MAX_CHARACTERS = 1600
"""What the large gateways take at most (Twilio's limit of `Body`)."""
CN_CHARACTERS = 500
"""What Chinese platforms take at most, signature included (Tencent Cloud SMS)."""
_BRACKETS = re.compile("[【】]")
_PHONE = re.compile(r"\+[1-9]\d{5,14}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedSms:
    """One SMS: E.164 address, text, how many parts it takes and in which encoding."""

    address: str
    text: str
    parts: int
    encoding: Encoding


def prepare_sms(template: SmsTemplate) -> Renderer:
    """Compile an SMS template. Raises InputError like `templates.mail.prepare_email`."""
    workshop = Workshop(template.files, SMS_SHAPE)
    return workshop.text(template.text, markup.plain(workshop.pieces(template.text)))


class SmsStep:
    """Composes the SMS of one step of a campaign in one language."""

    def __init__(
        self,
        *,
        template: SmsTemplate,
        signer: Signer,
        base_url: str,
        utm: Mapping[str, str],
        campaign: str = "",
        brand: Brand | None = None,
        terms: SmsTerms | None = None,
    ) -> None:
        """Prepare the step. Arguments as of `templates.mail.MailStep`; `terms` are those of the gateway it leaves by.

        Raises:
            InputError: something is wrong with the template.
        """
        self._text = prepare_sms(template)
        self._static: dict[str, Any] = {"campaign": campaign} | ({"brand": brand_values(brand)} if brand else {})
        self._terms = terms or SmsTerms()
        self._tracking = TrackingStep(signer=signer, base_url=base_url, utm=utm)

    def compose(self, *, message_id: int, address: str, context: Mapping[str, Any], links: Links) -> ComposedSms:
        """Return one SMS.

        Args:
            message_id: The message's row.
            address: E.164, with its plus sign.
            context: What `templates.context.load_contexts` gives for the contact.
            links: Gives each target its id.

        Raises:
            TemplateProblem: an undefined name, a bad value, no text, more than 1,600 characters, a bad number.
        """
        if not _PHONE.fullmatch(address):
            raise TemplateProblem(f"{address[:40]!r} is not a phone number in the form +447700900123")
        tracking = Tracking(self._tracking, message_id, links)
        unsubscribe, preferences = tracking.own
        own = {"unsubscribe_url": unsubscribe, "preferences_url": preferences}
        rendering = Rendering.limited({**context, **self._static, **own}, tracking.anything, MAX_CHARACTERS * 40)
        text = tracking.in_text(self._text.render(rendering)).replace("\r\n", "\n").strip()
        found = _CONTROL.search(text)
        if found or not text:
            raise TemplateProblem(
                f"the SMS holds the control character U+{ord(found[0]):04X}" if found else "the SMS is empty"
            )
        return _counted(address, with_opt_out(text, self._terms.opt_out), self._terms)


def with_opt_out(text: str, wording: str) -> str:
    """Return the text with the wording at its end, unless it says so already."""
    if not wording or wording.casefold() in text.casefold():
        return text
    return f"{text} {wording}" if wording[0].isascii() else text + wording


def _counted(address: str, text: str, terms: SmsTerms) -> ComposedSms:
    if len(text) > MAX_CHARACTERS:
        raise TemplateProblem(f"the SMS has {len(text):,} characters; gateways take {MAX_CHARACTERS:,}")
    if terms.signature and _BRACKETS.search(text):
        raise TemplateProblem("the SMS holds 【 or 】, which the platform's signature alone may have")
    if terms.counting == "cn":
        whole = terms.signature + text
        if len(whole) > CN_CHARACTERS:
            raise TemplateProblem(
                f"the SMS has {len(whole):,} characters with its signature; the platform takes {CN_CHARACTERS}"
            )
        return ComposedSms(address=address, text=text, parts=count_cn(whole), encoding=split(text).encoding)
    made = split(terms.signature + text)
    return ComposedSms(address=address, text=text, parts=len(made.parts), encoding=made.encoding)
