"""SMPP 3.4: many submit_sm in the window at once, each message's parts cut and joined by ourselves.

Source:
    SMPP 3.4 sections 2.7 (window), 4.4 (submit_sm), 5.2.12 (esm_class), 5.2.17 (registered_delivery), 5.2.19
    (data_coding), 7.1.1 (relative time); 3GPP TS 23.040 section 9.2.3.24.1 for the joining header.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from kernel.errors import ConfigError, GatewayDown
from kernel.fields import duration
from kernel.gateways import SmppGateway
from templates.sms import ComposedSms
from templates.sms_octets import octets_of
from templates.sms_parts import Encoding, split
from workers.channels.port import Flight, Parcel
from workers.smpp.addresses import destination_of, source_of
from workers.smpp.message_ids import kept_id
from workers.smpp.session import Keep, Session
from workers.smpp.statuses import Meaning, meaning_of, own_statuses
from workers.smpp.voyage import Message, Pace, Voyage

_JOINED = 0x40
"""esm_class: the short message begins with a user data header."""
_CODINGS = {Encoding.GSM7: 0x00, Encoding.UCS2: 0x08}
_FINAL_RECEIPT = 0x01
_MOST_LOSSES = 2
_FIRST_PAUSE_S = 0.25


class SmppChannel:
    """One SMSC. The session outlives chunks; not for several threads at once."""

    def __init__(self, gateway: SmppGateway, *, keep: Keep | None, first_pause_s: float = _FIRST_PAUSE_S) -> None:
        """Take a gateway.

        Args:
            gateway: The SMSC.
            keep: Given what the SMSC delivers; None binds as a transmitter and asks for no receipts.
            first_pause_s: How long the first word of throttling stops the lane; doubles with each in a row.
        """
        self.patience_s = duration(gateway.timeout).total_seconds()
        self.pace = Pace(gateway.window, first_pause_s)
        self._gateway = gateway
        self._keep = keep
        self._own_statuses = own_statuses(gateway.statuses)
        self._common = self._common_fields()
        self._session: Session | None = None
        self._drifting: dict[threading.Thread, Voyage] = {}

    def deliver(self, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]) -> frozenset[int]:
        """Send the parcels, as many at once as the window holds. See Channel.deliver.

        A lost connection leaves in doubt what was out unanswered, and is opened anew for the rest.
        """
        if parcels and self.adrift >= self._gateway.window:
            raise GatewayDown(f"the SMSC leaves {self.adrift} messages without an answer")
        voyage = Voyage(self, [self._message(parcel) for parcel in parcels], flight, keep_going)
        losses = 0
        while voyage.has_work():
            try:
                session = self._bound()
            except GatewayDown as error:
                voyage.abandon(error.text)
                raise
            lost = voyage.sail(session)
            if lost is not None:
                losses += 1
                if losses >= _MOST_LOSSES and voyage.has_work():
                    voyage.abandon(lost.reason)
                    raise GatewayDown(f"the SMSC drops its connections: {lost.reason}")
            else:
                self._set_adrift(voyage, session)
        if voyage.down is not None:
            raise voyage.down
        return voyage.stragglers()

    def probe(self) -> str:
        """Bind and unbind without sending; return what there is to say. Raises GatewayDown."""
        self._bound()
        self.close()
        return f"bound as {self._gateway.system_id}"

    def close(self) -> None:
        """Unbind; never raises. Stragglers are in doubt then, and have been told so when this returns."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
        for thread in list(self._drifting):
            thread.join(5)

    @property
    def adrift(self) -> int:
        """How many submit_sm of earlier chunks are still out."""
        return sum(len(voyage.stragglers()) for voyage in list(self._drifting.values()))

    def meaning(self, status: int) -> Meaning:
        """Return what a status other than ESME_ROK means; the gateway's own table goes first."""
        return meaning_of(status, self._own_statuses)

    def kept_id(self, given: str) -> str:
        """Return how the ledger keeps the SMSC's id of a message."""
        return kept_id(given, self._gateway.message_ids)

    def _set_adrift(self, voyage: Voyage, session: Session) -> None:
        """Go on waiting for the stragglers in a thread of their own."""
        if voyage.stragglers():
            thread = threading.Thread(target=self._drift, args=(voyage, session), name="smpp-stragglers", daemon=True)
            self._drifting[thread] = voyage
            thread.start()

    def _drift(self, voyage: Voyage, session: Session) -> None:
        try:
            voyage.drift(session)
        finally:
            self._drifting.pop(threading.current_thread(), None)

    def _bound(self) -> Session:
        if self._session is not None and self._session.lost is not None:
            self.close()
        if self._session is None:
            bind = self._gateway.bind if self._keep else "transmitter"
            session = Session(self._gateway, bind=bind, keep=self._keep)
            session.open()
            self._session = session
        return self._session

    def _common_fields(self) -> dict[str, Any]:
        gateway = self._gateway
        ton, npi, sender = source_of(gateway)
        return {
            "service_type": gateway.service_type,
            "source_addr_ton": ton,
            "source_addr_npi": npi,
            "source_addr": sender,
            "validity_period": relative_time(duration(gateway.validity).total_seconds()) if gateway.validity else "",
        }

    def _message(self, parcel: Parcel) -> Message:
        content = parcel.content
        if not isinstance(content, ComposedSms):
            raise ConfigError("an SMPP gateway carries SMS only")
        parts = split(content.text)
        ton, npi, number = destination_of(content.address)
        submits = [
            self._common
            | {
                "dest_addr_ton": ton,
                "dest_addr_npi": npi,
                "destination_addr": number,
                "esm_class": _JOINED if octets.header else 0,
                "data_coding": _CODINGS[parts.encoding],
                "short_message": octets.header + octets.body,
                "registered_delivery": 0,
            }
            for octets in octets_of(parts, parcel.message_id)
        ]
        if self._gateway.receipts and self._keep is not None:
            submits[-1]["registered_delivery"] = _FINAL_RECEIPT
        return Message(index=parcel.index, submits=submits)


def relative_time(seconds: float) -> str:
    """Return a validity period in the form "YYMMDDhhmmss000R", of at most 63 days as telephones' networks have it."""
    minutes, second = divmod(min(round(seconds), 63 * 86400), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    months, day = divmod(days, 30)
    return f"00{months:02}{day:02}{hour:02}{minute:02}{second:02}000R"
