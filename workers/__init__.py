"""Doing: Celery app and thin tasks, delivery core, dispatcher, scheduler, channels, inbound."""
