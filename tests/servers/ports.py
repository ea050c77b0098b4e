"""Ports for servers that come up late or again, beside other test processes that do the same."""

from __future__ import annotations

import os
import random
import socket

_LOWEST, _EACH, _PROCESSES = 12_000, 2_000, 10
"""Below the ports which the kernel gives to outgoing connections: none of those takes one while its server is away."""


def steady_port() -> int:
    """Return a port nobody listens on, from this test process's own part of them."""
    process = int("".join(filter(str.isdecimal, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0) % _PROCESSES
    first = _LOWEST + process * _EACH
    for port in random.sample(range(first, first + _EACH), _EACH):
        with socket.socket() as probe:
            # As a server that starts again on a port whose last connections have hardly ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port is free from {first} to {first + _EACH}")
