"""The system's own small programs (`sw_vers`, `sysctl`, `pmset` ...), found and asked one short question.

A tool is the one on the agent's PATH, else the one in the system's folders: launchd gives a job just those,
and whoever may change the PATH of the agent may run programs as its user anyway. Must not know the answers.
"""

from __future__ import annotations

import os
import shutil
import subprocess

SYSTEM_FOLDERS = "/usr/bin:/bin:/usr/sbin:/sbin"
DEADLINE_S = 5.0


def find(name: str) -> str | None:
    """The absolute path of a tool; None where this system has none."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)


def ask(name: str, *arguments: str) -> str:
    """What the tool prints, stripped; empty where there is none, it fails, or it is silent for 5 s. Blocks."""
    program = find(name)
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=DEADLINE_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
