"""The files of an export: whole or not there at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile

from kernel.errors import ConfigError

_ADDRESS_COLUMNS = 2
"""Every layout begins with the digests of the e-mail and of the phone."""
_WORKSPACE_FOLDERS = ("campaigns", "segments", "templates")
_WORKSPACE_FILES = ("carillon.yaml", "sources.yaml")


def removals_path(out: Path) -> Path:
    """Return where the list of removals stands beside a file: ads.csv has ads.csv.removals.csv."""
    return out.with_name(f"{out.name}.removals.csv")


def check_target(out: Path, headers: Collection[Sequence[str]], *, root: Path | None = None) -> None:
    """Refuse a file to write to that would take the place of something other than an earlier export.

    Args:
        out: Where the export is to stand; its removals stand beside it.
        headers: The columns an export may begin with.
        root: The workspace, whose own files and folders are never written to.

    Raises:
        ConfigError: a folder, a place inside the workspace's own, no folder to write in, or somebody else's file.
    """
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: name the file to write, as {out / 'list.csv'}")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent}: make it first, or write elsewhere")
    if root is not None:
        _check_outside(out.resolve(), root.resolve())
    for path in (out, removals_path(out)):
        if path.exists() and not (path.is_file() and _first_line(path) in {_header(one) for one in headers}):
            raise ConfigError(f"{path} is there already and is no earlier export: write elsewhere, or delete it first")


def _check_outside(out: Path, root: Path) -> None:
    if out in [root / name for name in _WORKSPACE_FILES] or any(
        out.is_relative_to(root / name) for name in _WORKSPACE_FOLDERS
    ):
        raise ConfigError(
            f"{out} belongs to the workspace's own files: write the export elsewhere, as exports/list.csv"
        )


def _header(columns: Sequence[str]) -> bytes:
    return (",".join(columns) + "\n").encode()


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(10_000)


def listed_digests(path: Path) -> set[str]:
    """Return the digests of addresses a file names.

    Raises:
        ConfigError: there is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"there is no {path}, so it is not known which removals are done: leave --removals-done out")
    with path.open(encoding="utf-8", newline="") as file:
        return {cell for line in list(csv.reader(file))[1:] for cell in line[:_ADDRESS_COLUMNS] if cell}


def write_csv_files(files: Mapping[Path, tuple[Sequence[str], Iterable[Sequence[str]]]]) -> None:
    """Write files of columns and lines: each complete beside its place first, then renamed, in the order given.

    They can be read by their owner alone: digests of addresses are personal data.
    """
    with ExitStack() as leftovers:
        whole = []
        for path, (columns, lines) in files.items():
            with NamedTemporaryFile(
                "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
            ) as file:
                leftovers.callback(Path(file.name).unlink, missing_ok=True)
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(lines)
                file.flush()
                os.fsync(file.fileno())
            whole.append((Path(file.name), path))
        for temporary, path in whole:
            temporary.replace(path)
