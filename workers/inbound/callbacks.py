"""What every gateway's callback becomes, whatever its form: a receipt or an incoming SMS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from kernel.vocabulary import MessageEventKind

MAX_ITEMS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One callback as it came. `url` is the address the gateway was given, without its query."""

    url: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsReceipt:
    """What a gateway says became of a message. `kind` is None where it only says that it has the message.

    `ref` is our reference (a signed token), `gateway_id` the gateway's own id; either may be "". Where the gateway may
    spell its id in several ways, `spellings` has them all, likeliest first, and `number` whom the message went to.
    `opted_out`: it was not delivered because the person has told the gateway to stop.
    """

    ref: str
    gateway_id: str
    kind: MessageEventKind | None
    detail: str
    spellings: tuple[str, ...] = ()
    number: str = ""
    opted_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingSms:
    """An SMS somebody sent to us. `sender` is the number as the gateway writes it."""

    sender: str
    text: str


class CallbackError(ValueError):
    """A callback that cannot be read; the message says why."""


def fields_of(query: str) -> dict[str, str]:
    """Return the fields of a query or urlencoded form; of several the last."""
    return dict(parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=200))


def text_at(data: Mapping[str, Any], path: str) -> str:
    """Return the value at a dotted path, as "message.id", in words; "" where there is none."""
    if path in data:
        return _words(data[path])
    inner: Any = data
    for step in path.split("."):
        if isinstance(inner, list) and step.isdigit() and int(step) < len(inner):
            inner = inner[int(step)]
        elif isinstance(inner, Mapping):
            inner = inner.get(step)
        else:
            return ""
    return _words(inner)


def _words(value: Any) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value).strip()
