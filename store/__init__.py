"""Facts: tables, migrations, ingest, the message ledger. The only room that knows the SQL dialects."""
