"""Data in: files of many formats, mapped by sources.yaml to accounts, orders and the rest; idempotent by external id."""
