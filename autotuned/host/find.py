"""Who serves on this machine: the live provider in either of its forms, and who else holds a port.

Finds and names, as values; stops nobody. A job that launchd manages is named once, and a candidate of
another agent (it carries our marker) is no live provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from autotuned.core.command_line import Commands, is_server, names_program, option
from autotuned.host.listener import arguments
from autotuned.host.managers import Managers
from autotuned.host.managers.systemd import UnitState, owner, place
from autotuned.host.ports import Listener, Ports
from autotuned.settings import Settings
from autotuned.shared import plist as plists
from autotuned.shared.launchctl import LoadedJob, Presence, domains

DEFAULT_PORT = 8080
NAMES = ("macprovider-cli",)
"""The program behind the labels that we know, whichever provider is tuned."""


@dataclass(frozen=True, slots=True)
class Managed:
    """A live server that launchd or systemd runs, or that is not ours: where it listens, and why it cannot be drained, if so."""

    job: LoadedJob
    plist: Path | None
    port: int
    refusal: str | None = None
    argv: tuple[str, ...] = ()
    """Its command line, as launchd or its plist has it; of a unit, that of the server in it."""
    whose: str | None = None
    """Of another user, or in a container: how it is named."""

    @property
    def name(self) -> str:
        """As a conflict names it."""
        if self.whose is not None:
            return self.whose
        if isinstance(self.job, UnitState):
            return f"systemd-managed ({self.job.domain} unit {self.job.label})"
        if self.job.presence is Presence.UNKNOWN:
            return f"launchctl-unanswered ({self.job.target})"
        return f"launchd-managed ({self.job.target})"

    def is_own(self, process: Process) -> bool:
        """The command line is the job's; for where launchd's answer cannot be read, and tells no pid."""
        return bool(self.argv) and process.argv[-len(self.argv) :] == self.argv


@dataclass(frozen=True, slots=True)
class Process:
    """A foreground process of the provider."""

    pid: int
    argv: tuple[str, ...]
    port: int
    uid: int | None = None
    """Its user, where that is somebody else."""
    held: str | None = None
    """How the job or unit is named that has it, beside another live provider."""

    @property
    def name(self) -> str:
        return self.held or f"foreground-PID-{self.pid}"


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the way."""

    managed: Managed | None = None
    processes: tuple[Process, ...] = ()
    strangers: tuple[Listener, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.managed or self.processes or self.strangers)

    @property
    def names(self) -> list[str]:
        """As conflicts: `launchd-managed ...`, `foreground-PID-<n>`, `port-held-by <name> pid <n>`."""
        names = [self.managed.name] if self.managed else []
        names += [process.name for process in self.processes]
        for one in self.strangers:
            names.append(f"port-held-by {one.name or 'unknown'} pid {one.pid or 'unknown'}")
        return names

    @property
    def pids(self) -> set[int]:
        pids = {process.pid for process in self.processes}
        managed = None if self.managed is None else self.managed.job.pid
        return pids if managed is None else {*pids, managed}

    @property
    def live(self) -> Managed | Process | None:
        """The live provider that a drain would stop."""
        return self.managed or next(iter(self.processes), None)


