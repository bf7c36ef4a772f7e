"""A file that belongs to the operator: looked at whole, backed up, and replaced only if it is still the same.

Names are followed through symlinks, so that a link stays a link. Must not know what the file says,
nor quote it: it may hold secrets. Standard library only: whoever rolls a change back uses it too.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.lease import Lines, Rollback
from autotuned.errors import ApplyRefused, UnsafePath
from autotuned.host import failpoint
from autotuned.host.files import write_atomic
from autotuned.shared import tools
from autotuned.shared.files import sync_folder

MAX_BYTES = 1024 * 1024
MAX_BACKUPS = 65_536
"""Backups that one second can have: numbered from 0 to 65,535."""
NEW_MODE = 0o600
ATTEMPTS = 4
LOCK = ".config.yaml.lock"
LOCK_S, LOCK_POLL_S = 5.0, 0.05
"""The provider's lock beside its file, how long another writer is waited for, how often it is tried."""


@dataclass(frozen=True, slots=True)
class Original:
    """The file at one moment. Two looks are equal when nobody has written or replaced it between them."""

    path: Path
    """As it is named."""
    target: Path
    """What that name leads to, all links followed."""
    content: bytes | None
    """None where there is no file yet."""
    identity: tuple[int, ...] = ()
    """Device, inode, modification time in nanoseconds, size."""
    mode: int = NEW_MODE
    owner: tuple[int, int] | None = None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that the provider's own writers take, from reading to renaming.

    It lies beside the file that `path` leads to, and stays there. Raises ApplyRefused (`locked`) when
    somebody else has it for 5 s, UnsafePath where it is no plain file, OSError where it cannot be made.
    """
    lock = Path(os.path.realpath(path)).with_name(LOCK)
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, NEW_MODE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise UnsafePath(lock, f"must be a plain file, the lock of {path}: remove it") from None
        raise
    try:
        deadline = time.monotonic() + LOCK_S
        while not _flocked(descriptor):
            if time.monotonic() >= deadline:
                message = (
                    f"{path}: {_holders(lock)} holds its lock {lock} "
                    f"for more than {LOCK_S:g} s; nothing has been changed: try again"
                )
                raise ApplyRefused(message, "locked", config_path=str(path))
            time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _flocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(lock: Path) -> str:
    """`name (pid n)` of the other processes that have a lock's file open, as far as they can be seen."""
    found: list[tuple[str, str]] = []
    if sys.platform == "darwin":
        fields = tools.ask("lsof", "-Fpc", "--", str(lock)).splitlines()
        found = [
            (pid[1:], name[1:])
            for pid, name in itertools.pairwise(fields)
            if pid.startswith("p") and name.startswith("c")
        ]
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            if any(_leads_to(opened, lock) for opened in (entry / "fd").iterdir()):
                found.append((entry.name, (entry / "comm").read_text(errors="replace").strip()))
    others = [f"{name} (pid {pid})" for pid, name in found if pid != str(os.getpid())]
    return ", ".join(others) or "another program"


def _leads_to(link: Path, file: Path) -> bool:
    with suppress(OSError):
        return link.readlink() == file
    return False


def look(path: Path) -> Original:
    """The file at `path` now. Raises UnsafePath for what is no plain file of its own, OSError where it cannot be read."""
    target = Path(os.path.realpath(path))
    try:
        found = target.lstat()
    except FileNotFoundError:
        if target.parent.is_dir():
            return Original(path, target, None)
        raise
    _must_be_plain(path, found)
    descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        _must_be_plain(path, found)
        content = file.read(MAX_BYTES + 1)
    identity = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    owner = (found.st_uid, found.st_gid)
    return Original(path, target, content, identity, stat.S_IMODE(found.st_mode), owner)


def back_up(original: Original, unix_s: int) -> Path | None:
    """A durable copy beside the name, `<name>.bak-<unix_s>-<n>`, n the lowest free number; None for no file.

    Also where the name is a link: the backups are in one place, whatever it leads to. Never overwrites. Mode, owner and access control list are the original's. Raises OSError.
    """
    if original.content is None:
        return None
    names = {beside.name for beside in original.path.parent.iterdir()}
    for number in range(MAX_BACKUPS):
        copy = original.path.with_name(f"{original.path.name}.bak-{unix_s}-{number}")
        if copy.name not in names and write_atomic(
            copy,
            original.content,
            original.mode,
            owner=original.owner,
            like=original.target,
            exclusive=True,
        ):
            return copy
    message = f"all {MAX_BACKUPS} backup names of this second are taken"
    raise FileExistsError(message)


def replace(original: Original, content: bytes) -> bool:
    """Put `content` in the file's place, atomically; False when it is no longer the one that was looked at.

    Raises OSError, and leaves everything as it was then.
    """
    return write_atomic(
        original.target,
        content,
        original.mode,
        owner=original.owner,
        like=None if original.content is None else original.target,
        still_wanted=lambda: untouched(original),
        exclusive=original.content is None,
    )


def backups(path: Path) -> list[Path]:
    """The backups of the file at `path`, newest first."""
    pattern = re.compile(rf"{re.escape(path.name)}\.bak-(\d{{1,19}})-(\d{{1,5}})")
    found = [
        (int(match[1]), int(match[2]), beside)
        for beside in path.parent.iterdir()
        if (match := pattern.fullmatch(beside.name)) and not beside.is_symlink()
    ]
    return [backup for *_, backup in sorted(found, reverse=True)]


def untouched(original: Original) -> bool:
    """Nobody has written, replaced or moved the file since it was looked at."""
    try:
        return look(original.path) == original
    except (OSError, UnsafePath):
        return False


def sweep(path: Path) -> None:
    """Remove what a writer that was killed has left beside the file and its name: temporary copies."""
    for home in {path, Path(os.path.realpath(path))}:
        pattern = re.compile(rf"\.{re.escape(home.name)}(\.bak-\d+-\d+)?\.[0-9a-f]{{8}}")
        for beside in home.parent.iterdir():
            if pattern.fullmatch(beside.name):
                beside.unlink(missing_ok=True)


def _must_be_plain(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        rule = "is not a regular file: move it aside"
    elif found.st_nlink > 1:
        rule = f"has {found.st_nlink} names (hard links), which a new file would part: make it a copy of its own"
    elif found.st_size > MAX_BYTES:
        rule = f"has {found.st_size} bytes, more than the {MAX_BYTES} of any configuration"
    else:
        return
    raise UnsafePath(path, rule)


def roll_back(record: Rollback) -> None:
    """Put back what `record` tells of: the old file whole while nobody else has written it, else our own lines.

    Idempotent; what somebody has changed since stays as it is. Raises AutotunedError or OSError, the file as it was then.
    """
    path = Path(record["path"])
    with locked(path):
        for _ in range(ATTEMPTS):
            original = look(path)
            if original.content is None or _replaced(original, _before(record, original.content)):
                failpoint.reach("rollback.replaced")
                return
    raise UnsafePath(path, "somebody else keeps writing it")


def _before(record: Rollback, content: bytes) -> bytes | None:
    """The content to put back; None where there was no file."""
    if hashlib.sha256(content).hexdigest() == record["sha256"]:
        if record["backup"] is None:
            return None
        backup = look(Path(record["backup"])).content
        if backup is not None:
            return backup
    text = content.decode("utf-8", "surrogateescape")
    for lines in record["lines"]:
        text = _line_put_back(text, lines)
    return text.encode("utf-8", "surrogateescape")


def _line_put_back(text: str, lines: Lines) -> str:
    """`text` with the old lines of one key, where ours stand as we wrote them."""
    new, old = lines["new"], lines["old"] or ""
    if new is None:
        if any(line.startswith(f"{lines['key']}:") for line in text.splitlines()):
            return text
        return (text if text.endswith("\n") or not text else f"{text}\n") + old
    at = 0 if text.startswith(new) else text.find(f"\n{new}") + 1
    end = at + len(new)
    if not text.startswith(new, at) or not (
        new.endswith("\n") or text[end : end + 1] in ("", "\n")
    ):
        return text
    if old and not old.endswith("\n") and new.endswith("\n"):
        old += "\n"
    return text[:at] + old + text[end:]


def _replaced(original: Original, content: bytes | None) -> bool:
    """False where somebody was quicker."""
    if content == original.content:
        return True
    if content is not None:
        return replace(original, content)
    if not untouched(original):
        return False
    original.target.unlink()
    sync_folder(original.target.parent)
    return True
