"""A job of launchd as the live server: booted out, bootstrapped or kickstarted, judged by the state reached."""

from __future__ import annotations

from pathlib import Path

from autotuned.core.lease import Job
from autotuned.shared import plist as plists
from autotuned.shared.launchctl import (
    ALREADY,
    DISABLED,
    EXISTS,
    IN_PROGRESS,
    IO_ERROR,
    NO_PROCESS,
    NOT_FOUND,
    OK,
    SWITCHED_OFF,
    Answer,
    Launchd,
    LoadedJob,
    Presence,
)
from autotuned.shared.redaction import last_line

GOES_ON = (OK, NO_PROCESS, IO_ERROR, IN_PROGRESS, ALREADY, NOT_FOUND, None)
"""Codes of bootout after which the state is waited for; None: it did not answer in time."""


class LaunchdService:
    """One job, see `ServiceManager`."""

    def __init__(self, launchd: Launchd, job: Job) -> None:
        self._launchd, self._job = launchd, job
        self.hidden_stop_s = job.exit_timeout_s

    def look(self) -> LoadedJob:
        return self._launchd.look(self._job.domain, self._job.label)

    def stop(self) -> str | None:
        answer = self._launchd.bootout(self._job.domain, self._job.label)
        if answer.code in GOES_ON or self.look().presence is Presence.MISSING:
            return None
        return f"{self._job.name} cannot be stopped: launchctl bootout: {answer.reason}"

    def gone(self, now: LoadedJob) -> bool:
        return now.presence in (Presence.MISSING, Presence.NO_DOMAIN)

    def start(self, now: LoadedJob, *, rebooted: bool) -> str | None:
        job = self._job
        # Where `print` is of no use, a bootstrap of what is loaded already does no harm.
        blind = now.presence is Presence.UNKNOWN and not rebooted
        if now.presence is Presence.MISSING or blind:
            if not Path(job.plist).is_file():
                return f"its plist {job.plist} is gone"
            answer = self._launchd.bootstrap(job.domain, job.plist)
            if answer.code not in (OK, EXISTS, ALREADY):
                return f"launchctl bootstrap {job.domain} {job.plist}: {_told(job, answer)}"
        elif now.presence is Presence.LOADED and not now.coming:
            answer = self._launchd.kickstart(job.domain, job.label)
            if answer.code not in (OK, ALREADY):
                return f"launchctl kickstart {job.name}: {_told(job, answer)}"
        elif now.presence is not Presence.LOADED:
            return f"launchctl print {job.name}: {now.reason}"
        return None

    def last_line(self) -> str:
        return last_line(_logs(Path(self._job.plist)))


def _told(job: Job, answer: Answer) -> str:
    """Why a command was refused, with the remedy where the operator alone can give it."""
    if answer.code == DISABLED:
        return f"{answer.reason} {job.name}"
    if answer.code == SWITCHED_OFF:
        return f"{answer.reason}; switch it on again"
    return answer.reason


def _logs(plist: Path) -> list[Path]:
    """The files that a job prints into, that of its errors first."""
    content = plists.read(plist)
    if isinstance(content, plists.Unreadable):
        return []
    logs = [content.get(key) for key in ("StandardErrorPath", "StandardOutPath")]
    return [Path(log) for log in dict.fromkeys(logs) if isinstance(log, str)]
