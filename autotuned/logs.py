"""The agent's log: JSON lines into a rotating file of ours, and what a person reads where somebody looks on.

All files are 0600 in a 0700 folder. Secrets are masked in every line, and a traceback tells no values.
A line that cannot be written is lost, and nothing else: the log never harms the agent.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import stat
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from autotuned.settings import LogSettings, Settings
from autotuned.shared import redaction, wire

KEPT = 5
LAUNCHD_LOG = "launchd.log"
LAUNCHD_LOG_BYTES = 1_000_000
"""launchd never rotates the file that takes a job's outputs; only what is said around a crash ends there."""
NOISY = ("httpx", "httpcore", "huggingface_hub", "jsonrpcserver", "apscheduler")


class _File(logging.handlers.RotatingFileHandler):
    """Rotates, and keeps each file to its owner."""

    def _open(self) -> Any:
        stream = super()._open()
        with contextlib.suppress(OSError):
            os.fchmod(stream.fileno(), 0o600)
        return stream


def set_up(chosen: Settings, environ: Mapping[str, str]) -> None:
    """Log as the settings say from now on. Where the folder cannot be made, `doctor` tells."""
    logging.raiseExceptions = (
        False  # on a full disk the complaint about each lost line would be all that is left
    )
    with contextlib.suppress(OSError):
        chosen.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        chosen.logs.chmod(0o700)
    _bound(chosen.logs / LAUNCHD_LOG)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    masked = Masked(redaction.known_secrets(environ, [str(chosen.provider_config)]))
    # Values of local variables may be anything, a token or a prompt included: a traceback tells places only.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    json_lines: list[Any] = [
        structlog.processors.ExceptionRenderer(transformer),
        masked,
        structlog.processors.JSONRenderer(),
    ]
    colours = sys.stderr.isatty() and "NO_COLOR" not in environ
    text, screen = (
        [
            structlog.processors.ExceptionRenderer(),
            masked,
            structlog.dev.ConsoleRenderer(colors=wanted),
        ]
        for wanted in (False, colours)
    )
    file = _File(
        chosen.logs / wire.LOG_NAME,
        maxBytes=chosen.log.max_bytes,
        backupCount=KEPT,
        encoding="utf-8",
        errors="backslashreplace",
        delay=True,
    )
    handlers: list[logging.Handler] = [
        _formatted(file, shared, json_lines if chosen.log.format == "json" else text)
    ]
    if _somebody_reads_stderr():
        handlers.append(_formatted(logging.StreamHandler(sys.stderr), shared, screen))
    logging.basicConfig(level=chosen.log.level.upper(), handlers=handlers, force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def adopt(chosen: LogSettings) -> None:
    """Take a new level and size from now on; a new format needs a restart."""
    logging.getLogger().setLevel(chosen.level.upper())
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _File):
            handler.maxBytes = chosen.max_bytes


class Masked:
    """A processor that masks secrets in every value of a line."""

    def __init__(self, secrets: set[str]) -> None:
        self._mask = redaction.masker(secrets)

    def __call__(
        self, _: Any, __: str, entry: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """The line with its values masked; a telling key hides all of its value."""
        return {key: self._of(key, value) for key, value in entry.items()}

    def _of(self, key: Any, value: Any) -> Any:
        hidden = isinstance(value, str) and redaction.is_telling(str(key))
        return redaction.MASK if hidden else self._masked(value)

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._mask(value)
        if isinstance(value, Mapping):
            return {key: self._of(key, inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._masked(inner) for inner in value]
        return (
            value if isinstance(value, (int, float, bool, type(None))) else self._mask(str(value))
        )


def _formatted(
    handler: logging.Handler, shared: list[Any], renderers: list[Any]
) -> logging.Handler:
    removed = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[removed, *renderers]
        )
    )
    return handler


def _somebody_reads_stderr() -> bool:
    """A terminal or a pipe; a plain file would only grow beside our own, which rotates."""
    try:
        return not stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def _bound(path: Path) -> None:
    """Empty a file that nobody rotates once it is large; its writer appends."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LAUNCHD_LOG_BYTES:
            os.truncate(path, 0)
