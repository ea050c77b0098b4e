"""A developer's tool: writes the next revision from what tables.py says and the revisions do not yet.

python -m store.migrations.writing "orders: a column for the channel"
python -m store.migrations.writing --anew      # before a release only: one first revision in place of all
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import UpgradeOps
from alembic.runtime.migration import MigrationContext
from mako.template import Template

from store.engine import open_database, reading
from store.schema import MIGRATIONS, VERSIONS, head, migrate
from store.tables import metadata
from store.types import Document, Id, Instant


def write(message: str, *, anew: bool = False) -> Path | None:
    """Write a revision that brings the present revisions to the present tables; None where nothing differs."""
    if anew:
        for old in VERSIONS.glob("[0-9]*.py"):
            old.unlink()
    before = head()
    operations = _differences(empty=before is None)
    if operations.is_empty():
        return None
    number = f"{int(before or 0) + 1:04}"
    words = "".join(letter if letter.isalnum() else "_" for letter in message.lower()).strip("_")
    path = VERSIONS / f"{number}_{words[:40]}.py"
    path.write_text(_source(message, number, before, operations), encoding="utf-8")
    return path


def _differences(*, empty: bool) -> UpgradeOps:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(f"sqlite:///{Path(folder) / 'present.db'}")
        if not empty:
            migrate(engine)
        with reading(engine) as connection:
            context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
            operations = produce_migrations(context, metadata).upgrade_ops
        engine.dispose()
    if operations is None:
        raise RuntimeError("Alembic gave no operations")
    return operations


def _source(message: str, number: str, before: str | None, operations: UpgradeOps) -> str:
    code = render_python_code(operations, render_item=_named_type)
    template = Template(filename=str(MIGRATIONS / "script.py.mako"))  # noqa: S702 - writes Python, not HTML
    text = template.render(
        message=message,
        up_revision=number,
        down_revision=before,
        branch_labels=None,
        depends_on=None,
        upgrades=code,
    )
    return "\n".join(line for line in str(text).splitlines() if not line.lstrip().startswith("# ###")) + "\n"


def _named_type(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Render the house's types by the names the template defines."""
    if kind != "type":
        return False
    if isinstance(item, Instant):
        return "INSTANT"
    names: dict[int, str] = {id(Id): "ID", id(Document): "DOCUMENT"}
    return names.get(id(item), False)


if __name__ == "__main__":
    arguments = [word for word in sys.argv[1:] if word != "--anew"]
    written = write(" ".join(arguments) or "The schema", anew="--anew" in sys.argv)
    sys.stdout.write(f"{written or 'tables and revisions agree: nothing to write'}\n")
