"""The front door: one file per command group, no logic."""
