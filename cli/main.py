"""The command `carillon`: puts the groups together, and loads only the one that is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

import typer

GROUPS: dict[str, tuple[str, ...]] = {
    "operations": ("init", "doctor", "status"),
    "imports": ("import", "sources"),
    "segments": ("segments",),
    "rfm": ("rfm",),
    "clusters": ("clusters",),
    "lifetime": ("lifetime",),
    "models": ("models",),
    "pictures": ("picture",),
    "figures": ("economics", "stock"),
    "campaigns": (
        *("validate", "schema", "plan", "apply", "preview", "test-send"),
        *("campaigns", "runs"),
    ),
    "processes": ("up", "worker", "scheduler", "web", "inbound", "redis"),
    "dkim": ("dkim",),
    "ledger": ("ledger",),
    "lanes": ("lanes",),
    "suppressions": ("suppressions",),
    "reports": ("report", "funnel", "attribute"),
}
"""Which module of this room brings which commands: a command waits for its own module alone, not for all of them."""


def build(groups: Iterable[str] = GROUPS) -> typer.Typer:
    """Return the application with the commands of these groups."""
    app = typer.Typer(
        name="carillon",
        help="Campaigns as code for B2B commerce: segments, e-mail and SMS, and what came of them.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_several_commands)
    for group in groups:
        importlib.import_module(f"cli.{group}").register(app)
    return app


def _several_commands() -> None:
    """Campaigns as code for B2B commerce: segments, e-mail and SMS, and what came of them."""


def main() -> None:
    """Run the command line."""
    word = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    wanted = [group for group, commands in GROUPS.items() if word in commands]
    build(wanted or GROUPS)()


def __getattr__(name: str) -> Any:
    """Offer `app`, the whole application, to whoever asks for it."""
    if name == "app":
        return build()
    raise AttributeError(name)


if __name__ == "__main__":
    main()
