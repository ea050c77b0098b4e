"""What the events of e-mail providers share: reading JSON, naming our message, telling the time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kernel.webhooks import REFERENCE
from workers.inbound.bounces import MESSAGE_ID, BounceReport, Clues, address_in
from workers.inbound.callbacks import CallbackError
from workers.inbound.statuses import BounceKind, classify, telling_code

MAX_EVENTS = 10_000
_VERP = re.compile(r"bounce\+([a-z2-7]{20,64})@", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A call as the door kept it; `headers` by lower-case name."""

    headers: Mapping[str, str]
    body: bytes
    received_at: datetime


def json_of(body: bytes) -> Any:
    """Return the JSON of a body.

    Raises:
        CallbackError: it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CallbackError(f"the body is no JSON ({error})") from error


def object_of(value: Any) -> Mapping[str, Any]:
    """Return a JSON object as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def text_of(value: Any) -> str:
    """Return a JSON text or number as text; "" for anything else."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def list_of(value: Any) -> Sequence[Any]:
    """Return a JSON list of bounded length; anything else as an empty one."""
    return value[:MAX_EVENTS] if isinstance(value, list) else ()


def instant_of(value: Any) -> datetime | None:
    """Return an instant given in seconds since 1970 or in ISO 8601; None where it is neither."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(str(value).strip())
    except (ValueError, OverflowError, OSError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def clues_of(*, reference: str = "", sender: str = "", message_id: str = "") -> Clues:
    """Return what tells which of our messages an event is about.

    Args:
        reference: The signed token that travelled in the provider's own header.
        sender: The envelope sender: our return address, which holds the same token.
        message_id: The Message-ID header, with or without brackets.
    """
    found = MESSAGE_ID.search(message_id if message_id.startswith("<") else f"<{message_id}>")
    return Clues(
        envelope_id=reference,
        address_tokens=tuple(token.lower() for token in _VERP.findall(sender[:400])),
        message_ids=((int(found[1]), found[2]),) if found else (),
    )


def reference_in(metadata: Any) -> str:
    """Return our reference among a provider's metadata; "" where it is not there."""
    return text_of(object_of(metadata).get(REFERENCE))


def report_of(
    kind: BounceKind, *, recipient: str, clues: Clues, at: Any, status: str = "", words: str = ""
) -> BounceReport:
    """Return an event as a report."""
    return BounceReport(
        kind=kind,
        recipient=address_in(recipient),
        status=telling_code(status, words),
        diagnostic=words,
        clues=clues,
        at=instant_of(at),
    )


def judged(status: str, words: str, otherwise: BounceKind) -> BounceKind:
    """Return what a failure's code says, by the table bounces are read by; without a telling code the provider's word.

    Careful where they differ: what the code calls policy is no dead address, whatever the provider makes of it.
    """
    return classify(status, words) if telling_code(status, words) else otherwise
