"""Asking Alibaba Cloud by QuerySendDetails, day by day, for our OutId.

Source:
    Alibaba Cloud SMS, "QuerySendDetails" (2017-05-25): one number, one day of China, pages of at most 50.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from kernel.errors import OutcomeUnknown
from kernel.sms_providers import AliyunGateway
from kernel.vocabulary import MessageEventKind
from workers.channels.aliyun import number_of, rpc_request
from workers.reconcilers.port import Absent, Finding, Found, Listing, Question, Unclear, is_over

_CHINA = timezone(timedelta(hours=8))
_PAGE_SIZE = 50
_PAGES = 20
_KINDS = {"2": MessageEventKind.UNDELIVERED, "3": MessageEventKind.DELIVERED}
"""SendStatus; 1 waits for its receipt."""


class AliyunReconciler(Listing):
    """One AccessKey."""

    def __init__(self, gateway: AliyunGateway, *, nonce: Callable[[], str]) -> None:
        """Take the gateway; `nonce` gives each request a word never used before."""
        super().__init__(gateway)
        self._gateway = gateway
        self._nonce = nonce

    def ask(self, question: Question, *, now: datetime) -> Finding:
        """See Reconciler.ask."""
        begins, ends = (instant.astimezone(_CHINA).date() for instant in self._window(question))
        listed = 0
        for day in (begins + timedelta(days=number) for number in range((ends - begins).days + 1)):
            details = self._details(question.address, f"{day:%Y%m%d}", now)
            if isinstance(details, Unclear):
                return details
            listed += len(details)
            for detail in details:
                if detail.get("OutId") == question.ref:
                    status = str(detail.get("SendStatus"))
                    words = f"Alibaba Cloud lists it, status {status} {detail.get('ErrCode') or ''}".strip()
                    return Found(words=words, kind=_KINDS.get(status))
        if not is_over(question, now):
            return Unclear(words="Alibaba Cloud lists no such message yet")
        return Absent(words=f"Alibaba Cloud lists none of its {listed} messages to this number then with our OutId")

    def _details(self, address: str, day: str, now: datetime) -> list[dict[str, Any]] | Unclear:
        details: list[dict[str, Any]] = []
        for page in range(1, _PAGES + 1):
            fields = {
                "PhoneNumber": number_of(address),
                "SendDate": day,
                "PageSize": str(_PAGE_SIZE),
                "CurrentPage": str(page),
            }
            answer = self._get(rpc_request(self._gateway, "QuerySendDetails", fields, at=now, nonce=self._nonce()))
            if isinstance(answer, Unclear):
                return answer
            try:
                data = answer.json_object()
            except OutcomeUnknown as error:
                return Unclear(words=error.text)
            if data.get("Code") != "OK":
                return Unclear(words=f"Alibaba Cloud does not tell: {answer.excerpt}")
            rows, total = (data.get("SmsSendDetailDTOs") or {}).get("SmsSendDetailDTO"), data.get("TotalCount")
            if not isinstance(rows, list) or not str(total).isdigit():
                return Unclear(words=f"Alibaba Cloud's list cannot be read: {answer.excerpt}")
            details += rows
            if len(details) >= int(str(total)):
                return details
        return Unclear(words=f"Alibaba Cloud lists more than {len(details)} messages to this number on {day}")
