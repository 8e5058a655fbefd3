"""Logging: structlog for our events and for those of the libraries, JSON wherever no person looks on.

Events have constant names and carry no bodies, no nonces and no query strings.
"""

import logging
import sys
from typing import TYPE_CHECKING, Literal, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

_LEVELS = logging.getLevelNamesMapping()
_WARNINGS_ONLY = ("httpx", "httpcore")  # they would tell of every request, with its URL
_SILENT = "uvicorn.access"  # it would tell query strings, and so nonces
_OURS = ("uvicorn", "uvicorn.error")  # written by our handler and not by theirs
# Without local variables, which may hold bodies.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever sys.stderr is at that moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute in the base class
        """The stream of the moment."""
        return sys.stderr


def configure_logging(level: str = "info", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Send every log of this process to standard error. May be called again.

    Args:
        level: debug, info, warning or error.
        style: one JSON object a line, or coloured text; `auto` is text on a terminal only.
    """
    shared: tuple[Processor, ...] = (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    renderers: tuple[Processor, ...]
    if style == "console" or (style == "auto" and sys.stderr.isatty()):
        plain = structlog.dev.plain_traceback
        renderers = (structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain),)
    else:
        renderers = (_TRACEBACKS, structlog.processors.JSONRenderer())
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _StandardError)]
    root.addHandler(handler)
    number = _LEVELS[level.upper()]
    root.setLevel(number)
    for name in (*_OURS, _SILENT):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name != _SILENT
    for name in _WARNINGS_ONLY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
