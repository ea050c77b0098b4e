"""Any SMS provider that speaks HTTP, described in carillon.yaml.

Values in the request may hold {to} {from} {text} {ref} {parts} {receipt_url}. The answer is read by the rules the
file gives. Once the body is under way the outcome is unknown until the provider has answered definitely.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from kernel.errors import OutcomeUnknown, PermanentError, TransientError
from kernel.gateways import HttpGateway
from templates.sms import ComposedSms
from workers.channels.over_http import SmsOverHttp, refuse_by_status
from workers.channels.port import Receipt
from workers.http.exchange import Answer, Request, basic, post_form, post_json, with_query

_COUNT = re.compile(r"[0-9]{1,3}")
"""Parts an SMS may come to; anything else is no count, and ours stands."""


class HttpChannel(SmsOverHttp):
    """One provider described in carillon.yaml."""

    def __init__(self, gateway: HttpGateway, *, receipt_url: str) -> None:
        super().__init__(gateway)
        self._gateway = gateway
        self._receipt_url = receipt_url
        self._log_in: dict[str, str] = {}
        if gateway.username and gateway.password:
            self._log_in = basic(gateway.username, gateway.password.get_secret_value())

    def _request(self, content: ComposedSms, ref: str) -> Request:
        gateway = self._gateway
        values = {
            "to": content.address,
            "from": gateway.sender,
            "text": content.text,
            "ref": ref,
            "parts": str(content.parts),
            "receipt_url": self._receipt_url,
        }
        headers = {name: fill(value.get_secret_value(), values) for name, value in gateway.headers.items()}
        headers |= self._log_in
        url = gateway.url
        if "{" in url:
            url = fill(url, {name: quote(value, safe="") for name, value in values.items()})
        url = with_query(url, fill(gateway.query, values))
        if gateway.json_body is not None:
            request = post_json(url, fill(gateway.json_body, values), headers)
        elif gateway.form is not None:
            request = post_form(url, fill(gateway.form, values), headers)
        else:
            request = Request(method=gateway.method, url=url, headers=headers)
        return replace(request, method=gateway.method)

    def _read(self, answer: Answer) -> Receipt:
        refuse_by_status(answer)
        reply = self._gateway.reply
        if reply.format == "text":
            status, data = answer.text.strip(), None
        else:
            data = answer.json()
            found = dig(data, reply.status) if reply.status else None
            if found is None and reply.accepted:
                raise OutcomeUnknown(f"answer has no {reply.status or 'status'}: {answer.excerpt}", code=answer.status)
            status = "" if found is None else str(found)
        if reply.accepted and status not in reply.accepted:
            if status in reply.transient:
                raise TransientError(f"status {status}: {answer.excerpt}", code=answer.status)
            if reply.format == "text" and any(status.startswith(word) for word in reply.accepted):
                return Receipt(reply=answer.excerpt, code=answer.status)
            raise PermanentError(f"status {status or 'missing'}: {answer.excerpt}", code=answer.status)
        gateway_id = dig(data, reply.gateway_id) if data is not None and reply.gateway_id else None
        parts = str(dig(data, reply.parts) if data is not None and reply.parts else "")
        return Receipt(
            reply=answer.excerpt,
            code=answer.status,
            gateway_id=None if gateway_id is None else str(gateway_id),
            parts=int(parts) or None if _COUNT.fullmatch(parts) else None,
        )


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """Return the value with {name} replaced in every string of it; other braces stay as they are."""
    if isinstance(value, str):
        for name, inner in values.items():
            value = value.replace("{" + name + "}", inner) if name != "text" else value
        return value.replace("{text}", values["text"])
    if isinstance(value, dict):
        return {key: fill(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, values) for inner in value]
    return value


def dig(data: Any, path: str) -> Any:
    """Return the value at a dotted path such as "messages.0.status"; None where there is none."""
    for step in path.split("."):
        if isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        elif isinstance(data, dict):
            data = data.get(step)
        else:
            return None
    return data
