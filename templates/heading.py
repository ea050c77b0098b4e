"""The fields of the head that all messages of a step share."""

from __future__ import annotations

import re

from kernel.settings import Sender
from templates.addresses import wire_address
from templates.headers import mailbox_field, raw_field

_LIST_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")


def step_fields(sender: Sender, campaign: str, list_id: str, *, transactional: bool) -> list[bytes]:
    """Return the fields every message of the step shares.

    Raises:
        ValueError: the sender or the list's id cannot stand in a message.
        TemplateProblem: an address is none.
    """
    fields = [mailbox_field("From", sender.name, wire_address(sender.email).text)]
    if sender.reply_to:
        fields.append(mailbox_field("Reply-To", "", wire_address(sender.reply_to).text))
    if transactional:
        fields.append(raw_field("Auto-Submitted", "auto-generated"))
    else:
        name = list_id.strip("<>")
        if not _LIST_ID.fullmatch(name):
            raise ValueError(f"{list_id!r} cannot be a List-Id; it looks like a domain name")
        fields += [raw_field("List-Id", f"<{name}>"), raw_field("Precedence", "bulk")]
    if sender.feedback_id:
        kind = "transactional" if transactional else "marketing"
        fields.append(raw_field("Feedback-ID", f"{campaign}::{kind}:{sender.feedback_id}"))
    fields.append(raw_field("X-Auto-Response-Suppress", "OOF, AutoReply"))
    return fields
