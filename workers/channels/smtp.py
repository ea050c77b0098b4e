"""SMTP by one connection that carries many messages; the stage of every failure decides what it means.

`smtplib` raises the same exception for a connection lost before the final dot (nothing was sent) and after it
(perhaps sent), so the dialogue is driven here command by command.

Source:
    RFC 5321 sections 4.2, 4.3.2, 4.5.3.2 and 6.1; RFC 3463 for enhanced codes; RFC 1047 for the final dot.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Sequence

from kernel.errors import ConfigError, GatewayDown, OutcomeUnknown, PermanentError, TransientError
from kernel.fields import duration
from kernel.gateways import SmtpGateway
from templates.mail import ComposedMail
from workers.channels.port import Flight, Parcel, Receipt, one_by_one

_ENHANCED = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})\b")
_SENDER_POLICY = frozenset({"5.7.26", "5.7.27", "5.7.29", "5.7.30", "5.7.32", "5.7.40", "5.7.509", "5.7.515"})
"""Codes that blame the sender's set-up (SPF, DKIM, DMARC, TLS), never the recipient. Source: Gmail and Microsoft."""
_LOST = (smtplib.SMTPServerDisconnected, OSError)
_FAREWELL_S = 2.0
"""How long a relay may take to answer QUIT."""


