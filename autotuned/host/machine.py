"""What this machine is, how hard a candidate presses it, and memory that is given back to it.

Facts come from the system's own tools, each with a deadline; what cannot be asked reads `unknown` rather
than stopping anything. A `sw_vers` makes it a Mac, as a `launchctl` makes it a machine with launchd.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import psutil

from autotuned.core.model import Conditions, MachineFacts
from autotuned.host.files import text_of
from autotuned.host.others import OtherPrograms
from autotuned.host.ports import members
from autotuned.host.power import low_power, on_ac
from autotuned.shared import tools


class Pressure(StrEnum):
    """Memory pressure as the kernel judges it, in rising order."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


GIB = 2**30
STALLS, MEMORY = Path("/proc/pressure/memory"), Path("/proc/meminfo")
DARWIN_LEVELS = {"1": Pressure.NORMAL, "2": Pressure.WARNING, "4": Pressure.CRITICAL}

STALLED_CRITICAL, STALLED_WARNING = 40.0, 10.0
"""Percent of the last 10 s in which ALL tasks waited for memory (PSI `full`): thrashing starts well below
100, and healthy page-cache reclaim stays in single digits."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGE_BYTES = 64 * 1024
ARENAS = 2
AVAILABLE_CRITICAL, AVAILABLE_WARNING = 0.02, 0.08
"""Shares of memory that the kernel could hand out without swapping."""


def give_memory_back() -> bool:
    """Fix the bound above which memory that is freed goes straight back; False where there is none.

    glibc raises its own as soon as it has seen a larger block; after a few megabytes of input the heap then
    stays as large as its worst moment. Call it before threads start.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    options = (
        (M_MMAP_THRESHOLD, LARGE_BYTES),
        (M_TRIM_THRESHOLD, LARGE_BYTES),
        (M_ARENA_MAX, ARENAS),
    )
    taken = [set_option(name, value) == 1 for name, value in options]
    return all(taken)


def running_since(pid: int | None) -> str | None:
    """When this process was started, in UTC; None where there is none, or the system does not tell."""
    if pid is None:
        return None
    try:
        born = psutil.Process(pid).create_time()
    except (psutil.Error, OSError):
        return None
    return datetime.fromtimestamp(born, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Machine:
    def __init__(self) -> None:
        self._facts: MachineFacts | None = None

    def facts(self) -> MachineFacts:
        """RAM, chip and OS as the recipe names them, as they were when last asked for."""
        return self._facts or self.refresh()

    def refresh(self) -> MachineFacts:
        """Ask again: an update may have come under a running agent. Blocks for as long as the tools take."""
        self._facts = _mac_facts() if tools.find("sw_vers") else _linux_facts()
        return self._facts

    def pressure(self) -> Pressure:
        if sys.platform == "darwin":
            return DARWIN_LEVELS.get(
                tools.ask("sysctl", "-n", "kern.memorystatus_vm_pressure_level"), Pressure.NORMAL
            )
        return linux_pressure(text_of(STALLS), text_of(MEMORY))

    def thermals_nominal(self) -> bool:
        """False while the machine says that heat slows it down; True where it does not say."""
        if sys.platform == "darwin":
            said = tools.ask("notifyutil", "-g", "com.apple.system.thermalpressurelevel")
            return said.split()[-1:] in ([], ["0"])
        return not any(map(_zone_is_hot, Path("/sys/class/thermal").glob("thermal_zone*")))

    def group_rss(self, group: int) -> int:
        """Resident bytes of all processes of a group, 0 when it is gone."""
        total = 0
        for process in members(group):
            with contextlib.suppress(psutil.Error, OSError):
                total += process.memory_info().rss
        return total

    def conditions(self) -> Conditions:
        """Power and load now; what other programs take is not told. Blocks."""
        mains = on_ac()
        return Conditions(
            power_source=None if mains is None else "ac" if mains else "battery",
            low_power=low_power(),
            load_average=round(os.getloadavg()[0], 2),
        )

    def others(self, group: int) -> OtherPrograms:
        """Begin to count what programs take that are neither of a group nor this agent."""
        return OtherPrograms(group)

    def priority(self, pid: int | None = None) -> tuple[int | None, int | None]:
        """Nice value and, on macOS, the scheduler's priority of a process; None where they are not told."""
        pid = pid or os.getpid()
        try:
            nice = os.getpriority(os.PRIO_PROCESS, pid)
        except OSError:
            return None, None
        said = tools.ask("ps", "-o", "pri=", "-p", str(pid)) if sys.platform == "darwin" else ""
        return nice, int(said) if _is_number(said) else None


def linux_pressure(stalls: str, meminfo: str) -> Pressure:
    """The level that `/proc/pressure/memory` and `/proc/meminfo` speak of; normal where both are silent."""
    available, total = (
        re.search(rf"^{name}:\s*(\d{{1,18}})\b", meminfo, re.MULTILINE | re.ASCII)
        for name in ("MemAvailable", "MemTotal")
    )
    memory = int(total[1]) if total else 0
    share = int(available[1]) / memory if available and memory else 1.0
    full = re.search(r"^full\b.*?\bavg10=(\d{1,9}(?:\.\d*)?)", stalls, re.MULTILINE | re.ASCII)
    stalled = float(full[1]) if full else 0.0
    if stalled >= STALLED_CRITICAL or share < AVAILABLE_CRITICAL:
        return Pressure.CRITICAL
    if stalled >= STALLED_WARNING or share < AVAILABLE_WARNING:
        return Pressure.WARNING
    return Pressure.NORMAL


def _zone_is_hot(zone: Path) -> bool:
    """Whether a thermal zone of Linux has reached the first temperature at which the kernel acts."""
    now = text_of(zone / "temp")
    trips = [
        int(degrees)
        for kind in zone.glob("trip_point_*_type")
        if text_of(kind) in ("passive", "hot", "critical")
        and _is_number(degrees := text_of(Path(str(kind).replace("_type", "_temp"))))
    ]
    return _is_number(now) and int(now) >= min((t for t in trips if t > 0), default=sys.maxsize)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,18}", text, re.ASCII) is not None


def _mac_facts() -> MachineFacts:
    told = tools.ask("sysctl", "-n", "hw.memsize")
    ram = int(told) if _is_number(told) else psutil.virtual_memory().total
    version = tools.ask("sw_vers", "-productVersion") or "unknown"
    return MachineFacts(
        ram_gb=round(ram / GIB),
        chip=tools.ask("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine(),
        os_version=f"macOS {version}",
        ram_bytes=ram,
        os_build=tools.ask("sysctl", "-n", "kern.osversion")
        or tools.ask("sw_vers", "-buildVersion"),
    )


def _linux_facts() -> MachineFacts:
    ram = psutil.virtual_memory().total
    release = text_of(Path("/etc/os-release"))
    build = _field(release, "BUILD_ID", "=") or _field(release, "VERSION", "=")
    return MachineFacts(
        ram_gb=math.ceil(ram / GIB),
        chip=_field(text_of(Path("/proc/cpuinfo")), "model name", ":") or platform.machine(),
        os_version=_field(release, "PRETTY_NAME", "=").strip('"') or platform.system(),
        ram_bytes=ram,
        os_build=build.strip('"'),
    )


def _field(text: str, name: str, separator: str) -> str:
    for line in text.splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return ""
