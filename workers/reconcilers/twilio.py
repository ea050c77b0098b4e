"""Asking Twilio by its list of messages to a number.

The list is not narrowed by DateSent, though it could be: a message that still waits in Twilio's queue has no such date,
and would seem absent. Twilio keeps no reference of ours with a message, so one that may be ours is told by its text.

Source:
    Twilio API reference, "List Messages" (2010-04-01).
"""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

from kernel.errors import OutcomeUnknown
from kernel.sms_providers import TwilioGateway
from workers.http.exchange import basic, get
from workers.reconcilers.port import Absent, Finding, Found, Listing, Question, Unclear, is_over

_PAGES = 10
_PAGE_SIZE = "200"


class TwilioReconciler(Listing):
    """One Twilio account."""

    def __init__(self, gateway: TwilioGateway) -> None:
        super().__init__(gateway)
        self._url = f"{gateway.url.rstrip('/')}/2010-04-01/Accounts/{gateway.account_sid}/Messages.json"
        self._headers = basic(gateway.account_sid, gateway.auth_token.get_secret_value())

    def ask(self, question: Question, *, now: datetime) -> Finding:
        """See Reconciler.ask."""
        listed = self._listed(question.address)
        if isinstance(listed, Unclear):
            return listed
        begins, ends = self._window(question)
        candidates = [
            message
            for message in listed
            if str(message.get("direction", "")).startswith("outbound")
            and begins <= _created(message, begins) <= ends
            and not question.is_ours(str(message.get("sid")))
        ]
        if candidates:
            return _told_apart(candidates, question.text())
        if not is_over(question, now):
            return Unclear(words="Twilio lists no such message yet")
        return Absent(words=f"Twilio lists none of its {len(listed)} messages to this number as sent then and not ours")

    def _listed(self, number: str) -> list[dict[str, Any]] | Unclear:
        messages: list[dict[str, Any]] = []
        request = get(self._url, {"To": number, "PageSize": _PAGE_SIZE}, self._headers)
        for _ in range(_PAGES):
            answer = self._get(request)
            if isinstance(answer, Unclear):
                return answer
            if answer.status != 200 or not answer.whole:
                return Unclear(words=f"Twilio does not tell: {answer.excerpt}")
            try:
                data = answer.json_object()
            except OutcomeUnknown as error:
                return Unclear(words=error.text)
            page = data.get("messages")
            if not isinstance(page, list) or not all(isinstance(message, dict) for message in page):
                return Unclear(words=f"Twilio's list cannot be read: {answer.excerpt}")
            messages += page
            following = data.get("next_page_uri")
            if not following:
                return messages
            request = get(urljoin(self._url, str(following)), None, self._headers)
        return Unclear(words=f"Twilio lists more than {len(messages)} messages to this number")


def _told_apart(candidates: list[dict[str, Any]], text: str | None) -> Finding:
    same = [message for message in candidates if text and str(message.get("body", "")).endswith(text)]
    if not same:
        return Unclear(words=f"Twilio lists {len(candidates)} messages to this number then, of another text than ours")
    sid, status = str(same[0].get("sid")), same[0].get("status")
    return Found(words=f"Twilio lists it as {sid}, {status}", gateway_id=sid)


def _created(message: dict[str, Any], unknown: datetime) -> datetime:
    """Return when Twilio took a message; one whose date cannot be read counts as of the time in question."""
    try:
        return parsedate_to_datetime(str(message.get("date_created")))
    except ValueError:
        return unknown
