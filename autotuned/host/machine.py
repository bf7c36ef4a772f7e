"""What this machine is, and how hard a candidate presses it.

Facts come from the system's own tools by absolute path, each with a deadline; what cannot be asked
reads `unknown` rather than stopping anything.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

from autotuned.core.model import MachineFacts
from autotuned.host.interface import Pressure
from autotuned.host.ports import members

GIB = 2**30
TOOL_DEADLINE_S = 5.0
DARWIN_LEVELS = {"1": Pressure.NORMAL, "2": Pressure.WARNING, "4": Pressure.CRITICAL}

STALLED_CRITICAL, STALLED_WARNING = 40.0, 10.0
"""Percent of the last 10 s in which ALL tasks waited for memory (PSI `full`): thrashing starts well below
100, and healthy page-cache reclaim stays in single digits."""
AVAILABLE_CRITICAL, AVAILABLE_WARNING = 0.02, 0.08
"""Shares of memory that the kernel could hand out without swapping."""


class ThisMachine:
    """The machine that the agent runs on."""

    def __init__(self) -> None:
        self._facts: MachineFacts | None = None

    def facts(self) -> MachineFacts:
        """RAM, chip and OS as the recipe names them; asked once, they do not change under a running agent."""
        if self._facts is None:
            self._facts = _darwin_facts() if sys.platform == "darwin" else _linux_facts()
        return self._facts

    def pressure(self) -> Pressure:
        """Memory pressure now, as the kernel judges it."""
        if sys.platform == "darwin":
            return DARWIN_LEVELS.get(
                _sysctl("kern.memorystatus_vm_pressure_level"), Pressure.NORMAL
            )
        return linux_pressure(_read("/proc/pressure/memory"), _read("/proc/meminfo"))

    def thermals_nominal(self) -> bool:
        """False while the machine says that heat slows it down; True where it does not say."""
        if sys.platform == "darwin":
            said = _tool("/usr/bin/notifyutil", "-g", "com.apple.system.thermalpressurelevel")
            return said.split()[-1:] in ([], ["0"])
        return not any(map(_zone_is_hot, Path("/sys/class/thermal").glob("thermal_zone*")))

    def group_rss(self, group: int) -> int:
        """Resident bytes of all processes of a group, 0 when it is gone."""
        total = 0
        for process in members(group):
            with contextlib.suppress(psutil.Error, OSError):
                total += process.memory_info().rss
        return total


def linux_pressure(stalls: str, meminfo: str) -> Pressure:
    """The level that `/proc/pressure/memory` and `/proc/meminfo` speak of; normal where both are silent."""
    sizes = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in meminfo.splitlines())
        if rest
    }
    share = sizes.get("MemAvailable", 1) / sizes.get("MemTotal", 1)
    full = next((line for line in stalls.splitlines() if line.startswith("full")), "")
    stalled = next((float(word[6:]) for word in full.split() if word.startswith("avg10=")), 0.0)
    if stalled >= STALLED_CRITICAL or share < AVAILABLE_CRITICAL:
        return Pressure.CRITICAL
    if stalled >= STALLED_WARNING or share < AVAILABLE_WARNING:
        return Pressure.WARNING
    return Pressure.NORMAL


def _zone_is_hot(zone: Path) -> bool:
    """Whether a thermal zone of Linux has reached the first temperature at which the kernel acts."""
    now = _read(f"{zone}/temp").strip()
    trips = [
        int(degrees)
        for kind in zone.glob("trip_point_*_type")
        if _read(str(kind)).strip() in ("passive", "hot", "critical")
        and (degrees := _read(str(kind).replace("_type", "_temp")).strip()).isdigit()
    ]
    return now.isdigit() and int(now) >= min((t for t in trips if t > 0), default=sys.maxsize)


def _darwin_facts() -> MachineFacts:
    ram = int(_sysctl("hw.memsize") or 0) or psutil.virtual_memory().total
    version = _tool("/usr/bin/sw_vers", "-productVersion") or "unknown"
    chip = _sysctl("machdep.cpu.brand_string") or platform.machine()
    return MachineFacts(
        ram_gb=round(ram / GIB), chip=chip, os_version=f"macOS {version}", ram_bytes=ram
    )


def _linux_facts() -> MachineFacts:
    ram = psutil.virtual_memory().total
    chip = _field(_read("/proc/cpuinfo"), "model name", ":") or platform.machine()
    release = _field(_read("/etc/os-release"), "PRETTY_NAME", "=") or platform.system()
    return MachineFacts(
        ram_gb=math.ceil(ram / GIB), chip=chip, os_version=release.strip('"'), ram_bytes=ram
    )


def _field(text: str, name: str, separator: str) -> str:
    for line in text.splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    return _tool("/usr/sbin/sysctl", "-n", name)


def _tool(*command: str) -> str:
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=TOOL_DEADLINE_S,
            stdin=subprocess.DEVNULL,
            env=environ,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
