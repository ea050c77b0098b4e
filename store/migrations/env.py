"""What Alembic runs: the revisions, in the transaction and on the connection that `store.schema.migrate` holds."""

from __future__ import annotations

from alembic import context

from store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it.
)
context.run_migrations()
