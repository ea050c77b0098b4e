"""Where the secret of a log-in comes from, and when it is fetched anew.

An OAuth token lives an hour. It may stand in the environment, in a file that something else keeps fresh, or be what a
command prints; the last two are asked again when the server refuses what they said before.
"""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from kernel.errors import GatewayDown
from kernel.gateways import SmtpGateway
from workers.smtp.logins import Login

_COMMAND_S = 30.0
"""How long a token command may take."""


class Credentials:
    """The log-in of one gateway."""

    def __init__(self, gateway: SmtpGateway) -> None:
        self._gateway = gateway
        self._read = _source(gateway)
        self._kept: str | None = None

    @property
    def renewable(self) -> bool:
        """Whether asking again may bring another secret."""
        return self._read is not None

    async def login(self, *, fresh: bool) -> Login | None:
        """Return who we are; None where the gateway wants no log-in.

        Args:
            fresh: What was returned last has been refused.

        Raises:
            GatewayDown: the file or the command yields no token.
        """
        gateway = self._gateway
        if gateway.username is None:
            return None
        if self._read is not None and (fresh or self._kept is None):
            self._kept = await asyncio.get_running_loop().run_in_executor(None, self._read)
        fixed = gateway.token if gateway.auth == "xoauth2" else gateway.password
        secret = self._kept if self._read is not None else fixed.get_secret_value() if fixed else None
        if secret is None:
            return None
        return Login(
            username=gateway.username, secret=secret, mechanism="" if gateway.auth == "auto" else gateway.auth.upper()
        )


def _source(gateway: SmtpGateway) -> Callable[[], str] | None:
    if gateway.token_file is not None:
        return lambda path=gateway.token_file: _from_file(Path(path))  # type: ignore[misc]
    if gateway.token_command is not None:
        return lambda command=gateway.token_command: _from_command(command)  # type: ignore[misc]
    return None


def _from_file(path: Path) -> str:
    try:
        return _only_line(path.read_text(encoding="utf-8"), f"token_file {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayDown(f"token_file {path} cannot be read: {error}", lasting=True) from error


def _from_command(command: str) -> str:
    try:
        # The operator's own command from carillon.yaml, without a shell.
        done = subprocess.run(  # noqa: S603
            shlex.split(command), capture_output=True, check=True, timeout=_COMMAND_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        # What it printed may hold the token, so only the kind of failure is told.
        raise GatewayDown(f"token_command fails: {type(error).__name__}", lasting=True) from error
    return _only_line(done.stdout.decode("utf-8", "replace"), "token_command")


def _only_line(text: str, source: str) -> str:
    token = text.strip()
    if not token or not token.isprintable() or " " in token:
        raise GatewayDown(f"{source} yields no token: one line without spaces is expected", lasting=True)
    return token
