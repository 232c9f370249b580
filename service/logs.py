"""Logging: one form for our own lines and for those of the libraries, for people or for a collector."""

import logging.config
import re
import sys
from typing import Any

import structlog

# Without the variables of each frame, which structlog would show: keys, tokens and readings are among them.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_TICKET = re.compile(r"\bticket=[^\s&\"']+")


def redact(_logger: Any, _name: str, event: Any) -> Any:
    """Take tickets out of a line: the server logs URLs as they come, also those that no ticket belongs into."""
    event["event"] = _TICKET.sub("ticket=***", str(event.get("event", "")))
    return event


def configure(level: str, form: str) -> None:
    """Send everything to standard error, as ``console`` lines or as ``json`` objects."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    renderer: list[Any] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            structlog.dev.ConsoleRenderer(
                pad_event_to=0, colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structlog": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
                    "foreign_pre_chain": shared,
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structlog"}},
            "root": {"handlers": ["stderr"], "level": level.upper()},
            # Starting and stopping is told in our own words; the rest of the server's lines are worth having. But its
            # DEBUG lines are the headers and the frames of every WebSocket, and so keys and tokens: never these.
            "loggers": {"uvicorn.error": {"level": "WARNING" if level != "debug" else "INFO"}},
        }
    )
