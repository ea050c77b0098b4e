"""Callbacks of a generic HTTP gateway, read by the field names carillon.yaml gives (`receipt:`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from kernel.gateways import HttpReceipt
from kernel.vocabulary import MessageEventKind
from workers.inbound.callbacks import MAX_ITEMS, CallbackError, IncomingSms, SmsReceipt, fields_of, text_at


def read_receipts(rules: HttpReceipt, query: str, content_type: str, body: bytes) -> list[SmsReceipt]:
    """Return the receipts of one callback: one object, or a list of them.

    Raises:
        CallbackError: the body cannot be read.
    """
    delivered = {word.lower() for word in rules.delivered}
    undelivered = {word.lower() for word in rules.undelivered}
    receipts = []
    for item in items_of(query, content_type, body):
        status = text_at(item, rules.status)
        kind = None
        if status.lower() in delivered:
            kind = MessageEventKind.DELIVERED
        elif status.lower() in undelivered:
            kind = MessageEventKind.UNDELIVERED
        receipts.append(
            SmsReceipt(
                ref=text_at(item, rules.message), gateway_id=text_at(item, rules.gateway_id), kind=kind, detail=status
            )
        )
    return receipts


def read_incoming(rules: HttpReceipt, query: str, content_type: str, body: bytes) -> list[IncomingSms]:
    """Return the incoming SMS of one callback.

    Raises:
        CallbackError: the body cannot be read.
    """
    return [
        IncomingSms(sender=text_at(item, rules.sender), text=text_at(item, rules.text))
        for item in items_of(query, content_type, body)
    ]


def items_of(query: str, content_type: str, body: bytes) -> list[Mapping[str, Any]]:
    """Return what a callback holds, whatever its form: one object, or a list of them, each with the query's fields.

    Raises:
        CallbackError: the body is neither a form nor JSON of that shape.
    """
    given = fields_of(query)
    kind = content_type.partition(";")[0].strip().lower()
    if not body.strip():
        return [given]
    if kind == "application/x-www-form-urlencoded":
        return [{**given, **fields_of(body.decode("utf-8", "replace"))}]
    if kind == "multipart/form-data":
        return [{**given, **_multipart(content_type, body)}]
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CallbackError(f"the body is neither a form nor JSON ({error})") from error
    items = data if isinstance(data, list) else [data]
    if len(items) > MAX_ITEMS or not all(isinstance(item, dict) for item in items):
        raise CallbackError(f"the body is not a JSON object or a list of at most {MAX_ITEMS} objects")
    return [{**given, **item} for item in items]


def _multipart(content_type: str, body: bytes) -> dict[str, str]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    fields = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode("utf-8", "replace").strip()
    return fields
