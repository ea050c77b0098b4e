"""What an incoming SMS says: stop, start, help, or something for people to read. Pure.

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
    HELP = "help"
    OTHER = "other"


_STOP = """
stop, stopall, stop all, unsubscribe, end, quit, cancel, revoke, optout, opt-out, opt out, remove, remove me
arret, arrêt, arreter, arrêter, désinscription, désabonner, stop sms
stopp, abmelden, abbestellen, austragen, keine sms
baja, alto, cancelar, darse de baja, parar, sair, remover
cancella, cancellami, disiscrivi, afmelden, uitschrijven, stopper, afmeld, avsluta, avregistrera, lopeta
rezygnuję, wypisz, стоп, отписаться, отписка, iptal
td, qx, 退订, 退訂, 拒收, 取消, 停止, 配信停止, 수신거부
"""
_START = """
start, unstop, yes, resume, subscribe, opt-in, optin, opt in
reprendre, anmelden, alta, старт
开始, 订阅, 訂閱, 恢复
"""
_HELP = "help, info, aide, hilfe, ayuda, aiuto, ajuda, помощь, 帮助, 幫助"

_TRIMMED = " \t\r\n.,!?;:'\"“”‘’«»()[]-–—_*…。"


def _folded(text: str) -> str:
    """Return a text as it is compared: width, case, spaces and punctuation around it do not matter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_TRIMMED)


def _words(table: str) -> frozenset[str]:
    return frozenset(_folded(word) for line in table.strip().splitlines() for word in line.split(","))


STOP_WORDS = _words(_STOP)
CHINESE_STOP_LETTERS = frozenset("rtn")
"""What Chinese texts ask people to answer; from anywhere else an N is the answer to a question."""
_CHINA = "+86"
START_WORDS = _words(_START)
HELP_WORDS = _words(_HELP)
_READINGS = {
    **dict.fromkeys(HELP_WORDS, Reply.HELP),
    **dict.fromkeys(START_WORDS, Reply.START),
    **dict.fromkeys(STOP_WORDS, Reply.STOP),
}


def reading_of(text: str, sender: str = "") -> Reply:
    """Return what an incoming SMS asks for; letter case, width and punctuation around the words do not matter.

    Args:
        text: The SMS.
        sender: Its number in E.164.
    """
    word = _folded(text)
    if word in CHINESE_STOP_LETTERS and sender.startswith(_CHINA):
        return Reply.STOP
    return _READINGS.get(word, Reply.OTHER)
