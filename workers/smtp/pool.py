"""The connections of one gateway, and the letters they share out among themselves.

All of it happens on the engine's thread. A timer looks after patience, four times a second, and only while there is
something to look after: nothing here costs a timer, a task or a future per letter.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError, TransientError
from workers.channels.port import Receipt
from workers.smtp.connection import Connection, Relay
from workers.smtp.dialling import Dial, connected
from workers.smtp.letters import Batch, Letter
from workers.smtp.meaning import Stage
from workers.smtp.queueing import Waiting
from workers.smtp.sizing import Sizing
from workers.smtp.suspicion import Blame, Suspicion

log = structlog.get_logger(__name__)

TICK_S = 0.25
LETTERS_PER_CONNECTION = 8
"""So many waiting letters are worth one more connection."""
SLOW_S = 1.0
"""A domain whose answer is awaited so long is slow."""
RELEASE_S = 2.0
"""A letter does not wait longer than this behind another's final dot."""
PATIENCE_S = 5.0
"""Once nothing else is left, stragglers are waited for so long."""
ABANDON_S = 10.0
"""After a batch was told to stop, answers before the final dot are waited for so long."""
IDLE_S = 20.0
CROWD = 8
"""So many connections at work make it worth while to let answers gather."""
GATHERING_S = 0.0002
"""How long answers gather, where fewer than half of the connections at work have one."""


