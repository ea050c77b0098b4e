"""SMPP 3.4: PDUs, and the session that a thread of its own keeps with one SMSC."""
