"""What adapters share that send one SMS by one HTTP request: the way there, and what an HTTP status means."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from kernel.errors import ConfigError, GatewayDown, OutcomeUnknown, PermanentError, TransientError
from kernel.fields import duration
from kernel.sms_providers import HttpWay
from templates.sms import ComposedSms
from workers.channels.port import Flight, Parcel, Receipt
from workers.http.client import Client
from workers.http.delivery import Delivery
from workers.http.exchange import Answer, NoAnswer, NotSent, Request


class SmsOverHttp(ABC):
    """A channel with up to `concurrency` requests under way at once, whatever chunks they belong to."""

    def __init__(self, way: HttpWay) -> None:
        self._client = Client(timeout_s=duration(way.timeout).total_seconds(), ca_file=way.ca_file)
        self._concurrency = way.concurrency
        self._seats = asyncio.Semaphore(way.concurrency)
        self._stragglers: set[asyncio.Task[None]] = set()

    def deliver(self, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]) -> frozenset[int]:
        """Send the parcels, many at once. See Channel.deliver."""
        return self._client.run(self._deliver(parcels, flight, keep_going))

    def close(self) -> None:
        """Close kept-alive connections."""
        self._client.close()

    async def _deliver(
        self, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]
    ) -> frozenset[int]:
        delivery = Delivery(self._send, parcels, flight, keep_going, self._seats, self._concurrency)
        left, tasks = await delivery.run()
        for task in tasks:
            self._stragglers.add(task)
            task.add_done_callback(self._stragglers.discard)
        return left

    async def _send(self, parcel: Parcel, commit: Callable[[], None]) -> Receipt:
        if not isinstance(parcel.content, ComposedSms):
            raise ConfigError("this gateway carries SMS only")
        return self._read(await self._ask(self._request(parcel.content, parcel.ref), commit))

    async def _ask(self, request: Request, commit: Callable[[], None]) -> Answer:
        """Send a request; translate what happens on the wire.

        Raises:
            GatewayDown: no connection could be had: nothing was sent.
            PermanentError: this message cannot be put into a request.
            TransientError: the connection ended before the whole request had left.
            OutcomeUnknown: the request left and no whole answer came back.
        """
        committed = False

        def before() -> None:
            nonlocal committed
            commit()
            committed = True

        try:
            return await self._client.ask(request, before)
        except NotSent as error:
            if committed:
                raise TransientError(str(error)) from error
            raise GatewayDown(f"cannot reach the gateway: {error}", lasting=error.lasting) from error
        except NoAnswer as error:
            raise OutcomeUnknown(str(error)) from error
        except ValueError as error:
            raise PermanentError(f"the gateway's request cannot be built: {error}") from error

    @abstractmethod
    def _request(self, content: ComposedSms, ref: str) -> Request:
        """Return the provider's request for one SMS; `ref` is our signed reference of it."""

    @abstractmethod
    def _read(self, answer: Answer) -> Receipt:
        """Return what the provider's answer means, or raise it as an error."""


def refuse_by_status(answer: Answer) -> None:
    """Raise what an HTTP status other than 2xx means."""
    status = answer.status
    if 200 <= status < 300:
        return
    if status in (429, 503):
        raise GatewayDown(f"busy: {answer.excerpt}", retry_after_s=answer.retry_after_s)
    if status in (401, 403, 404, 405, 407) or 300 <= status < 400:
        raise GatewayDown(f"refused: {answer.excerpt}", lasting=True)
    if status in (502, 504):
        # A proxy in between speaks: what stands behind it may have taken the message.
        raise OutcomeUnknown(f"gateway time-out: {answer.excerpt}", code=status)
    if status >= 500 or status in (408, 425):
        raise TransientError(answer.excerpt, code=status)
    raise PermanentError(answer.excerpt, code=status)
