"""Which boot of the machine this is: two equal answers mean that nothing was restarted in between.

Never the boot TIME, which moves when the clock is set. Must not know what anybody concludes from it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FILE_VARIABLE = "AUTOTUNED_BOOT_ID_FILE"
"""Names a file that holds the boot id instead: a container that shares a kernel, or a test that reboots."""
LINUX_FILE = "/proc/sys/kernel/random/boot_id"
TOOL_DEADLINE_S = 5.0


def boot_id(environ: Mapping[str, str]) -> str:
    """The id of this boot; an empty string where the system does not tell (then no two are equal)."""
    if sys.platform == "darwin" and FILE_VARIABLE not in environ:
        return _sysctl("kern.bootsessionuuid")
    try:
        return Path(environ.get(FILE_VARIABLE, LINUX_FILE)).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name],
            capture_output=True,
            text=True,
            check=False,
            timeout=TOOL_DEADLINE_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
