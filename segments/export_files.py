"""The files of an export: whole or not there at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile

from kernel.errors import ConfigError

_ADDRESS_COLUMNS = 2
"""Every layout begins with the digests of the e-mail and of the phone."""


def removals_path(out: Path) -> Path:
    """Return where the list of removals stands beside a file: ads.csv has ads.csv.removals.csv."""
    return out.with_name(f"{out.name}.removals.csv")


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
