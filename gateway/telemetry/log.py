"""The structured log: one event, one line on standard error; JSON for machines, key=value on a terminal."""

import logging
import sys
from contextlib import suppress

import structlog

Log = structlog.stdlib.BoundLogger


class StderrLogger:
    """Writes lines; one that cannot be written (a full disk, a closed pipe) is lost: mail goes on."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(message + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = log = msg


def configure(*, level: str = "info") -> None:
    """Once a process, before the first line. The logs of libraries join at their warnings and above."""
    is_terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False) if is_terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: StderrLogger(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s", force=True
    )


def get(room: str) -> Log:
    logger: Log = structlog.get_logger(room=room)
    return logger
