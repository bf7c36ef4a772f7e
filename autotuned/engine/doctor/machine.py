"""Checks of the machine: priority, power, clock, service manager, and whether the agent is the only one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from autotuned.engine.doctor.check import Check, Finding, Scene, broken, doubt, fine
from autotuned.providers import binary as programs
from autotuned.shared import plist
from autotuned.store.runs import Which

LABEL = "live.streamvc.autotuned"
ASK_S = 10.0
NOT_HERE = (112, 125)
INTERACTIVE = 31
"""The lowest priority that macOS gives to what it does not hold back; utility work has 20, background work 4."""
REINSTALL = "autotunectl install"
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""No machine that runs this program is truly before this."""
SKEW = timedelta(minutes=5)


async def priority(scene: Scene) -> Finding:
    """Candidates inherit the agent's priority: measured under a low one, every figure is wrong."""
    nice, priority = await asyncio.to_thread(scene.machine.priority, os.getpid())
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


async def power(scene: Scene) -> Finding:
    """On battery, or in low-power mode, a machine is slower than it is."""
    told = (
        await _pmset(scene) if shutil.which("pmset", path=scene.environ.get("PATH")) else _supply()
    )
    if not told:
        return fine("mains, no low-power mode seen")
    return doubt(
        f"{' and '.join(told)}: figures will be lower than on mains power",
        "plug it in, and switch low-power mode off (System Settings > Battery); schedule set --only-on-ac",
    )


async def _pmset(scene: Scene) -> list[str]:
    batt, now = await asyncio.gather(
        _tool(scene, "pmset", "-g", "batt"), _tool(scene, "pmset", "-g")
    )
    told = ["on battery"] if "'Battery Power'" in batt.out else []
    low = re.search(r"^\s*(?:lowpowermode|powermode)\s+1\b", now.out, re.MULTILINE)
    return [*told, "low-power mode is on"] if low else told


def _supply() -> list[str]:
    with contextlib.suppress(AttributeError, OSError, RuntimeError):
        battery = psutil.sensors_battery()
        if battery is not None and battery.power_plugged is False:
            return ["on battery"]
    return []


async def clock(scene: Scene) -> Finding:
    """A clock that is wrong puts runs into the wrong order, and a schedule into the wrong night."""
    now = datetime.now(UTC)
    remedy = (
        "set the clock by the network: sudo sntp -sS time.apple.com, or timedatectl set-ntp true"
    )
    if now < EARLIEST:
        return broken(f"the clock says {now:%Y-%m-%d %H:%M} UTC", remedy)
    for row in await scene.records.recent(1, None, Which.ALL):
        newest = datetime.fromisoformat(row.started_at_utc)
        if newest > now + SKEW:
            return doubt(f"the newest run began in the future ({row.started_at_utc})", remedy)
    return fine(f"{now:%Y-%m-%d %H:%M} UTC")


async def launchd(scene: Scene) -> Finding:
    """Which domain of launchd this session can reach."""
    if shutil.which("launchctl", path=scene.environ.get("PATH")) is None:
        return fine(
            "no launchctl on the PATH: live providers are looked for among the processes only"
        )
    gui = await _tool(scene, "launchctl", "print", f"gui/{os.getuid()}")
    if gui.code == 0:
        return fine(f"gui/{os.getuid()} answers")
    if gui.code in NOT_HERE:
        return doubt(
            f"there is no gui/{os.getuid()}: nobody is logged in at the screen (ssh only)",
            "jobs are looked for, and installed, in the user domain; they do not come back by themselves after a reboot",
        )
    return broken(
        f"launchctl does not answer as it should: {gui.said}", f"launchctl print gui/{os.getuid()}"
    )


async def disabled(scene: Scene) -> Finding:
    """No job of ours or of the live provider is switched off: that outlasts reboots, and a restore would fail."""
    if shutil.which("launchctl", path=scene.environ.get("PATH")) is None:
        return fine("no launchctl, no switched off jobs")
    off = []
    for domain in (f"gui/{os.getuid()}", f"user/{os.getuid()}"):
        listed = await _tool(scene, "launchctl", "print-disabled", domain)
        off += [
            f"{domain}/{label}"
            for label in (LABEL, *scene.settings.live.known_labels)
            if re.search(rf'"{re.escape(label)}"\s*=>\s*(?:disabled|true)', listed.out)
        ]
    if off:
        orders = "; ".join(f"launchctl enable {target}" for target in dict.fromkeys(off))
        return broken(f"switched off: {', '.join(off)}", orders)
    return fine("no job is switched off")


async def job(scene: Scene) -> Finding:
    """The agent's own job, where one is installed: its program exists, and it is not throttled."""
    home = Path(scene.environ.get("HOME") or Path.home())
    plist = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    config = Path(scene.environ.get("XDG_CONFIG_HOME") or home / ".config")
    unit = config / "systemd" / "user" / "autotuned.service"
    if plist.exists() or plist.is_symlink():
        return await asyncio.to_thread(_launchd_job, plist)
    if unit.exists():
        return await asyncio.to_thread(_systemd_unit, unit)
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
    if not _runs(program):
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
    if not words or not _runs(words[0].replace("%%", "%").replace("$$", "$")):
        return broken(
            f"{path} starts {' '.join(words[:1])}, which is not there any more", REINSTALL
        )
    if any(re.match(r"Nice=\s*[1-9]", line) for line in lines):
        return broken(f"{path} makes the unit nice: candidates would be slowed", REINSTALL)
    return fine(f"{path} starts {words[0]}")


def _runs(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)


async def one_agent(_: Scene) -> Finding:
    """No second agent of this user: two would each take the other's candidate for a stranger."""
    others = await asyncio.to_thread(lambda: list(_other_agents()))
    if not others:
        return fine(f"this one alone, pid {os.getpid()}")
    told = ", ".join(f"pid {pid} (HOME {home})" for pid, home in others)
    return doubt(
        f"other agents of this user run: {told}", "stop those that are not wanted: kill PID"
    )


def _other_agents() -> Iterator[tuple[int, str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            words = process.cmdline()
            module = "autotuned" in words[2:3] and words[1:2] == ["-m"]
            if module or any(Path(word).name == "autotuned" for word in words[:2]):
                yield process.pid, process.environ().get("HOME", "unknown")


async def _tool(scene: Scene, *words: str) -> programs.Answer:
    return await programs.ask(words, scene.environ, timeout_s=ASK_S)


CHECKS: dict[str, Check] = {
    "priority": priority,
    "power": power,
    "clock": clock,
    "launchd": launchd,
    "disabled-jobs": disabled,
    "job": job,
    "one-agent": one_agent,
}
