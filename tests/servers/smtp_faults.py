"""What an SMTP server can do wrong at each stage, by name.

A fault is an action at a stage. For one message it is written in the local part, as `at.<stage>.<action>+<anything>@…`
(the sender's for MAIL, the recipient's for the others); for whole connections in `Sink.faults`.
"""

from __future__ import annotations

from enum import StrEnum

REPLIES = {
    "421": b"421 4.3.2 closing\r\n",
    "450": b"450 4.2.1 try later\r\n",
    "451": b"451 4.3.0 local error\r\n",
    "452": b"452 4.5.3 too many recipients\r\n",
    "550": b"550 5.1.1 no such user\r\n",
    "552": b"552 5.2.2 mailbox full\r\n",
    "552bare": b"552 too many recipients\r\n",
    "toobig": b"552 5.3.4 message too big\r\n",
    "554": b"554 5.6.0 no\r\n",
    "soft5": b"550 4.2.1 busy\r\n",
    "hard4": b"450 5.1.1 no such user\r\n",
    "policy": b"550 5.7.26 sender not authenticated\r\n",
    "policy4": b"451 4.7.26 sender not authenticated\r\n",
    "quota": b"452 4.3.1 quota used up\r\n",
    "account": b"550 5.4.5 daily sending quota exceeded\r\n",
    "454": b"454 Throttling failure: Maximum sending rate exceeded.\r\n",
    "threads": b"432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded\r\n",
    "530": b"530 5.7.0 authentication required\r\n",
    "535": b"535 5.7.8 bad credentials\r\n",
    "garbage": b"hello there\r\n",
    "nul": b"\x00\x00\x00 \r\n",
    "binary": bytes(range(256)) + b"\r\n",
    "long": b"250 " + b"a" * 100_000 + b"\r\n",
    "endless": b"250-" + b"\r\n250-".join([b"a" * 500] * 300) + b"\r\n250 ok\r\n",
    "mixed": b"250-yes\r\n550 no\r\n",
    "199": b"199 what\r\n",
}
"""Answers; `421` also closes the connection."""


class Stage(StrEnum):
    """Where the server may misbehave."""

    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    """While the body comes in."""
    DOT = "dot"
    """After the final dot, before the message is kept."""
    KEPT = "kept"
    """After the message is kept, before the answer."""
    QUIT = "quit"


def fault_of(address: str) -> tuple[str, str]:
    """Return the stage and the action an address asks for; two empty strings where it asks for none."""
    head, _, _ = address.partition("+")
    asked = head.split(".")
    return (asked[1], asked[2]) if len(asked) == 3 and asked[0] == "at" else ("", "")
