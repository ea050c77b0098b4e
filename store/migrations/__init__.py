"""The schema's history, as Alembic revisions that `store.schema.migrate` applies."""
