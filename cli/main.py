"""The command `carillon`: puts the groups together."""

from __future__ import annotations

import typer

from cli import campaigns, imports, ledger, operations, processes, reports, segments

app = typer.Typer(
    name="carillon",
    help="Campaigns as code for B2B commerce: segments, e-mail and SMS, and what came of them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

for group in (operations, imports, segments, campaigns, processes, ledger, reports):
    group.register(app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
