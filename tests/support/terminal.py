"""The client on a terminal: a pseudo-terminal of a given size, what it was shown, and keys typed into it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import Any

from tests.support.home import DEADLINE_S, Home

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MOVEMENTS = re.compile(r"(?:\x1b\[[0-9;?]*[A-Za-z]|\r)+")
CTRL_C = b"\x03"
PROGRAM = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C typed there is a signal here
from autotunectl.__main__ import main
main(prog_name="autotunectl")
"""


class Terminal:
    """`autotunectl WORDS` with a terminal for stdin, stdout and stderr."""

    def __init__(
        self, home: Home, *words: str, columns: int = 80, environ: dict[str, str] | None = None
    ) -> None:
        self._master, theirs = pty.openpty()
        self.shown = ""
        self.resize(columns)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env={**home.environ, "TERM": "xterm-256color", **(environ or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd="/",
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def resize(self, columns: int) -> None:
        """As a window that is made wider or narrower."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def until(self, text: str, deadline_s: float = DEADLINE_S) -> None:
        """Read on until it has shown `text`."""
        self._read(lambda: text in self.plain, f"shows {text!r}", deadline_s)

    def end(self, deadline_s: float = DEADLINE_S) -> int:
        """Read on until the client has ended; its exit code."""
        self._read(lambda: self.process.poll() is not None, "ends", deadline_s)
        with contextlib.suppress(OSError):
            while select.select([self._master], [], [], 0)[0]:
                self.shown += os.read(self._master, 65536).decode()
        return self.process.wait()

    @property
    def plain(self) -> str:
        """All that was shown, one thing after the other: no colours, a new line for a movement of the cursor."""
        text = COLOURS.sub("", self.shown).replace("\r\n", "\n")
        return MOVEMENTS.sub("\n", text)

    def _read(self, condition: Any, what: str, deadline_s: float) -> None:
        deadline = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > deadline:
                message = (
                    f"not within {deadline_s:g} s: {what}; shown so far:\n{self.plain[-2000:]}"
                )
                raise AssertionError(message)
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    self.shown += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # Linux says so where the other end is closed
                    self.process.wait(DEADLINE_S)


class Screen:
    """What a terminal of a given width shows; made narrower or wider, it breaks its lines anew, as terminals do."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._lines = [""]
        self._line = self._at = 0

    @property
    def lines(self) -> list[str]:
        """All rows, those that have been scrolled away too."""
        return [self._lines[line][start : start + self.columns] for line, start in self._rows()]

    def feed(self, shown: str) -> None:
        """Show what a program has written."""
        for escape, letter in re.findall(r"\x1b\[([0-9;?]*[A-Za-z])|([\s\S])", shown):
            if letter == "\n":
                self._down()
            elif letter == "\r":
                self._at = self._rows()[self._row()][1]
            elif letter:
                line = self._lines[self._line].ljust(self._at)
                self._lines[self._line] = line[: self._at] + letter + line[self._at + 1 :]
                self._at += 1
            elif escape.endswith("A"):
                self._go(max(0, self._row() - int(escape[:-1] or 1)))
            elif escape == "J":
                self._lines = [*self._lines[: self._line], self._lines[self._line][: self._at]]
            elif not escape.endswith(("m", "h", "l")):
                message = f"unknown escape {escape!r}"
                raise AssertionError(message)

    def _rows(self) -> list[tuple[int, int]]:
        return [
            (index, start)
            for index, line in enumerate(self._lines)
            for start in range(0, max(1, len(line)), self.columns)
        ]

    def _row(self) -> int:
        """The row of the cursor; behind a full row it waits there."""
        start = self._at // self.columns * self.columns
        if start and start == self._at == len(self._lines[self._line]):
            start -= self.columns
        return self._rows().index((self._line, start))

    def _go(self, row: int) -> None:
        column = self._at - self._rows()[self._row()][1]
        self._line, start = self._rows()[row]
        self._at = start + column

    def _down(self) -> None:
        if self._row() + 1 < len(self._rows()):
            self._go(self._row() + 1)
        else:
            self._lines.append("")
            self._line, self._at = len(self._lines) - 1, 0
