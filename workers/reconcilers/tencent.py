"""Asking Tencent Cloud by PullSmsSendStatusByPhoneNumber for our SessionContext.

Only messages that already have a receipt are listed, and the SessionContext only for accounts that have asked Tencent
for it. So a message can be found this way, and its absence never proves anything.

Source:
    Tencent Cloud SMS, "PullSmsSendStatusByPhoneNumber" (2021-01-11).
"""

from __future__ import annotations

from datetime import datetime

from kernel.errors import OutcomeUnknown
from kernel.sms_providers import TencentGateway
from kernel.vocabulary import MessageEventKind
from workers.channels.tencent import response_of, tc3_request
from workers.reconcilers.port import Finding, Found, Listing, Question, Unclear

_KINDS = {"SUCCESS": MessageEventKind.DELIVERED, "FAIL": MessageEventKind.UNDELIVERED}


class TencentReconciler(Listing):
    """One secret with one application."""

    def __init__(self, gateway: TencentGateway) -> None:
        super().__init__(gateway)
        self._gateway = gateway

    def ask(self, question: Question, *, now: datetime) -> Finding:
        """See Reconciler.ask."""
        begins, _ = self._window(question)
        body = {
            "BeginTime": int(begins.timestamp()),
            "EndTime": int(now.timestamp()),
            "Offset": 0,
            "Limit": 100,
            "PhoneNumber": question.address,
            "SmsSdkAppId": self._gateway.app_id,
        }
        answer = self._get(tc3_request(self._gateway, "PullSmsSendStatusByPhoneNumber", body, at=now))
        if isinstance(answer, Unclear):
            return answer
        try:
            data = response_of(answer)
        except OutcomeUnknown as error:
            return Unclear(words=error.text)
        statuses = data.get("PullSmsSendStatusSet")
        if not isinstance(statuses, list):
            return Unclear(words=f"Tencent Cloud does not tell: {answer.excerpt}")
        for status in statuses:
            if isinstance(status, dict) and status.get("SessionContext") == question.ref:
                serial, report = status.get("SerialNo"), str(status.get("ReportStatus"))
                return Found(
                    words=f"Tencent Cloud lists it as {serial}, {report} {status.get('Description') or ''}".strip(),
                    gateway_id=str(serial) if serial else None,
                    kind=_KINDS.get(report),
                )
        return Unclear(words="Tencent Cloud lists no receipt of it")
