"""What an incoming SMS says: stop, start, or something for people to read. Pure.

Only a message that is one keyword and nothing else counts: "please don't stop" stops nothing.

Source:
    47 CFR 64.1200(a)(10) (stop, quit, end, revoke, opt out, cancel, unsubscribe); CTIA Messaging Principles; AWS and
    Twilio defaults (STOPALL, ARRET, REMOVE, TD); the Chinese platforms' R, T, TD, N, 退订, 拒收.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum


class Reply(StrEnum):
    STOP = "stop"
    START = "start"
    OTHER = "other"


STOP_WORDS = frozenset(
    {
        *(
            "stop",
            "stopall",
            "unsubscribe",
            "end",
            "quit",
            "cancel",
            "revoke",
            "optout",
            "opt-out",
            "opt out",
            "remove",
        ),
        *("arret", "arrêt", "stopp", "abmelden", "abbestellen", "baja", "alto", "cancelar", "parar", "sair"),
        *("cancella", "stopper", "afmelden", "avsluta", "стоп", "отписаться"),
        *("r", "t", "td", "n", "退订", "拒收", "退訂", "停止", "取消"),
    }
)
START_WORDS = frozenset({"start", "unstop", "yes", "开始", "订阅"})
_TRIMMED = " \t\r\n.,!?;:'\"“”‘’«»()[]-–—_*…。"


def reading_of(text: str) -> Reply:
    """Return what an incoming SMS asks for; letter case, width and punctuation around the word do not matter."""
    word = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_TRIMMED)
    if word in STOP_WORDS:
        return Reply.STOP
    return Reply.START if word in START_WORDS else Reply.OTHER