@dataclass(frozen=True, slots=True)
class Finder:
    managers: Managers
    ports: Ports
    current: Callable[[], Settings]
    """The settings in use now."""
    marker: str

    @property
    def settings(self) -> Settings:
        return self.current()

    async def find(self, commands: Commands, port: int) -> Found:
        """What is in the way of candidates on `port`.

        `commands` are the provider's. Port 0: nobody but the live provider is looked for.
        """
        return await asyncio.to_thread(self.look, commands, port)

    def look(self, commands: Commands, port: int) -> Found:
        """`find`, in this thread."""
        processes = list(self._serving(commands))
        managed = self._named(commands, processes) or next(
            filter(None, (self._held(one, commands) for one in _without_children(processes))), None
        )
        family: set[int] = set()
        if managed is not None:
            pid = managed.job.pid
            family = _family(pid) if pid is not None else set()
            processes = [
                process
                for process in processes
                if process.pid not in family and not (pid is None and managed.is_own(process))
            ]
        processes = _without_children(processes)
        if managed is not None:
            holders = [(one, self._held(one, commands)) for one in processes]
            processes = [replace(one, held=job.name) if job else one for one, job in holders]
        holder = self.ports.holder(port) if port else None
        ours = {process.pid for process in processes} | family
        known = holder is None or holder.pid in ours or _descends(holder.pid, ours)
        return Found(managed, tuple(processes), () if known or holder is None else (holder,))

    def unloaded(self) -> Managed | None:
        """The provider's job where it could be loaded and is not. Blocks."""
        kind, name = self.settings.live.manager
        unit = self.managers.systemd.find(name) if kind == "systemd" else None
        if unit is not None:
            return self._unit(unit, ())
        if self.managers.launchd.program is None:
            return None
        for label in self.settings.live.known_labels:
            job = LoadedJob(domains()[0], label, Presence.MISSING)
            if self._plist(job) is not None:
                return self._managed(job, ())
        return None

    def processes(self, commands: Commands) -> list[Process]:
        """Foreground processes of the provider alone; a job's own is among them. Blocks."""
        return _without_children(list(self._serving(commands)))

    def _named(self, commands: Commands, processes: Sequence[Process]) -> Managed | None:
        """The service that the settings name, where it runs, or could at any moment."""
        kind, name = self.settings.live.manager
        if kind == "systemd":
            unit = self.managers.systemd.find(name)
            serves = unit is not None and (unit.presence is not Presence.LOADED or unit.alive)
            return self._unit(unit, processes) if unit is not None and serves else None
        job = self.managers.launchd.find(self.settings.live.known_labels)
        return None if job is None else self._managed(job, commands)

    def _held(self, process: Process, commands: Commands) -> Managed | None:
        """Who has `process`; None where it was started from a terminal of this user."""
        where, ours = place(process.pid), place(os.getpid())
        container = None if where is None else where.container
        if ours is not None and container == ours.container:
            container = None
        job = None if container else self.managers.holder(process.pid)
        if job is None and (container or process.uid is not None):
            return _foreign(process, container, None if where is None else where.unit)
        if job is None:
            return None
        found = (
            self._unit(job, [process])
            if isinstance(job, UnitState)
            else self._managed(job, commands)
        )
        named = self.settings.live.service
        if found.refusal is None and named != "auto":
            rule = f"{found.name} is not what [live] service names ({named}): stop it yourself"
            return replace(found, refusal=rule)
        return found

    def _unit(self, unit: UnitState, processes: Sequence[Process]) -> Managed:
        family = _family(unit.pid) if unit.pid is not None else set()
        server = next((one for one in processes if one.pid in family), None)
        server = server or next(iter(processes if unit.pid is None else ()), None)
        argv = tuple(arguments(unit.pid)) if server is None and unit.pid is not None else ()
        argv = server.argv if server is not None else argv
        port = port_of(argv, self.settings.provider_config)
        return Managed(unit, None, port, self.managers.systemd.refusal(unit), argv)

    def _managed(self, job: LoadedJob, commands: Commands) -> Managed:
        plist = self._plist(job)
        content = plists.read(plist) if plist else {}
        planned = {} if isinstance(content, plists.Unreadable) else content
        argv = job.arguments or plists.strings(planned, "ProgramArguments")
        return Managed(
            job,
            plist,
            port_of(argv, self.settings.provider_config),
            self._refusal(job, plist, content, commands),
            argv,
        )

    def _plist(self, job: LoadedJob) -> Path | None:
        """The file that loads it again: of the settings, as launchd reports it, or where it usually is."""
        reported = Path(job.path) if job.path and job.path.startswith("/") else None
        usual = self.settings.home.parent.parent / "Library" / "LaunchAgents" / f"{job.label}.plist"
        given = self.settings.live.plist
        for path in (given.expanduser() if given else None, reported, usual):
            if path is not None and path.is_file():
                return path.absolute()
        return None

    def _refusal(
        self,
        job: LoadedJob,
        plist: Path | None,
        content: Mapping[str, object] | plists.Unreadable,
        commands: Commands,
    ) -> str | None:
        if job.presence is Presence.UNKNOWN:
            return f"launchctl cannot be asked about {job.target}: {job.reason}"
        if job.domain == "system":
            return f"{job.target} belongs to root: stop it yourself with sudo launchctl bootout {job.target}"
        if self.managers.launchd.disabled(job.domain, [job.label]):
            return f"{job.target} is disabled, so it could not be loaded again: launchctl enable {job.target}"
        if plist is None or not os.access(plist, os.R_OK):
            return f"no readable plist of {job.label} is found, so it could not be brought back: name it as [live] plist"
        if isinstance(content, plists.Unreadable):
            return f"{plist} {content.reason}, so {job.label} could not be brought back"
        if content.get("Label", job.label) != job.label:
            return f"{plist} is the plist of {content['Label']}, not of {job.label}"
        words = [*([job.program] if job.program else []), *job.arguments[:3]]
        own = (content.get("Program"), *plists.strings(content, "ProgramArguments")[:1])
        names = {*NAMES, *(words[0] for words in commands)}
        names |= {word.rpartition("/")[2] for word in own if isinstance(word, str) and word}
        if words and not names_program(words, names):
            return f"{job.target} runs {words[0]}, which is not the provider: it is left alone"
        return None

    def _serving(self, commands: Commands) -> Iterator[Process]:
        for process in psutil.process_iter():
            try:
                if process.pid == os.getpid():
                    continue
                uid = process.uids().real
                argv = process.cmdline()
                if not is_server(argv, commands) or self._is_not_live(process):
                    continue
                if process.cmdline() != argv:  # it ended meanwhile, and its environment with it
                    continue
                port = port_of(argv, self.settings.provider_config)
                yield Process(process.pid, tuple(argv), port, None if uid == os.getuid() else uid)
            except (psutil.Error, OSError, ValueError):
                continue  # gone, or not ours to read

    def _is_not_live(self, process: psutil.Process) -> bool:
        """A process whose environment is not ours to read counts as a live provider."""
        try:
            return is_apart(process, self.marker, self.managers.environ)
        except psutil.AccessDenied:
            home = self.managers.environ.get("AUTOTUNED_LIVE_HOME")
            return home is not None and process.uids().real != os.getuid()


