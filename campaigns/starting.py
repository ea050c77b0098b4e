"""A new workspace: the skeleton in starter/, copied."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from kernel.errors import ConfigError

_RENAMED = {"gitignore": ".gitignore"}
"""A file of the skeleton whose real name would act on Carillon's own repository."""


def start_workspace(folder: Path) -> list[Path]:
    """Copy the skeleton into a folder, which is made where it is missing; files that are there are left alone.

    Returns:
        What was made, relative to the folder, in order.

    Raises:
        ConfigError: the folder holds a workspace already, or cannot be written to.
    """
    if (folder / "carillon.yaml").exists():
        raise ConfigError(f"{folder} is a workspace already: it has a carillon.yaml; choose another folder")
    made = []
    try:
        with as_file(files("campaigns") / "starter") as skeleton:
            for source in sorted(path for path in skeleton.rglob("*") if path.is_file()):
                inner = source.relative_to(skeleton)
                target = inner.with_name(_RENAMED.get(inner.name, inner.name))
                if not (folder / target).exists():
                    (folder / target).parent.mkdir(parents=True, exist_ok=True)
                    (folder / target).write_bytes(source.read_bytes())
                    made.append(target)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror}; choose a folder you may write to") from error
    return made