class SmtpChannel:
    """One relay. Not for several threads at once."""

    def __init__(self, gateway: SmtpGateway, *, local_hostname: str | None = None) -> None:
        self._gateway = gateway
        self._helo = gateway.helo or local_hostname
        self._connection: smtplib.SMTP | None = None
        self._carried = 0

    def deliver(self, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]) -> frozenset[int]:
        """Send the parcels over one connection, renewed after `messages_per_connection`. See Channel.deliver."""
        return one_by_one(self._send, parcels, flight, keep_going)

    def probe(self) -> str:
        """Connect, greet, encrypt and log in without sending; return the server's greeting. Raises GatewayDown."""
        connection = self._connected()
        greeting = (connection.ehlo_resp or connection.helo_resp or b"").split(b"\n")[0].decode("utf-8", "replace")
        self.close()
        return greeting

    def close(self) -> None:
        """QUIT; a failure here means nothing (RFC 5321: the messages have long been taken over).

        A relay that does not answer is not waited for: a worker told to stop would be killed over a farewell.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if connection.sock is not None:
                connection.sock.settimeout(_FAREWELL_S)
            connection.quit()
        except (smtplib.SMTPException, OSError):
            connection.close()

    def _send(self, parcel: Parcel, commit: Callable[[], None], _retract: Callable[[], None]) -> Receipt:
        content = parcel.content
        if not isinstance(content, ComposedMail):
            raise ConfigError("an SMTP gateway carries e-mail only")
        if self._carried >= self._gateway.messages_per_connection:
            self.close()
        reused = self._connection is not None
        connection = self._connected()
        self._carried += 1
        try:
            self._mail(connection, content)
        except _LOST as error:
            self._drop()
            if not reused:
                raise TransientError(f"connection lost at MAIL: {error}") from error
            # The server closed an idle connection: nothing was said yet, so a fresh one is free of charge.
            connection = self._connected()
            self._carried += 1
            self._before_data("MAIL", lambda: self._mail(connection, content))
        self._before_data("RCPT", lambda: self._rcpt(connection, content))
        self._before_data("DATA", lambda: self._data(connection))
        return self._body(connection, content, commit)

    def _mail(self, connection: smtplib.SMTP, content: ComposedMail) -> None:
        options = []
        if connection.does_esmtp:
            if connection.has_extn("size"):
                options.append(f"size={len(content.data)}")
            if connection.has_extn("8bitmime"):
                options.append("body=8bitmime")
            if content.needs_smtputf8:
                if not connection.has_extn("smtputf8"):
                    raise PermanentError(
                        "the relay does not offer SMTPUTF8, which this address needs", code=550, enhanced="5.6.7"
                    )
                options.append("smtputf8")
                connection.command_encoding = "utf-8"
        # Our own addresses are bare already; smtplib would parse each with the parser of header fields.
        code, reply = connection.docmd("mail", " ".join([f"FROM:<{content.envelope_from}>", *options]))
        if code == 250:
            return
        text, enhanced = _words(code, reply)
        if code == 552 or enhanced in ("5.3.4", "5.2.3"):
            self._reset(connection)
            raise PermanentError(text, code=code, enhanced=enhanced)
        self._drop()
        # Everything else at MAIL is about us or the host, not about this recipient.
        raise GatewayDown(f"MAIL refused: {text}", lasting=code >= 500)

    def _rcpt(self, connection: smtplib.SMTP, content: ComposedMail) -> None:
        code, reply = connection.docmd("rcpt", f"TO:<{content.envelope_to}>")
        if code not in (250, 251):
            self._refused(connection, "RCPT", code, reply)

    def _data(self, connection: smtplib.SMTP) -> None:
        connection.putcmd("data")
        code, reply = connection.getreply()
        if code != 354:
            self._refused(connection, "DATA", code, reply)

    def _before_data(self, stage: str, step: Callable[[], None]) -> None:
        """Run a step before the point of no return: a lost connection here means the message was not sent."""
        try:
            step()
        except smtplib.SMTPResponseException as error:
            self._drop()
            raise TransientError(f"unintelligible reply at {stage}: {error}") from error
        except _LOST as error:
            self._drop()
            raise TransientError(f"connection lost at {stage}: {error}") from error

    def _body(self, connection: smtplib.SMTP, content: ComposedMail, commit: Callable[[], None]) -> Receipt:
        try:
            connection.send(_dot_stuffed(content.data))
        except _LOST as error:
            self._drop()
            raise TransientError(f"connection lost in the body: {error}") from error
        try:
            commit()
        except BaseException:
            self._drop()  # Closing without the dot makes the server forget the message.
            raise
        try:
            if connection.sock is not None:
                connection.sock.settimeout(duration(self._gateway.final_timeout).total_seconds())
            connection.send(b".\r\n")
            code, reply = connection.getreply()
            if connection.sock is not None:
                connection.sock.settimeout(duration(self._gateway.timeout).total_seconds())
        except (smtplib.SMTPResponseException, *_LOST) as error:
            self._drop()
            raise OutcomeUnknown(f"no answer to the final dot: {error}") from error
        if 200 <= code < 300:
            return Receipt(reply=_words(code, reply)[0], code=code)
        self._refused(connection, "final dot", code, reply)
        raise AssertionError("unreachable")

    def _refused(self, connection: smtplib.SMTP, stage: str, code: int, reply: bytes) -> None:
        """Raise what a refusal means for this message or for the gateway."""
        text, enhanced = _words(code, reply)
        if code == 421:
            self._drop()
            raise GatewayDown(f"the relay closes the connection at {stage}: {text}")
        if code == -1:
            self._drop()
            if stage == "final dot":
                raise OutcomeUnknown(f"no readable answer to the final dot: {text}")
            raise TransientError(f"connection lost at {stage}")
        if enhanced in _SENDER_POLICY or code in (530, 534, 535):
            self._drop()
            raise GatewayDown(f"sender refused at {stage}: {text}", lasting=True)
        self._reset(connection)
        # 552 at RCPT means too many recipients, for which 452 was meant (RFC 5321 section 4.5.3.1.10).
        if 500 <= code < 600 and not (code == 552 and stage == "RCPT"):
            raise PermanentError(f"{stage}: {text}", code=code, enhanced=enhanced)
        if 400 <= code < 500 or code == 552:
            raise TransientError(f"{stage}: {text}", code=code, enhanced=enhanced)
        self._drop()
        raise TransientError(f"unexpected answer at {stage}: {text}", code=code)

    def _reset(self, connection: smtplib.SMTP) -> None:
        try:
            connection.rset()
        except (smtplib.SMTPException, OSError):
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> smtplib.SMTP:
        if self._connection is not None:
            return self._connection
        gateway = self._gateway
        where = f"{gateway.host}:{gateway.port}"
        try:
            self._connection = self._opened()
        except ssl.SSLError as error:
            raise GatewayDown(
                f"{where}: TLS failed: {error}", lasting=isinstance(error, ssl.SSLCertVerificationError)
            ) from error
        except smtplib.SMTPAuthenticationError as error:
            lasting = error.smtp_code >= 500
            raise GatewayDown(
                f"{where}: log-in refused: {_words(error.smtp_code, _raw(error.smtp_error))[0]}", lasting=lasting
            ) from error
        except smtplib.SMTPResponseException as error:
            raise GatewayDown(f"{where}: {_words(error.smtp_code, _raw(error.smtp_error))[0]}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise GatewayDown(f"{where}: {error}") from error
        self._carried = 0
        return self._connection

    def _opened(self) -> smtplib.SMTP:
        gateway = self._gateway
        timeout_s = duration(gateway.timeout).total_seconds()
        context = ssl.create_default_context(cafile=gateway.ca_file) if gateway.tls != "none" else None
        if gateway.tls == "implicit":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                gateway.host, gateway.port, local_hostname=self._helo, timeout=timeout_s, context=context
            )
        else:
            connection = smtplib.SMTP(gateway.host, gateway.port, local_hostname=self._helo, timeout=timeout_s)
        try:
            if connection.sock is not None and gateway.tls != "implicit":
                # The body and the final dot are two writes; without this the second waits for the first's ACK.
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.ehlo_or_helo_if_needed()
            if gateway.tls == "starttls":
                self._start_tls(connection, context)
            if gateway.username and gateway.password:
                connection.login(gateway.username, gateway.password.get_secret_value())
        except BaseException:
            connection.close()
            raise
        return connection

    def _start_tls(self, connection: smtplib.SMTP, context: ssl.SSLContext | None) -> None:
        if not connection.has_extn("starttls"):
            where = f"{self._gateway.host}:{self._gateway.port}"
            raise GatewayDown(f"{where} does not offer STARTTLS; nothing is sent in clear", lasting=True)
        connection.starttls(context=context)
        connection.ehlo_or_helo_if_needed()


def _dot_stuffed(data: bytes) -> bytes:
    """Return the body with leading dots doubled and exactly one line end at its end (RFC 5321 section 4.5.2)."""
    if data.startswith(b"."):
        data = b"." + data
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    return stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n"


def _words(code: int, reply: bytes) -> tuple[str, str]:
    text = reply.decode("utf-8", "replace").replace("\n", " ").replace("\x00", "")[:400]
    enhanced = _ENHANCED.match(text)
    return f"{code} {text}".strip(), enhanced[1] if enhanced else ""


def _raw(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
