"""From a relay's name to a connection that takes MAIL: one address after another, and every failure a GatewayDown.

Source:
    RFC 5321 section 5.1 (each address is tried in order); Postfix's smtp_mx_address_limit, which is 5 too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

from kernel.errors import GatewayDown
from workers.smtp.connection import Connection, Owner, Relay
from workers.smtp.handshake import Terms
from workers.smtp.logins import LoginRefused
from workers.smtp.offers import Offers

CONNECT_S = 30.0
"""Patience with a look-up, and with a connection to one address. Source: Postfix's smtp_connect_timeout."""
_MOST_ADDRESSES = 5

Dial = Callable[[bool], Awaitable[Terms]]
"""Returns the terms of a new connection; True asks for a secret other than the one last refused."""
Address = tuple[str, int]


async def connected(relay: Relay, dial: Dial, owner: Owner) -> tuple[Connection, Offers]:
    """Return a connection that takes MAIL, with what the server offers.

    Raises:
        GatewayDown: no address answers, or the server refuses; names the relay.
    """
    try:
        terms = await dial(False)
        addresses = await _addresses(relay)
        try:
            return await introduced(relay, terms, owner, addresses)
        except LoginRefused:
            if not relay.renewable:
                raise
            return await introduced(relay, await dial(True), owner, addresses)
    except GatewayDown as down:
        raise GatewayDown(f"{relay.where}: {down.text}", lasting=down.lasting) from down


async def introduced(
    relay: Relay, terms: Terms, owner: Owner, addresses: Sequence[Address]
) -> tuple[Connection, Offers]:
    """Connect to the first address that answers, and do the handshake there. Raises GatewayDown."""
    failure = GatewayDown("the name has no address")
    for address in addresses:
        connection = Connection(relay, owner, asyncio.get_running_loop().time)
        try:
            await _reached(relay, terms, connection, address)
        except (TimeoutError, OSError) as error:
            connection.hang_up()
            failure = _down(relay, error)
            if isinstance(error, ssl.SSLError):
                break  # Somebody answers there: another address would be a way around the certificate.
            continue
        try:
            return connection, await connection.greet(terms)
        except BaseException as error:
            connection.hang_up()
            if isinstance(error, OSError):
                raise _down(relay, error) from error
            raise
    raise failure


async def _addresses(relay: Relay) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(min(CONNECT_S, relay.timeout_s)):
            found = await loop.getaddrinfo(relay.host, relay.port, type=socket.SOCK_STREAM)
    except (TimeoutError, OSError) as error:
        raise GatewayDown(f"the name cannot be looked up: {error or 'no answer'}") from error
    return list(dict.fromkeys((str(address[0]), relay.port) for *_, address in found))[:_MOST_ADDRESSES]


async def _reached(relay: Relay, terms: Terms, connection: Connection, address: Address) -> None:
    implicit = terms.tls == "implicit"
    async with asyncio.timeout(min(CONNECT_S, relay.timeout_s)):
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            *address,
            ssl=relay.context if implicit else None,
            server_hostname=relay.host if implicit else None,
        )


def _down(relay: Relay, error: OSError) -> GatewayDown:
    match error:
        case ssl.SSLError():
            return GatewayDown(f"TLS failed: {error}", lasting=isinstance(error, ssl.SSLCertVerificationError))
        case TimeoutError() if not str(error):
            return GatewayDown(f"no connection within {min(CONNECT_S, relay.timeout_s):g} s")
        case _:
            return GatewayDown(str(error) or type(error).__name__)
