"""The command about versions of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.shared import JsonOption, Subjects, WorkspaceOption, opened, print_json, print_table, reporting_errors
from segments import models as versions
from segments.cluster_answers import version
from segments.models import ModelKind
from store.engine import reading


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command()(models)


@reporting_errors
def models(
    kind: Annotated[ModelKind | None, typer.Option(help="Only these; default: all.")] = None,
    subject: Annotated[Subjects | None, typer.Option(help="Only of these; default: both.")] = None,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """List the versions of the models, the newest first: what stands, what waits, what was refused, and why.

    Example: carillon models --kind clusters
    """
    with opened(root) as (_, engine), reading(engine) as connection:
        found = versions.listed(connection, kind, subject.one if subject else None)
    rows = [version(model) for model in found]
    if as_json:
        print_json(rows)
        return
    columns = {
        "model": "left",
        "of": "left",
        "version": "right",
        "state": "left",
        "as of": "left",
        "fitted on": "right",
    }
    cells = [
        [
            *(row["kind"], row["subject"], row["version"], row["state"]),
            *(f"{row['as_of']:%Y-%m-%d %H:%M}", f"{row['fitted_on']:,}", row["note"] or row["imported"]),
        ]
        for row in rows
    ]
    print_table("Models", {**columns, "fitted on": "right", "note": "left"}, cells)
