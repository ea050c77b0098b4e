"""Named places at which a process can be made to die, stop, fail or dawdle: every crash can be tried on purpose.

Off unless the environment says otherwise: `CARILLON_FAULTS="after_claim_commit:kill:3"` kills the process when it
passes that place for the third time. Several, separated by commas, may be named. The count is shared by a process
and the children it forks, so that a worker's replacement goes on counting and does not die of the same order again.

Source:
    etcd's gofail and PostgreSQL's injection points, which do the same for their own crash paths.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kernel.errors import CarillonError, ConfigError

VARIABLE = "CARILLON_FAULTS"


class FaultPoint(StrEnum):
    """Every place; each stands exactly once in the code, where its name says."""

    # A worker's chunk: claim, prepare, intend, send, record.
    BEFORE_CLAIM_COMMIT = "before_claim_commit"
    AFTER_CLAIM_COMMIT = "after_claim_commit"
    AFTER_RECORDER_CREATED = "after_recorder_created"
    AFTER_PREPARING = "after_preparing"
    BEFORE_SENDING_COMMIT = "before_sending_commit"
    AFTER_SENDING_COMMIT = "after_sending_commit"
    AFTER_DELIVERY = "after_delivery"
    BEFORE_OUTCOMES_COMMIT = "before_outcomes_commit"
    AFTER_OUTCOMES_COMMIT = "after_outcomes_commit"
    AFTER_RECORDER_REMOVED = "after_recorder_removed"
    BEFORE_LEASE_RENEWED = "before_lease_renewed"
    AFTER_LEASE_RENEWED = "after_lease_renewed"

    # One message of it.
    BEFORE_FLIGHT_COMMIT = "before_flight_commit"
    AFTER_FLIGHT_COMMIT = "after_flight_commit"
    BEFORE_ACCEPTED_RECORDED = "before_accepted_recorded"
    AFTER_ACCEPTED_RECORDED = "after_accepted_recorded"
    AFTER_REFUSED_RECORDED = "after_refused_recorded"
    AFTER_DEFERRED_RECORDED = "after_deferred_recorded"

    # Whoever takes over a chunk.
    BEFORE_FENCE_RAISED = "before_fence_raised"
    AFTER_FENCE_RAISED = "after_fence_raised"
    BEFORE_RECOVERY_COMMIT = "before_recovery_commit"
    AFTER_RECOVERY_COMMIT = "after_recovery_commit"
    BEFORE_BLIND_COMMIT = "before_blind_commit"

    # A scheduler: firing a run, writing its places, waking workers.
    BEFORE_RUN_INSERT = "before_run_insert"
    AFTER_RUN_INSERT = "after_run_insert"
    AFTER_ENROLLING = "after_enrolling"
    BEFORE_RUN_COMMIT = "before_run_commit"
    AFTER_RUN_COMMIT = "after_run_commit"
    BEFORE_PUBLISH = "before_publish"
    AFTER_PUBLISH = "after_publish"


class Action(StrEnum):
    """What happens at a place."""

    KILL = "kill"
    STOP = "stop"
    RAISE = "raise"
    EXIT = "exit"
    DELAY = "delay"


class InjectedFault(CarillonError):
    """The failure that `raise` orders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What shall happen at one place. `hit` counts from 1; None means every time."""

    point: FaultPoint
    action: Action
    hit: int | None
    delay_s: float = 0.0


class _Armed:
    """The orders of this process and its children, and how often each place was passed."""

    def __init__(self, orders: Mapping[FaultPoint, Order]) -> None:
        self._orders = orders
        self._numbers = {point: number for number, point in enumerate(orders)}
        # Anonymous and shared: a child forked later counts in the same memory.
        self._hits = mmap.mmap(-1, 8 * len(orders))

    def pass_by(self, point: FaultPoint) -> None:
        order = self._orders.get(point)
        if order is None:
            return
        place = 8 * self._numbers[point]
        hit = int.from_bytes(self._hits[place : place + 8], "little") + 1
        self._hits[place : place + 8] = hit.to_bytes(8, "little")
        if order.hit in (None, hit):
            _carry_out(order)


armed: _Armed | None = None
"""None unless orders were given. Places passed once a message ask it before they call `faultpoint`."""


def faultpoint(point: FaultPoint) -> None:
    """Do what was ordered for this place; nothing, at almost no cost, where nothing was."""
    if armed is not None:
        armed.pass_by(point)


def arm(environment: Mapping[str, str]) -> tuple[Order, ...]:
    """Take the orders from the environment, replacing earlier ones; returns them.

    Raises:
        ConfigError: an order is malformed or names no place.
    """
    global armed  # noqa: PLW0603 - one process, one set of orders; a lookup that is off must cost one comparison
    text = environment.get(VARIABLE, "").strip()
    orders = tuple(_read(order.strip()) for order in text.split(",")) if text else ()
    armed = _Armed({order.point: order for order in orders}) if orders else None
    return orders


def _read(text: str) -> Order:
    """Read `point:action[:hit]`, `hit` a number from 1 or `*`; and `delay=milliseconds`."""
    name, _, rest = text.partition(":")
    verb, _, count = rest.partition(":")
    verb, _, amount = verb.partition("=")
    if name not in list(FaultPoint):
        raise ConfigError(f"{VARIABLE}: no place is called {name!r}; there are {', '.join(FaultPoint)}")
    if verb not in list(Action) or bool(amount) != (verb == Action.DELAY) or not (amount or "0").isdecimal():
        raise ConfigError(f"{VARIABLE}: {text!r} orders none of kill, stop, raise, exit, delay=MILLISECONDS")
    if count not in ("", "*") and not (count.isdecimal() and int(count) > 0):
        raise ConfigError(f"{VARIABLE}: {text!r} must end in the number of the pass, from 1, or in *")
    hit = None if count == "*" else int(count or 1)
    return Order(point=FaultPoint(name), action=Action(verb), hit=hit, delay_s=int(amount or 0) / 1000)


def _carry_out(order: Order) -> None:
    # Said before it is done, past all buffers: nothing that was killed can say so afterwards.
    os.write(2, f"fault point {order.point}: {order.action}\n".encode())
    match order.action:
        case Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Action.EXIT:
            os._exit(70)
        case Action.DELAY:
            time.sleep(order.delay_s)
        case Action.RAISE:
            raise InjectedFault(f"{order.point}: failed on order of {VARIABLE}")
