"""Commands that draw: the RFM grid, cluster profiles, movement between groups."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.shared import AsOfOption, Subjects, WorkspaceOption, console, opened, reporting_errors
from kernel.clock import parse_as_of, system_clock
from kernel.errors import ConfigError
from segments.pictures.cluster_profiles import cluster_picture
from segments.pictures.facts import cluster_migration, cluster_profiles, rfm_grid, rfm_migration
from segments.pictures.migration import migration_picture
from segments.pictures.rfm_grid import rfm_picture
from segments.pictures.scene import Picture
from store.engine import reading

picture_app = typer.Typer(no_args_is_help=True, help="Pictures: where people look rather than read.")

OutOption = Annotated[Path, typer.Option("--out", help="FILE.png for mail and slides, or FILE.html: one page.")]


class Groups(StrEnum):
    """Which groups people move between."""

    RFM = "rfm"
    CLUSTERS = "clusters"


SubjectOption = Annotated[Subjects, typer.Option(help="Whom to draw.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    picture_app.command("rfm")(rfm)
    picture_app.command("clusters")(clusters)
    picture_app.command("migration")(migration)
    app.add_typer(picture_app, name="picture")


@reporting_errors
def rfm(
    out: OutOption,
    as_of: AsOfOption = "",
    subject: SubjectOption = Subjects.ACCOUNTS,
    root: WorkspaceOption = Path(),
) -> None:
    """Draw the RFM grid as a heat map: the current scores, or those of a date, scored on the spot.

    Example: carillon picture rfm --out rfm.html --as-of 2026-10-01
    """
    _check(out)
    with opened(root) as (workspace, engine), reading(engine) as connection:
        at = parse_as_of(as_of, workspace.settings.timezone) if as_of else None
        found = rfm_grid(connection, workspace, subject=subject.one, as_of=at)
    _write(rfm_picture(found), out)


@reporting_errors
def clusters(
    out: OutOption,
    as_of: AsOfOption = "",
    subject: SubjectOption = Subjects.ACCOUNTS,
    root: WorkspaceOption = Path(),
) -> None:
    """Draw what each cluster is like: size, revenue, and how far its medians stand from all buyers.

    Example: carillon picture clusters --out clusters.png
    """
    _check(out)
    with opened(root) as (workspace, engine), reading(engine) as connection:
        at = parse_as_of(as_of, workspace.settings.timezone) if as_of else system_clock()
        found = cluster_profiles(connection, workspace, subject=subject.one, as_of=at)
    _write(cluster_picture(found), out)


@reporting_errors
def migration(
    out: OutOption,
    since: Annotated[str, typer.Option("--from", help="The first date, read as its midnight in the workspace's zone.")],
    until: Annotated[str, typer.Option("--to", help="The second date, likewise; default: now.")] = "",
    of: Annotated[Groups, typer.Option(help="Between which groups.")] = Groups.RFM,
    subject: SubjectOption = Subjects.ACCOUNTS,
    root: WorkspaceOption = Path(),
) -> None:
    """Draw who moved between groups from one date to another, both judged by the same frozen model.

    Example: carillon picture migration --out moves.html --from 2026-04-01 --to 2026-10-01
    """
    _check(out)
    with opened(root) as (workspace, engine), reading(engine) as connection:
        zone = workspace.settings.timezone
        found = (rfm_migration if of is Groups.RFM else cluster_migration)(
            connection,
            workspace,
            subject=subject.one,
            since=parse_as_of(since, zone),
            until=parse_as_of(until, zone) if until else system_clock(),
        )
    _write(migration_picture(found), out)


def _check(out: Path) -> None:
    """Refuse a file that could not be written before minutes are spent on what it would show."""
    if out.suffix not in (".png", ".html"):
        raise ConfigError(f"{out.name} ends neither in .png nor in .html, so it is not known what to draw")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: name the file to write")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent}: make it first, or write elsewhere")


def _write(picture: Picture, out: Path) -> None:
    if out.suffix == ".png":
        from segments.pictures.png import png

        out.write_bytes(png(picture))
    else:
        from segments.pictures.page import page

        out.write_text(page([picture]), encoding="utf-8")
    console.print(f"{out}: {picture.alt}", markup=False, highlight=False, soft_wrap=True)
