"""Checks of the machine: priority, power, clock, service manager, and whether the agent is the only one."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotuned.engine.doctor.check import Check, CheckContext, Finding, broken, doubt, fine
from autotuned.host import power as power_supply
from autotuned.host.find import other_agents
from autotuned.shared import plist
from autotuned.shared.launchctl import NO_SESSION, Launchd, domains
from autotuned.shared.tools import is_program
from autotuned.store.runs import Which

LABEL = "live.streamvc.autotuned"
INTERACTIVE = 31
"""The lowest priority that macOS gives to what it does not hold back; utility work has 20, background work 4."""
REINSTALL = "autotunectl install"
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""No machine that runs this program is truly before this."""
SKEW = timedelta(minutes=5)


def priority(context: CheckContext) -> Finding:
    """Candidates inherit the agent's priority: measured under a low one, every figure is wrong."""
    nice, priority = context.machine.priority()
    if nice is not None and nice > 0:
        return broken(
            f"the agent runs with nice {nice}, and so would every candidate: figures would be too low",
            "start it without nice: autotunectl daemon restart, from a shell that is not niced",
        )
    if priority is not None and priority < INTERACTIVE:
        return doubt(
            f"macOS runs the agent with priority {priority}, and so would every candidate: figures would be too low",
            f"{REINSTALL}: its job is an interactive one; or start the agent from a terminal",
        )
    return fine(f"nice {nice}" + (f", priority {priority}" if priority is not None else ""))


def power(_: CheckContext) -> Finding:
    """On battery, or in low-power mode, a machine is slower than it is."""
    doubts = ["on battery"] if power_supply.on_ac() is False else []
    if power_supply.low_power():
        doubts.append("low-power mode is on")
    if not doubts:
        return fine("mains, no low-power mode seen")
    return doubt(
        f"{' and '.join(doubts)}: figures will be lower than on mains power",
        "plug it in, and switch low-power mode off (System Settings > Battery); schedule set --only-on-ac",
    )


async def clock(context: CheckContext) -> Finding:
    """A clock that is wrong puts runs into the wrong order, and a schedule into the wrong night."""
    now = datetime.now(UTC)
    remedy = (
        "set the clock by the network: sudo sntp -sS time.apple.com, or timedatectl set-ntp true"
    )
    if now < EARLIEST:
        return broken(f"the clock says {now:%Y-%m-%d %H:%M} UTC", remedy)
    for row in await context.records.recent(1, None, Which.ALL):
        newest = datetime.fromisoformat(row.started_at_utc)
        if newest > now + SKEW:
            return doubt(f"the newest run began in the future ({row.started_at_utc})", remedy)
    return fine(f"{now:%Y-%m-%d %H:%M} UTC")


def launchd(context: CheckContext) -> Finding:
    """Which domain of launchd this session can reach."""
    manager, gui = Launchd(context.environ), domains()[0]
    if manager.program is None:
        return fine(
            "no launchctl on the PATH: live providers are looked for among processes and units of systemd"
        )
    answer = manager.session()
    if answer.code == 0:
        return fine(f"{gui} answers")
    if answer.code in NO_SESSION:
        return doubt(
            f"there is no {gui}: nobody is logged in at the screen (ssh only)",
            "jobs are looked for, and installed, in the user domain; they do not come back by themselves after a reboot",
        )
    return broken(
        f"launchctl does not answer as it should: {answer.reason}", f"launchctl print {gui}"
    )


def disabled_jobs(context: CheckContext) -> Finding:
    """No job of ours or of the live provider is switched off: that outlasts reboots, and a restore would fail."""
    manager, labels = Launchd(context.environ), (LABEL, *context.settings.live.known_labels)
    if manager.program is None:
        return fine("no launchctl, no switched off jobs")
    off = {
        f"{domain}/{label}": None
        for domain in domains()
        for label in manager.disabled(domain, labels)
    }
    if off:
        orders = "; ".join(f"launchctl enable {target}" for target in off)
        return broken(f"switched off: {', '.join(off)}", orders)
    return fine("no job is switched off")


def job(context: CheckContext) -> Finding:
    """The agent's own job, where one is installed: its program exists, and it is not throttled."""
    home = Path(context.environ.get("HOME") or Path.home())
    plist = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    config = Path(context.environ.get("XDG_CONFIG_HOME") or home / ".config")
    unit = config / "systemd" / "user" / "autotuned.service"
    if plist.exists() or plist.is_symlink():
        return _launchd_job(plist)
    if unit.exists():
        return _systemd_unit(unit)
    return fine("not installed: started when asked for, not at login", REINSTALL)


def _launchd_job(path: Path) -> Finding:
    content = plist.read(path)
    if isinstance(content, plist.Unreadable):
        return broken(f"{path} {content.reason}", REINSTALL)
    program, *_ = (*plist.strings(content, "ProgramArguments"), "no program")
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return broken(f"{path}: {error.strerror}", REINSTALL)
    if path.is_symlink() or mode & 0o022:
        return broken(f"{path} is a link, or others may write it: launchd refuses it", REINSTALL)
    if not is_program(program):
        return broken(f"{path} starts {program}, which is not there any more", REINSTALL)
    nice = content.get("Nice")
    if content.get("ProcessType") == "Background" or (isinstance(nice, int) and nice > 0):
        return broken(
            f"{path} makes the job a background one: candidates would be throttled", REINSTALL
        )
    return fine(f"{path} starts {program}")


def _systemd_unit(path: Path) -> Finding:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        start = next(line for line in lines if line.startswith("ExecStart="))
        words = shlex.split(start.partition("=")[2])
    except (OSError, ValueError, StopIteration):
        return broken(f"{path} cannot be read, or has no ExecStart", REINSTALL)
    if not words or not is_program(words[0].replace("%%", "%").replace("$$", "$")):
        return broken(
            f"{path} starts {' '.join(words[:1])}, which is not there any more", REINSTALL
        )
    if any(re.match(r"Nice=\s*[1-9]", line) for line in lines):
        return broken(f"{path} makes the unit nice: candidates would be slowed", REINSTALL)
    return fine(f"{path} starts {words[0]}")


def one_agent(_: CheckContext) -> Finding:
    """No second agent of this user: two would each take the other's candidate for a stranger."""
    others = other_agents()
    if not others:
        return fine("this one alone")
    told = ", ".join(f"pid {pid} (HOME {home})" for pid, home in others)
    return doubt(
        f"other agents of this user run: {told}", "stop those that are not wanted: kill PID"
    )


CHECKS: tuple[Check, ...] = (priority, power, clock, launchd, disabled_jobs, job, one_agent)
