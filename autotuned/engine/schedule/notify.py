"""Tells the operator that a run has ended: a notification on the desktop, and a program of theirs.

Both are named by the settings file alone. They get what is public about the run and no credential of
the agent's environment; whatever they do, a run is never held up or changed by it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from autotuned.documents.result import ResultDocument
from autotuned.engine.events import Events, Subscription
from autotuned.engine.run.records import Records
from autotuned.engine.settings import Configuration
from autotuned.errors import AutotunedError
from autotuned.host.children import programs
from autotuned.providers.binary import isolated
from autotuned.shared import wire
from autotuned.shared.tools import SYSTEM_FOLDERS, find

DEADLINE_S = 60.0
"""A program that has not ended by then is killed."""
CLOSING_S = 5.0
"""The same when the agent stops: launchd grants it a minute and a half for everything."""

SCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)
"""AppleScript that gets its words as arguments: a model's name can never become part of it."""

log = structlog.get_logger(__name__)


class Notifier:
    """Listens for ends of runs, and tells of each as the settings then ask."""

    def __init__(
        self,
        configuration: Configuration,
        records: Records,
        events: Events,
        environ: Mapping[str, str],
    ) -> None:
        self._configuration = configuration
        self._records, self._events = records, events
        self._environ = isolated(environ)
        if wire.SOCKET_VARIABLE in environ:  # so that the program may ask this very agent
            self._environ[wire.SOCKET_VARIABLE] = environ[wire.SOCKET_VARIABLE]
        self._subscription: Subscription | None = None
        self._listener: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def open(self, since: int) -> None:
        """Listen from the event after `since`."""
        self._subscription = self._events.subscribe(None, since)
        self._listener = asyncio.create_task(self._listen(self._subscription), name="notifier")

    async def close(self) -> None:
        """Tell of what has ended until now, and let nothing run on. Idempotent."""
        if self._subscription is None or self._listener is None:
            return
        self._events.unsubscribe(self._subscription)
        await self._listener
        if self._telling:
            await asyncio.wait(self._telling, timeout=CLOSING_S)
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _listen(self, subscription: Subscription) -> None:
        async for event in subscription:
            if event.type == "run.finished" and event.run_id is not None:
                task = asyncio.create_task(self._tell(event.run_id), name="notification")
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _tell(self, run_id: str) -> None:
        settings = self._configuration.now.notify
        if not settings.desktop and not settings.on_finish:
            return
        try:
            row = await self._records.row(run_id)
            document = await self._records.result(row, running=False)
        except AutotunedError as error:
            log.warning("nobody can be told of a run's end", run_id=run_id, reason=error.message)
            return
        work = []
        if settings.desktop:
            script = (word for line in SCRIPT for word in ("-e", line))
            said = ("autotuned", sentence(document))
            argv = [find("osascript") or "osascript", *script, *said]
            work.append(self._run("desktop notification", argv, b""))
        if settings.on_finish:
            work.append(self._run("on_finish", settings.on_finish, json.dumps(document).encode()))
        await asyncio.gather(*work)

    async def _run(self, what: str, argv: Sequence[str], stdin: bytes) -> None:
        """Run a program to its end; how it failed is one line in the log."""
        program = _found(argv[0], self._environ)
        if program is None:
            log.warning("no such program", purpose=what, program=argv[0])
            return
        answer = await programs.run(
            [program, *argv[1:]], self._environ, timeout_s=DEADLINE_S, stdin=stdin
        )
        if answer.code != 0:
            reason = answer.err or answer.ended
            log.warning("failed", purpose=what, program=argv[0], code=answer.code, reason=reason)


def sentence(document: ResultDocument) -> str:
    """The end of a run for a person, short enough for a notification."""
    answer = document["recommendation"]
    if answer is None:
        error = document.get("error")
        message = (error and error["message"]) or "no recommendation"
        return f"{document['exit_reason']}: {message}"[:200]
    model = answer["model"].rstrip("/").rsplit("/", 1)[-1]
    partial = "partial: " if answer.get("partial") else ""
    return f"{partial}{model}, {answer['tps_median']:.1f} tok/s"[:200]


def _found(name: str, environ: Mapping[str, str]) -> str | None:
    return shutil.which(Path(name).expanduser(), path=environ.get("PATH", SYSTEM_FOLDERS))
