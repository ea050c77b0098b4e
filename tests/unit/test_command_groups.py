"""Each command is loaded by its own group alone."""

from __future__ import annotations

import typer.main

from cli.main import GROUPS, build


def test_every_command_is_found_by_the_group_that_brings_it() -> None:
    for group, commands in GROUPS.items():
        loaded = typer.main.get_command(build([group]))
        assert set(loaded.commands) == set(commands)  # type: ignore[attr-defined]
