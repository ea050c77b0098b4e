"""The one thread of a process in which all SMTP connections live."""

from __future__ import annotations

import asyncio
import os
import threading

import uvloop

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""The loop of this process, by its id: a child that was forked has its parent's entry, but not its thread."""


def shared_loop() -> asyncio.AbstractEventLoop:
    """Return this process's event loop, started in a thread of its own by whoever asks first."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            _loops.clear()
            loop = _loops[os.getpid()] = uvloop.new_event_loop()
            threading.Thread(target=_run, args=(loop,), name="smtp-engine", daemon=True).start()
        return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
