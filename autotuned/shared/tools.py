"""Programs of this machine, found and run to their end: with a deadline, no terminal, and in plain English.

A tool is the one on the PATH, else the one in the system's folders: launchd gives a job just those, and
whoever may change the PATH may run programs as this user anyway. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from autotuned.shared.text import one_line

SYSTEM_FOLDERS = "/usr/bin:/bin:/usr/sbin:/sbin"
DEADLINE_S = 5.0
OUTPUT_LIMIT = 256 * 1024
"""Bytes of each output that are read."""
LATE = "did not answer in time"


class Answer(NamedTuple):
    """How a program ended. `code` None: not in time, or it could not be started, as `err` then says."""

    code: int | None
    out: str
    err: str

    @property
    def line(self) -> str:
        """Both outputs on one line, for a message; at most 300 characters."""
        return one_line(f"{self.out} {self.err}")[:300].strip() or "no output"

    @property
    def ended(self) -> str:
        return LATE if self.code is None else f"exited with code {self.code}"


def find(name: str) -> str | None:
    """The absolute path of a tool; None where this system has none."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)


def is_program(path: str | Path) -> bool:
    """A file that this user may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113


def run(
    argv: Sequence[str],
    timeout_s: float = DEADLINE_S,
    environ: Mapping[str, str] | None = None,
    name: str | None = None,
) -> Answer:
    """Run `argv` to its end; after `timeout_s` its process group is killed. Blocks; raises nothing for the program.

    `name`: how a message names it, else by its first words. Its outputs are files: whoever inherits them cannot keep us waiting.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**(os.environ if environ is None else environ), "LC_ALL": "C"},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Answer(None, "", f"{argv[0]} cannot be started: {error}")
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            name = name or " ".join([os.path.basename(argv[0]), *argv[1:3]])  # noqa: PTH119
            return Answer(None, "", f"{name} {LATE} ({timeout_s:g} s)")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = []
        for output in (out, err):
            output.seek(0)
            texts.append(output.read(OUTPUT_LIMIT).decode("utf-8", "replace"))
    return Answer(process.returncode, *texts)


def ask(name: str, *arguments: str, timeout_s: float = DEADLINE_S) -> str:
    """What the tool prints, stripped; empty where there is none, it fails, or it is silent for too long. Blocks."""
    program = find(name)
    answer = run([program, *arguments], timeout_s) if program else None
    return answer.out.strip() if answer is not None and answer.code == 0 else ""