def is_apart(process: psutil.Process, marker: str, environ: Mapping[str, str]) -> bool:
    """It is a candidate, which carries `marker`, or of another home than `AUTOTUNED_LIVE_HOME` of `environ`.

    The variable is for tests beside a real server. Raises psutil.Error where that cannot be read.
    """
    home = environ.get("AUTOTUNED_LIVE_HOME")
    around = process.environ()
    if not around:  # just being started: the system has not set it up yet
        time.sleep(0.02)
        around = process.environ()
    return marker in around or (home is not None and around.get("HOME", home) != home)


def _foreign(process: Process, container: str | None, unit: str | None) -> Managed:
    """A server that is not ours to stop, named with its owner and where it runs."""
    name = Path(process.argv[0]).name
    where = f" in the container {container[:12]}" if container else f" in {unit}" if unit else ""
    user = "" if process.uid is None else f" of user {owner(process.uid)}"
    whose = f"{name} (pid {process.pid}{user}{where})"
    job = LoadedJob("", unit or "", pid=process.pid)
    rule = f"{whose} is not ours to stop: have it stopped by whoever runs it"
    return Managed(job, None, process.port, rule, process.argv, whose)


def port_of(argv: Sequence[str], config: Path) -> int:
    """Where a server with this command line listens: `--port`, else `port` of its configuration, else 8080."""
    port = _port(option(argv, "--port"))
    if port is not None:
        return port
    path = option(argv, "--config")
    try:
        text = (Path(path).expanduser() if path else config).read_text("utf-8", errors="replace")
    except (OSError, ValueError, RuntimeError):  # a folder, a name with a zero byte, a `~nobody`
        return DEFAULT_PORT
    named = re.search(r"""^port\s*:\s*["']?(\d{1,5})\b""", text, re.MULTILINE)
    return _port(named and named[1]) or DEFAULT_PORT


def _port(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,5}", text) and 0 < int(text) < 65536 else None


def _family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except (psutil.Error, OSError):
        return {pid}


def _descends(pid: int | None, ancestors: Iterable[int]) -> bool:
    if pid is None:
        return False
    try:
        return not {parent.pid for parent in psutil.Process(pid).parents()}.isdisjoint(ancestors)
    except (psutil.Error, OSError):
        return False


def _without_children(processes: Sequence[Process]) -> list[Process]:
    """A wrapper and the server that it started are one: the one that was started first."""
    pids = {process.pid for process in processes}
    return [process for process in processes if not _descends(process.pid, pids - {process.pid})]


def other_agents() -> list[tuple[int, str]]:
    """Agents of this user beside this one: pid and HOME of each. A child that is about to be a program is its parent still."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            own = os.getpid() in (process.pid, process.ppid())
            if own or process.uids().real != os.getuid():
                continue
            words = process.cmdline()
            module = "autotuned" in words[2:3] and words[1:2] == ["-m"]
            if module or any(Path(word).name == "autotuned" for word in words[:2]):
                found.append((process.pid, process.environ().get("HOME", "unknown")))
    return found
