"""Recounting the promises over the database, and over a gateway's own log."""
