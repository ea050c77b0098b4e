"""Asking a provider what became of a message in doubt: the twin of workers.channels, for those that can be asked."""
