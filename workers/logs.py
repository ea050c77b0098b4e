"""Logging of every process: one line per event, secrets never in it."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog

_SECRETS = re.compile(
    r"((?:password|passwd|token|secret|authorization|api_key)=)[^&\s'\"]+|(://[^:/@\s]*:)[^@/\s]+(?=@)", re.IGNORECASE
)


def configure_logging(*, as_json: bool = False) -> None:
    """Send structured lines to standard error; JSON for machines, words for people."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def in_json() -> bool:
    """Tell whether this process logs in JSON."""
    return isinstance(structlog.get_config()["processors"][-1], structlog.processors.JSONRenderer)


def redact(_logger: Any, _method: str, event: Any) -> Any:
    """Blank out what looks like a secret in any text of a log line."""
    return {
        key: _SECRETS.sub(lambda found: (found[1] or found[2] or "") + "***", value)
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }
