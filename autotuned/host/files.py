"""Folders that nobody else may enter, private files, locks that die with us."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from autotuned.errors import UnsafePath
from autotuned.host import failpoint
from autotuned.host.clock import utc_now
from autotuned.shared import files as shared

write_atomic = functools.partial(shared.write_atomic, reached=failpoint.reach)
"""The one way to write a file, with points at which tests kill the agent."""


def private_folder(path: Path) -> None:
    """Make `path` a folder that is ours alone (0700), or verify that it is. Raises UnsafePath with the mend."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        why = f"cannot be made: {error.strerror}; make its parent folder writable for this user"
        raise UnsafePath(path, why) from error
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafePath(path, "is not a folder of its own (a symlink or a file); remove it")
    if fault := shared.open_to_others(path, found):
        raise UnsafePath(path, f"{fault[0]}; run: {fault[1]}")


def write_private(path: Path, text: str) -> None:
    """Write a new file that nobody else can read, in place of an older one. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def refuse_root_elsewhere(path: Path) -> None:
    """Raise UnsafePath where root would work in somebody else's home, as under sudo, and leave files of root there."""
    if os.geteuid() != 0:
        return
    nearest = shared.nearest_there(path)
    owner = nearest.stat().st_uid
    if owner != 0:
        why = f"belongs to uid {owner}, and this is root: run it as that user, without sudo"
        raise UnsafePath(nearest, why)


@dataclass(slots=True)
class Lock:
    """A held `flock`; it ends with `release`, or with this process and all that share the descriptor."""

    path: Path
    descriptor: int

    def sign(self) -> None:
        """Write down that this process holds it now: it may have come with the descriptor."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, f"pid {os.getpid()} since {utc_now()}\n".encode(), 0)

    def retake(self) -> bool:
        """True when it is ours: still, where it came with the descriptor, or again, where it was free."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self.sign()
        return True

    def __enter__(self) -> None:
        """It is held; leaving lets it go."""

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let it go, also for those that share the descriptor. Idempotent."""
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            os.close(self.descriptor)
            self.descriptor = -1


def take_lock(path: Path) -> Lock | None:
    """Lock `path` and write who holds it and since when; None when somebody else does. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours, named = os.fstat(descriptor), path.stat()
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            os.close(descriptor)
            continue
        if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino):
            break
        os.close(descriptor)  # replaced between open and lock: try the new one
    lock = Lock(path, descriptor)
    lock.sign()
    return lock


def lock_holder(path: Path) -> str:
    """`pid N since T`, as its holder wrote it."""
    return text_of(path)[:100] or "another process"


def text_of(path: Path) -> str:
    """What a file holds, stripped; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
