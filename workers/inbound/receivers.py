"""Binds that only listen: replies by SMPP reach us at any hour, not just while a worker has something to send."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import structlog
from sqlalchemy import Engine

from kernel.errors import GatewayDown
from kernel.gateways import SmppGateway
from kernel.settings import Settings, Workspace
from workers.inbound.smpp import InboxKeeper
from workers.smpp.session import Keep, Session

log = structlog.get_logger(__name__)

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0


class SmppReceiver:
    """Keeps one bind_receiver up, in a thread of its own; a context manager."""

    def __init__(self, name: str, gateway: SmppGateway, keep: Keep, *, first_wait_s: float = _FIRST_WAIT_S) -> None:
        self._name = name
        self._gateway = gateway
        self._keep = keep
        self._first_wait_s = first_wait_s
        self._stop = threading.Event()
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._run, name=f"smpp-receiver-{name}", daemon=True)

    def __enter__(self) -> SmppReceiver:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        session = self._session
        if session is not None:
            session.close()
        self._thread.join(15)

    def _run(self) -> None:
        wait_s = self._first_wait_s
        while not self._stop.is_set():
            try:
                self._listen()
            except GatewayDown as error:
                log.error("smpp_receiver_down", gateway=self._name, reason=error.text, seconds=wait_s)
                self._stop.wait(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
            else:
                wait_s = self._first_wait_s
                self._stop.wait(wait_s)

    def _listen(self) -> None:
        """Bind and stay until the session is over."""
        session = Session(self._gateway, bind="receiver", keep=self._keep)
        session.open()
        self._session = session
        log.info("smpp_receiver_bound", gateway=self._name)
        if not self._stop.is_set():
            log.warning("smpp_receiver_lost", gateway=self._name, reason=session.wait_until_lost())
        self._session = None
        session.close()


def smpp_receivers(settings: Settings) -> dict[str, SmppGateway]:
    """Return the gateways `carillon inbound` binds to."""
    return {
        name: gateway
        for name, gateway in settings.gateways.items()
        if isinstance(gateway, SmppGateway) and gateway.receiver
    }


@contextmanager
def receiving(workspace: Workspace, engine: Engine) -> Iterator[None]:
    """Listen at every SMSC for as long as the block lasts."""
    with ExitStack() as stack:
        for name, gateway in smpp_receivers(workspace.settings).items():
            stack.enter_context(SmppReceiver(name, gateway, InboxKeeper(engine, name)))
        yield