class Pool:
    """One gateway's connections. Implements workers.smtp.connection.Owner."""

    def __init__(self, relay: Relay, dial: Dial, loop: asyncio.AbstractEventLoop) -> None:
        self._relay = relay
        self._dial = dial
        self._loop = loop
        self._sizing = Sizing(relay.connections)
        self._suspicion = Suspicion()
        self._waiting = Waiting()
        self._waiting.share = max(1, self._sizing.target // 2)
        self._connections: set[Connection] = set()
        self._idle: set[Connection] = set()
        self._openings: set[asyncio.Task[None]] = set()
        self._batches: set[Batch] = set()
        self._began_at: dict[Batch, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0
        """Readings since answers were last let gather."""
        self._shut = False
        self._all_gone = asyncio.Event()

    # --- for the caller's thread, by way of the loop ---------------------------------------------------------

    def submit(self, batch: Batch) -> None:
        """Take a batch; its `done` is set when it is decided, or only stragglers are left of it."""
        self._batches.add(batch)
        self._began_at[batch] = self._loop.time()
        self._waiting.add(batch)
        if self._shut:
            batch.fail(GatewayDown(f"{self._relay.where}: this process is closing its connections"))
        self._review(batch)
        self._wake()

    def stop(self, batch: Batch) -> None:
        """Begin no more of a batch's letters; those under way go on."""
        if batch.stopped_at is not None or batch not in self._batches:
            return
        now = batch.stopped_at = self._loop.time()
        if batch.waiting == len(batch.letters) and not self._working() and now - self._began_at[batch] >= PATIENCE_S:
            batch.fail(GatewayDown(f"{self._relay.where}: no connection within {now - self._began_at[batch]:.0f} s"))
        self._waiting.withdraw(batch)
        self._review(batch)

    async def probe(self) -> str:
        """Connect, greet, encrypt and log in without sending; return the server's greeting. Raises GatewayDown."""
        connection, offers = await connected(self._relay, self._dial, self)
        connection.say_goodbye()
        return offers.greeting

    async def shut(self) -> None:
        """End every connection: politely where nothing is under way; what is awaited stays unknown."""
        self._shut = True
        for task in list(self._openings):
            task.cancel()
        for batch in list(self._batches):
            self.stop(batch)
        for connection in list(self._connections):
            if connection in self._idle:
                connection.say_goodbye()
            else:
                connection.give_up("this process stops waiting")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connections:
            await self._all_gone.wait()

    # --- Owner -----------------------------------------------------------------------------------------------

    def take(self) -> Letter | None:
        """See Owner."""
        return self._waiting.take()

    def accepted(self, letter: Letter, receipt: Receipt) -> None:
        """See Owner."""
        batch = letter.batch
        batch.accepted(letter, receipt)
        self._waiting.free(letter)
        self._suspicion.cleared()
        if not self._sizing.full:
            self._grow()
        if not batch.left or batch.error is not None:
            self._review(batch)
        elif self._idle and self._waiting:
            self._wake()  # What had its share may have more now.

    def decided(self, letter: Letter, error: PermanentError | TransientError | OutcomeUnknown) -> None:
        """See Owner."""
        letter.batch.decided(letter, error)
        self._waiting.free(letter)
        self._review(letter.batch)

    def broken(self, reason: str) -> None:
        """See Owner."""
        if self._suspicion.lost():
            self._down(GatewayDown(f"{self._relay.where}: connections are lost again and again: {reason}"))

    def returned(self, letter: Letter) -> None:
        """See Owner."""
        self._waiting.free(letter)
        self._put_back(letter, first=True)

    def troubled(self, connection: Connection, letter: Letter, down: GatewayDown, *, closing: bool) -> None:
        """See Owner."""
        self._waiting.free(letter)
        if letter.batch not in self._batches:
            # A straggler that was not taken after all: its batch has gone on without it.
            letter.batch.decided(letter, TransientError(down.text))
            return
        if not closing or down.lasting:
            self._put_back(letter, first=True)
            self._down(down)
            return
        alive = len(self._working()) - (connection in self._working())
        blame = self._suspicion.closed(letter.key, others_live=alive > 0, others_wait=len(self._waiting) > 0)
        if blame is Blame.LETTER:
            letter.batch.decided(letter, TransientError(down.text))
            self._review(letter.batch)
            return
        self._put_back(letter, first=False)
        if blame is Blame.RELAY:
            self._down(down)
        elif alive:
            self._shrink(alive, down)

    def heard(self) -> None:
        """See Owner."""
        if not self._heard:
            self._loop.call_soon(self._gather)
        self._heard += 1

    def _gather(self) -> None:
        """Wait a moment for more answers, once all that were there have been handled and replied to.

        To be woken for each answer costs as much as all the rest of handling it: twice the processor's time a message,
        for us and for a relay on the same machine.
        """
        heard, self._heard = self._heard, 0
        at_work = len(self._connections) - len(self._idle)
        if at_work >= CROWD and heard * 2 < at_work:
            time.sleep(GATHERING_S)

    def idle(self, connection: Connection) -> None:
        """See Owner."""
        connection.straggling = False
        if connection.worn or self._shut or len(self._connections) > self._sizing.target:
            connection.say_goodbye()
            self._discard(connection)
        else:
            self._idle.add(connection)

    def gone(self, connection: Connection) -> None:
        """See Owner."""
        self._connections.discard(connection)
        self._idle.discard(connection)
        if not self._connections:
            self._all_gone.set()
        self._wake()

    # --- batches ---------------------------------------------------------------------------------------------

    def _put_back(self, letter: Letter, *, first: bool) -> None:
        batch = letter.batch
        batch.returned(letter)
        self._waiting.put_back(letter, first=first)
        if batch.error is not None or batch.stopped_at is not None:
            self._waiting.withdraw(batch)
            self._review(batch)

    def _review(self, batch: Batch) -> None:
        """End a batch that has nothing left to be done, and take back what a failed one has waiting."""
        if batch.error is not None:
            self._waiting.withdraw(batch)
        if not batch.left:
            self._end(batch)

    def _end(self, batch: Batch) -> None:
        self._batches.discard(batch)
        self._began_at.pop(batch, None)
        # Letters know their batch: without this, only the collector of garbage would ever drop a chunk's bodies.
        batch.letters.clear()
        batch.done.set()

    def _down(self, down: GatewayDown) -> None:
        """Tell every batch that the gateway refuses; what is under way elsewhere is still waited for."""
        for batch in list(self._batches):
            batch.fail(down)
            self._review(batch)

    # --- connections -----------------------------------------------------------------------------------------

    def _working(self) -> set[Connection]:
        """Return the connections that can be counted on for what waits."""
        return {connection for connection in self._connections if not (connection.closed or connection.straggling)}

    def _wake(self) -> None:
        """Put idle connections to work, and open as many more as the queue is worth and the relay bears."""
        if self._shut:
            return
        for connection in list(self._idle):
            if not self._waiting:
                break
            self._idle.discard(connection)
            if connection.closed:
                continue
            connection.begin()
        self._open_more()
        if self._timer is None and (self._batches or self._connections):
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def _open_more(self) -> None:
        if not self._waiting or self._shut:
            return
        now, working, opening = self._loop.time(), self._working(), len(self._openings)
        prompt = sum(now - connection.since < SLOW_S or connection in self._idle for connection in working)
        worth = -(-len(self._waiting) // LETTERS_PER_CONNECTION)
        room = min(
            worth - prompt, self._sizing.target - len(working), 2 * self._relay.connections - len(self._connections)
        )
        if not self._sizing.open(now):
            room = min(room, 1 - len(working))  # The relay wants a pause; one connection it will bear.
        for _ in range(room - opening):
            task = self._loop.create_task(self._open())
            self._openings.add(task)
            task.add_done_callback(self._openings.discard)

    def _grow(self) -> None:
        if self._sizing.succeeded(self._loop.time()):
            self._waiting.share = max(1, self._sizing.target // 2)
            self._open_more()

    def _shrink(self, alive: int, down: GatewayDown) -> None:
        log.info("relay_bears_fewer", relay=self._relay.where, connections=alive, reason=down.text)
        self._sizing.refused(alive, self._loop.time())
        self._waiting.share = max(1, self._sizing.target // 2)

    async def _open(self) -> None:
        try:
            connection, offers = await connected(self._relay, self._dial, self)
        except GatewayDown as down:
            alive = len(self._working())
            if alive:
                self._shrink(alive, down)  # The others carry on: nobody is told.
            elif len(self._openings) <= 1:
                self._down(down)
            return
        self._connections.add(connection)
        self._all_gone.clear()
        connection.carry(offers)
        if not connection.begin() and not connection.closed:
            self._idle.add(connection)
        if not self._sizing.full:
            self._grow()  # That it was let in is a success too.

    def _discard(self, connection: Connection) -> None:
        self._idle.discard(connection)
        self._connections.discard(connection)

    # --- patience --------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        slow: set[str] = set()
        try:
            for connection in list(self._connections):
                self._look_after(connection, now, slow)
            self._waiting.slow = slow
            for batch in list(self._batches):
                self._look_for_stragglers(batch, now)
        finally:
            self._wake()  # Which sets the next timer, whatever went wrong with one connection.

    def _look_after(self, connection: Connection, now: float, slow: set[str]) -> None:
        dialogue, silent_s = connection.dialogue, now - connection.since
        if dialogue is None or connection.closed:
            return
        if connection in self._idle:
            if silent_s >= IDLE_S or connection.worn:
                connection.say_goodbye()
                self._discard(connection)
            return
        letter = dialogue.flying or dialogue.letter
        patience_s = self._relay.final_timeout_s if dialogue.stage is Stage.DOT else self._relay.timeout_s
        if silent_s >= patience_s:
            dialogue.fail(f"no answer within {patience_s:g} s")
            return
        if letter is None:
            return
        if silent_s >= SLOW_S:
            slow.add(letter.domain)
        if dialogue.flying is not None and silent_s >= RELEASE_S:
            behind = dialogue.release()
            if behind is not None:
                self.returned(behind)
        stopped_at = letter.batch.stopped_at
        if dialogue.flying is None and stopped_at is not None and now - stopped_at >= ABANDON_S:
            dialogue.fail(f"no answer within {now - stopped_at:.0f} s, and the worker was told to stop")

    def _look_for_stragglers(self, batch: Batch, now: float) -> None:
        if batch.waiting:
            return
        awaited = [
            connection
            for connection in self._connections
            if connection.flying is not None
            and connection.flying.batch is batch
            and now - connection.since >= PATIENCE_S
        ]
        if len(awaited) < batch.left:
            return
        if batch.error is not None and not isinstance(batch.error, GatewayDown):
            # The chunk was taken away, or cannot be written to: nobody would be left to hear of these answers.
            for connection in awaited:
                connection.give_up("the chunk was taken away before the answer came")
            return
        for connection in awaited:
            connection.straggling = True
        batch.stragglers = frozenset(connection.flying.index for connection in awaited if connection.flying)
        self._end(batch)
