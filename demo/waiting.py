"""What the demo waits for: conditions in the database, with a line that tells how far things are."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import Engine

from demo.commands import DemoFailed
from demo.customers import Customers
from demo.facts import UnderWay, fired, under_way
from demo.show import Show
from kernel.clock import system_clock

_SOON = timedelta(seconds=25)
"""Messages due within this are waited for: the SMS of the win-back, and what servers have put off."""
_FIRING_PATIENCE_S = 75.0
_QUIET_PATIENCE_S = 90.0
_QUIET_LOOKS = 4


class Waiting:
    """Waits for campaigns to fire and for things to come to rest; raises DemoFailed where they do not."""

    def __init__(self, engine: Engine, show: Show) -> None:
        self._engine = engine
        self._show = show

    def for_first_wave(self, campaigns: Collection[str]) -> None:
        """Wait until these campaigns have fired and no message is due.

        The ledger learns of whole chunks at a time, and a click on a message that it does not yet know as accepted
        cannot be told from a machine's.
        """

        def done() -> bool:
            return fired(self._engine) >= set(campaigns) and not self._state().due

        if not self._show.wait(done, self._telling_of_firing, patience_s=_FIRING_PATIENCE_S):
            raise DemoFailed(
                f"the first e-mails have not left after {_FIRING_PATIENCE_S:.0f} s ({self._telling_of_firing()})"
            )

    def for_firing(self, campaigns: Collection[str]) -> None:
        """Wait until these campaigns have fired."""

        def done() -> bool:
            return fired(self._engine) >= set(campaigns)

        if not self._show.wait(done, self._telling_of_firing, patience_s=_FIRING_PATIENCE_S):
            raise DemoFailed(
                f"not every campaign has fired after {_FIRING_PATIENCE_S:.0f} s ({self._telling_of_firing()})"
            )

    def for_quiet(self, customers: Customers) -> None:
        """Wait until nothing is due or due soon, all that came back is read, and customers have nothing to do."""
        quiet_looks = 0

        def done() -> bool:
            nonlocal quiet_looks
            now = self._state()
            quiet = not (now.due or now.soon or now.inbox) and customers.idle()
            quiet_looks = quiet_looks + 1 if quiet else 0
            return quiet_looks >= _QUIET_LOOKS

        def telling() -> str:
            now = self._state()
            acts = sum(customers.done.values())
            return (
                f"accepted {now.accepted:,} · due {now.due:,} · due soon {now.soon:,} · due later {now.later:,}"
                f" · simulated acts {acts:,} · unread reports {now.inbox:,}"
            )

        if not self._show.wait(done, telling, patience_s=_QUIET_PATIENCE_S):
            raise DemoFailed(f"things have not come to rest after {_QUIET_PATIENCE_S:.0f} s ({telling()})")

    def _state(self) -> UnderWay:
        return under_way(self._engine, now=system_clock(), soon=_SOON)

    def _telling_of_firing(self) -> str:
        now = self._state()
        names = ", ".join(sorted(fired(self._engine))) or "none yet"
        return f"fired: {names}; accepted by the gateways: {now.accepted:,}; due: {now.due:,}"
