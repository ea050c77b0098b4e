"""What an SMSC delivers: receipts, and SMS that people send. Kept raw, read later.

Source:
    SMPP 3.4 sections 4.6 (deliver_sm), 5.2.12 (esm_class), 5.2.19 (data_coding), 5.2.28 (message_state) and appendix B
    (the text of a receipt: "id:IIIIIIIIII sub:SSS dlvrd:DDD submit date:… done date:… stat:DDDDDDD err:E text:…").
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from kernel.clock import Clock, system_clock
from kernel.gateways import SmppGateway
from kernel.ids import digest
from kernel.vocabulary import MessageEventKind
from store.engine import writing
from store.inbox import gateway_source, put
from templates.sms_octets import from_gsm7
from workers.inbound.callbacks import CallbackError, IncomingSms, SmsReceipt
from workers.smpp.message_ids import spellings
from workers.smpp.pdus import HEADER_BYTES, Pdu, Unreadable, read

log = structlog.get_logger(__name__)

_RECEIPT_BITS = 0x3C
"""esm_class, bits 2 to 5: a receipt, an acknowledgement or a notification, not somebody's SMS."""
_HAS_HEADER = 0x40
_REPEAT_S = 600
"""An SMSC delivers again what we did not answer for in time. The same words later are said anew."""
_ID = re.compile(r"\bid:\s*(\S+)", re.IGNORECASE)
_STATE = re.compile(r"\bstat:\s*([A-Za-z]+)", re.IGNORECASE)
_ERROR = re.compile(r"\berr:\s*(\w+)", re.IGNORECASE)
_KINDS: dict[str, MessageEventKind | None] = {
    "ENROUTE": MessageEventKind.DELAYED,
    "DELIVRD": MessageEventKind.DELIVERED,
    "EXPIRED": MessageEventKind.UNDELIVERED,
    "DELETED": MessageEventKind.UNDELIVERED,
    "UNDELIV": MessageEventKind.UNDELIVERED,
    "ACCEPTD": None,  # somebody has read it for the telephone's owner, or the SMSC has it: vendors differ
    "UNKNOWN": None,
    "REJECTD": MessageEventKind.UNDELIVERED,
}
_WRITTEN_OUT = {
    "DELIVERED": "DELIVRD",
    "UNDELIVERED": "UNDELIV",
    "UNDELIVERABLE": "UNDELIV",
    "REJECTED": "REJECTD",
    "ACCEPTED": "ACCEPTD",
}
_STATES = {
    1: "ENROUTE",
    2: "DELIVRD",
    3: "EXPIRED",
    4: "DELETED",
    5: "UNDELIV",
    6: "ACCEPTD",
    7: "UNKNOWN",
    8: "REJECTD",
}
"""message_state, table 5-24, in the words of appendix B."""


class InboxKeeper:
    """Keeps what an SMSC delivers in the inbox; a session calls it before it answers."""

    def __init__(self, engine: Engine, gateway: str, *, clock: Clock = system_clock) -> None:
        self._engine = engine
        self._source = gateway_source(gateway)
        self._clock = clock

    def __call__(self, pdus: Sequence[bytes]) -> bool:
        """Keep whole PDUs for good; False where the database cannot now. A repeated one falls away."""
        at = self._clock()
        try:
            with writing(self._engine) as connection:
                for raw in pdus:
                    kind = "receipt" if is_receipt(read(raw)) else "inbound"
                    # The header goes uncounted: a repeat has a sequence number of its own.
                    put(
                        connection,
                        key=digest(self._source, kind, raw[HEADER_BYTES:], *_said_when(kind, at.timestamp())),
                        source=self._source,
                        body=raw,
                        meta={"kind": kind},
                        received_at=at,
                    )
        except SQLAlchemyError as error:
            log.error("smpp_not_kept", source=self._source, pdus=len(pdus), error=f"{type(error).__name__}: {error}")
            return False
        return True


def _said_when(kind: str, at: float) -> tuple[str, ...]:
    return (str(int(at // _REPEAT_S)),) if kind == "inbound" else ()


def is_receipt(pdu: Pdu) -> bool:
    """Tell whether a deliver_sm speaks of a message of ours."""
    return bool(pdu.number("esm_class") & _RECEIPT_BITS) or bool(pdu.octets("receipted_message_id"))


def read_receipts(gateway: SmppGateway, raw: bytes) -> list[SmsReceipt]:
    """Return what a receipt says. Fields of its own (TLV) go before its text.

    Raises:
        CallbackError: it names no message or no state.
    """
    pdu = _pdu(raw)
    # Plain ASCII by appendix B, whatever data_coding says: GSM's alphabet would turn an id's "_" into "§".
    text = _words(pdu).decode("latin-1")
    id_ = pdu.text("receipted_message_id") or _found(_ID, text)
    word = _found(_STATE, text).upper()
    state = _STATES.get(pdu.number("message_state")) or _WRITTEN_OUT.get(word, word)
    if not id_ or not state:
        raise CallbackError(f"a receipt without {'a state' if id_ else 'an id'}: {text[:100]!r}")
    if state not in _KINDS:
        raise CallbackError(f"state {state!r} is none of SMPP 3.4's")
    known_as = spellings(id_, gateway.message_ids)
    error = _found(_ERROR, text)
    return [
        SmsReceipt(
            ref="",
            gateway_id=known_as[0] if known_as else "",
            kind=_KINDS[state],
            detail=f"{state} err {error}" if error.strip("0") else state,
            spellings=known_as,
            number=pdu.text("source_addr"),
        )
    ]


def read_incoming(raw: bytes) -> list[IncomingSms]:
    """Return the SMS somebody sent."""
    pdu = _pdu(raw)
    return [IncomingSms(sender=pdu.text("source_addr"), text=text_of(pdu))]


def text_of(pdu: Pdu) -> str:
    """Return the words of a deliver_sm, without the header that joins parts."""
    octets = _words(pdu)
    coding = pdu.number("data_coding")
    if coding == 0x08:
        return octets.decode("utf-16-be", "replace")
    if coding in (0x01, 0x03):
        return octets.decode("latin-1")
    return from_gsm7(octets) if coding == 0x00 or coding >= 0xF0 else octets.decode("utf-8", "replace")


def _words(pdu: Pdu) -> bytes:
    octets = pdu.octets("short_message") or pdu.octets("message_payload")
    return octets[octets[0] + 1 :] if octets and pdu.number("esm_class") & _HAS_HEADER else octets


def _pdu(raw: bytes) -> Pdu:
    try:
        return read(raw)
    except Unreadable as error:
        raise CallbackError(str(error)) from error


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
