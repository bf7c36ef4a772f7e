"""The system's own small programs (`sw_vers`, `sysctl`, `pmset` ...), found and asked one short question; and logs.

A tool is the one on the agent's PATH, else the one in the system's folders: launchd gives a job just those,
and whoever may change the PATH of the agent may run programs as its user anyway. Must not know the answers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from autotuned.shared.redaction import masker

SYSTEM_FOLDERS = "/usr/bin:/bin:/usr/sbin:/sbin"
DEADLINE_S = 5.0
TAIL_BYTES = 16 * 1024
LONGEST_LINE = 300


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


def last_line(logs: Sequence[Path]) -> str:
    """The last line of the first of these logs that has one, secrets masked, and where that is."""
    for log in logs:
        line = _tail(log)
        if line:
            return f"{line} (its log: {log})"
    return f"it printed nothing (its log: {logs[0]})" if logs else "its job names no log"


def shown(line: str) -> str:
    """A line of a foreign program, for a person: printable, bounded, secrets masked."""
    printable = "".join(letter if letter.isprintable() else " " for letter in line)
    return masker(())(printable)[:LONGEST_LINE]


def _tail(log: Path) -> str | None:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    line = next((line.strip() for line in reversed(lines) if line.strip()), None)
    return None if line is None else shown(line)
