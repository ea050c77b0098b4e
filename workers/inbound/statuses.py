"""What a refusal means for the person: from the enhanced status code where it says something, else from its words.

Pure. Careful in one direction: only what clearly says "there is no such person" is a hard bounce, because a hard bounce
is for ever. Refusals for what the sender or the message is (5.7.x, spam, size) are `blocked` and blame nobody.
"""

from __future__ import annotations

import re
from enum import StrEnum


class BounceKind(StrEnum):
    """What a piece of returned mail says. `notice`: true, and nothing to do."""

    HARD = "hard"
    SOFT = "soft"
    FULL = "full"
    BLOCKED = "blocked"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    COMPLAINT = "complaint"
    UNSUBSCRIBED = "unsubscribed"
    AUTO_REPLY = "auto_reply"
    NOTICE = "notice"
    UNCLASSIFIED = "unclassified"


ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?!\.?\d)")

_BY_CODE: dict[str, BounceKind] = {
    "5.1.1": BounceKind.HARD,  # bad destination mailbox
    "5.1.2": BounceKind.HARD,  # bad destination system
    "5.1.3": BounceKind.HARD,  # bad destination syntax
    "5.1.6": BounceKind.HARD,  # mailbox has moved, no forwarding
    "5.1.10": BounceKind.HARD,  # null MX (RFC 7505)
    "5.2.1": BounceKind.HARD,  # mailbox disabled
    "5.2.2": BounceKind.FULL,  # mailbox full
    "5.1.7": BounceKind.BLOCKED,  # the sender's address
    "5.1.8": BounceKind.BLOCKED,  # the sender's domain
    "5.2.3": BounceKind.BLOCKED,  # longer than the recipient allows
    "5.3.4": BounceKind.BLOCKED,  # too big for the system
}
_BY_CLASS: dict[str, BounceKind] = {
    "6": BounceKind.BLOCKED,  # content and conversion
    "7": BounceKind.BLOCKED,  # policy, authentication, reputation
}
"""By the second number. All else failed for reasons that may pass: soft. Source: RFC 3463 section 3, RFC 7504, 7505."""

_WEAK = re.compile(r"\d\.0\.0|5\.1\.0|5\.5\.0")
"""Codes that say no more than "it failed"; Outlook.com's "5.5.0 mailbox unavailable" is an unknown user."""

_SENDER = re.compile(r"sender|mail from|return.path", re.IGNORECASE)
"""5.1.0 says "an address"; where the words speak of the sender, it is not the recipient's."""

_POLICY = re.compile(
    r"spam|blocked|black ?list|block ?list|deny ?list|\brbl\b|reputation|policy|\bspf\b|\bdkim\b|\bdmarc\b|unsolicited"
    r"|suspicious|virus|malware|access denied|not authori[sz]ed|not permitted|relay(ing)? denied|too many|rate limit"
    r"|垃圾邮件|黑名单|拒绝接收|拒收|频率|限制|反垃圾",
    re.IGNORECASE,
)
_QQ_EITHER = re.compile(r"mailbox unavailable or access denied", re.IGNORECASE)
"""What QQ's servers say of either; their mail says in Chinese which it is."""
_FULL = re.compile(
    r"over ?quota|quota (is )?(exceeded|full)|exceed\w*[^.\n]{0,40}quota|(mailbox|inbox)[^.\n]{0,30}\b(full|exceeded)"
    r"|insufficient (system )?storage|not enough (disk )?space|邮箱(空间)?已?满|空间不足|容量(已满|不足|超)",
    re.IGNORECASE,
)
_NOBODY = re.compile(
    r"user unknown|unknown (user|recipient|mailbox|local.part)|no such (user|mailbox|recipient|account|address|person)"
    r"|no mailbox (here )?by that name|invalid (recipient|mailbox|user)|unrouteable address|mailbox unavailable"
    r"|(recipient|user|account|mailbox|address|e-?mail account)\b[^.\n]{0,60}"
    r"(does ?n[o']t exist|not exist|was ?n[o']t found|not found|unknown|is disabled|has been (disabled|deleted))"
    r"|(用户|收件人|邮箱|帐号|账号|账户|地址)(地址|邮箱)?([\uff08(][^\uff09)\n]{3,80}[\uff09)])?不存在|不存在(该|此|的)?(用户|邮箱|收件人)"
    r"|无此(用户|人|邮箱)|查无此",
    re.IGNORECASE,
)


def classify(status: str, words: str) -> BounceKind:
    """Return what a definite failure means, from its status code (or "") and the other side's words.

    Where neither tells, it is soft: it failed, and nobody is to blame.
    """
    code = telling_code(status, words)
    if code and not _WEAK.fullmatch(code):
        permanent = f"5{code[1:]}"
        exact = _BY_CODE.get(code) or (
            _BY_CODE.get(permanent) if _BY_CODE.get(permanent) is not BounceKind.HARD else None
        )
        return exact or _BY_CLASS.get(code.split(".")[1], BounceKind.SOFT)
    by_words = classify_words(words)
    if by_words is not None:
        return by_words
    return BounceKind.HARD if code == "5.1.0" and not _SENDER.search(words) else BounceKind.SOFT


def classify_words(words: str) -> BounceKind | None:
    """Return what the words alone say; None where they say nothing we know."""
    words = _QQ_EITHER.sub(" ", words)
    if _POLICY.search(words):
        return BounceKind.BLOCKED
    if _FULL.search(words):
        return BounceKind.FULL
    if _NOBODY.search(words):
        return BounceKind.HARD
    return None


def telling_code(status: str, words: str) -> str:
    """Return the status code that says most: the given one, or one in the words where the given one is weak."""
    given = ENHANCED.search(status)
    if given and not _WEAK.fullmatch(given[1]):
        return given[1]
    found: list[str] = ENHANCED.findall(words)
    telling = next((code for code in found if not _WEAK.fullmatch(code)), None)
    return telling or (given[1] if given else found[0] if found else "")
