"""SMTP gateways: a chunk is handed to the engine, which carries it over many pipelined connections at once."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as Late
from dataclasses import replace

from kernel.errors import ConfigError, GatewayDown
from kernel.fields import duration
from kernel.gateways import SmtpGateway
from templates.headers import raw_field
from templates.mail import ComposedMail
from workers.channels.port import Flight, Parcel
from workers.smtp.connection import Relay
from workers.smtp.engine import shared_loop
from workers.smtp.handshake import Terms
from workers.smtp.letters import Batch
from workers.smtp.pool import Pool
from workers.smtp.tokens import Credentials

_POLL_S = 0.05
"""How often `keep_going` is asked: by the clock, not by the message."""
_FAREWELL_S = 2.0
"""How long closing may take."""


class SmtpChannel:
    """One relay."""

    def __init__(self, gateway: SmtpGateway, *, local_hostname: str | None = None) -> None:
        self._gateway = gateway
        self._helo = gateway.helo or local_hostname
        self._pool: Pool | None = None

    def deliver(self, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]) -> frozenset[int]:
        """Send the parcels over as many connections as they are worth and the relay bears. See Channel.deliver."""
        letters = [(parcel, self._labelled(parcel)) for parcel in parcels]
        if not letters or not keep_going():
            return frozenset()
        batch, pool, loop = Batch(letters, flight), self._opened(), shared_loop()
        loop.call_soon_threadsafe(pool.submit, batch)
        try:
            while not batch.done.wait(_POLL_S) and keep_going():
                pass
        finally:
            # Also when something breaks into the waiting: nothing that waits may leave behind the caller's back.
            loop.call_soon_threadsafe(pool.stop, batch)
        batch.done.wait()
        # A gateway that is down says "what is unmentioned was not sent", which is not so while answers are awaited;
        # it will be found down again soon enough.
        if batch.error is not None and not (batch.stragglers and isinstance(batch.error, GatewayDown)):
            raise batch.error
        return batch.stragglers

    def probe(self) -> str:
        """Connect, greet, encrypt and log in without sending; return the server's greeting. Raises GatewayDown."""
        return asyncio.run_coroutine_threadsafe(self._opened().probe(), shared_loop()).result()

    def close(self) -> None:
        """QUIT, and wait for no answer; a failure here means nothing (the messages have long been taken over)."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        closing = asyncio.run_coroutine_threadsafe(pool.shut(), shared_loop())
        try:
            closing.result(_FAREWELL_S)
        except Late:
            closing.cancel()

    def _labelled(self, parcel: Parcel) -> ComposedMail:
        """Return the mail, with our reference in the provider's own header where it is to report events.

        The field stands above everything that is signed, and the provider takes it off.
        """
        mail, webhook = _mail(parcel), self._gateway.webhook
        if webhook is None:
            return mail
        fields = b"".join(raw_field(name, value) for name, value in webhook.fields(parcel.ref))
        return replace(mail, data=fields + mail.data)

    def _opened(self) -> Pool:
        if self._pool is None:
            gateway, credentials = self._gateway, Credentials(self._gateway)
            helo = self._helo or socket.getfqdn()

            async def dial(fresh: bool) -> Terms:
                return Terms(helo=helo, tls=gateway.tls, login=await credentials.login(fresh=fresh))

            self._pool = Pool(_relay(gateway, renewable=credentials.renewable), dial, shared_loop())
        return self._pool


def _mail(parcel: Parcel) -> ComposedMail:
    if not isinstance(parcel.content, ComposedMail):
        raise ConfigError("an SMTP gateway carries e-mail only")
    return parcel.content


def _relay(gateway: SmtpGateway, *, renewable: bool) -> Relay:
    return Relay(
        host=gateway.host,
        port=gateway.port,
        context=None if gateway.tls == "none" else ssl.create_default_context(cafile=gateway.ca_file),
        timeout_s=duration(gateway.timeout).total_seconds(),
        final_timeout_s=duration(gateway.final_timeout).total_seconds(),
        messages_per_connection=gateway.messages_per_connection,
        connections=gateway.connections,
        dsn=gateway.dsn,
        renewable=renewable,
    )
