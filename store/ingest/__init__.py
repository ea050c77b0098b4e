"""Data in: files of many formats, mapped by sources.yaml to facts; idempotent by external id."""
