"""Which boot of the machine this is, and which process a pid means: neither can be mistaken later.

Standard library only: the guardian uses it in an interpreter without packages.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from autotuned.shared import tools


def boot_id(environ: Mapping[str, str] = os.environ) -> str:
    """The identity of this boot; a clock that is set changes nothing about it. `unknown` where nobody tells.

    `AUTOTUNED_BOOT_ID_FILE` names a file that tells it instead, for tests and containers.
    """
    told = environ.get("AUTOTUNED_BOOT_ID_FILE")
    if told is None and sys.platform == "darwin":
        return _ask("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid") or "unknown"
    try:
        with open(told or "/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except (OSError, ValueError):
        return "unknown"


def started(pid: int) -> str | None:
    """When the process `pid` was started, as a word to compare within one boot; None when none is alive."""
    if sys.platform == "darwin":
        words = _ask("/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)).split()
        return None if not words or words[0].startswith("Z") else " ".join(words[1:])
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return fields[19].decode("ascii", "replace")


def alive(pid: int, since: str | None = None) -> bool:
    """There is a process `pid`, no zombie, and the very one that was started at `since`, where given."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return since is None
    now = started(pid)
    return now is not None and since in (None, now)


def age_s(pid: int) -> float:
    """How long ago the process was started; 0 where none is alive."""
    if sys.platform == "darwin":
        days, _, clock = ("0-" + _ask("/bin/ps", "-o", "etime=", "-p", str(pid))).rpartition("-")
        parts = [int(part) for part in clock.split(":") if part.isdigit()]
        seconds = sum(part * 60**place for place, part in enumerate(reversed(parts)))
        return seconds + 86_400.0 * int(days.rpartition("-")[2] or 0)
    since = started(pid)
    if since is None:
        return 0.0
    ticks = int(since) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks)


def parent(pid: int) -> int:
    """The process that has started it, or to which it was left; 0 where that cannot be read."""
    if sys.platform == "darwin":
        word = _ask("/bin/ps", "-o", "ppid=", "-p", str(pid))
        return int(word) if word.isdigit() else 0
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _ask(*command: str) -> str:
    """Without the caller's environment: times are in the machine's own zone, whoever asks."""
    answer = tools.run(command, environ={"PATH": os.defpath})
    return answer.out.strip() if answer.code == 0 else ""
