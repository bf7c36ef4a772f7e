"""Files that must not be half written, folders that nobody else may enter, locks that die with us."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autotuned.errors import UnsafePath
from autotuned.host import failpoint
from autotuned.host.clock import utc_now

F_FULLFSYNC = 51
"""Darwin's fsync stops at the drive's cache; this goes through it. Elsewhere the call is refused."""

ACL = "system.posix_acl_access"
COPYFILE_ACL, COPYFILE_XATTR = 1 << 0, 1 << 2


def write_atomic(
    path: Path,
    data: bytes,
    mode: int = 0o600,
    *,
    owner: tuple[int, int] | None = None,
    like: Path | None = None,
    still_wanted: Callable[[], bool] = lambda: True,
    exclusive: bool = False,
) -> bool:
    """Replace `path` so that a reader, or a crash, sees the old content or the new, whole. Raises OSError.

    `owner` is uid and gid where they must be kept, `like` a file whose access control list and extended
    attributes go along: where its list cannot be kept, the mode becomes 0600, for without it the same
    mode may let others in. `still_wanted` is asked at the last moment; with `exclusive` a file that
    stands there is never replaced. False when either came to nothing.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(
        part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            kept = like is None or _access_kept(like, file.fileno())
            _keep(file.fileno(), mode if kept else mode & 0o600, owner)
            sync(file.fileno())
        failpoint.reach("file.written")
        if not still_wanted() or not _put(part, path, exclusive=exclusive):
            return False
    finally:
        part.unlink(missing_ok=True)
    failpoint.reach("file.renamed")
    sync_folder(path.parent)
    return True


def _access_kept(like: Path, descriptor: int) -> bool:
    """Give a file the access control list and the extended attributes of `like`; False where the list is lost."""
    if sys.platform == "darwin":
        source = os.open(like, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            copied = ctypes.CDLL(None).fcopyfile(
                source, descriptor, None, COPYFILE_ACL | COPYFILE_XATTR
            )
        finally:
            os.close(source)
        return bool(copied == 0)
    with contextlib.suppress(OSError):  # what a folder gives to each new file: not this one's
        os.removexattr(descriptor, ACL)
    kept = True
    for name in _attributes(like):
        try:
            os.setxattr(descriptor, name, os.getxattr(like, name, follow_symlinks=False))
        except OSError:  # those of the system may be beyond this user
            kept = kept and name != ACL
    return kept


def _attributes(path: Path) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOENT):
            raise
        return []


def _keep(descriptor: int, mode: int, owner: tuple[int, int] | None) -> None:
    """Give a file its mode and owner, whatever the umask and the folder say."""
    found = os.fstat(descriptor)
    if owner is not None and owner != (found.st_uid, found.st_gid):
        os.fchown(descriptor, *owner)
    os.fchmod(descriptor, mode)


def _put(part: Path, path: Path, *, exclusive: bool) -> bool:
    if not exclusive:
        part.replace(path)
        return True
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Put what was named, renamed or removed in a folder on the disk itself, where the disk can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Put what was written on the disk itself."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, F_FULLFSYNC)
            return
    os.fsync(descriptor)


def private_folder(path: Path) -> None:
    """Make `path` a folder that is ours alone (0700), or verify that it is. Raises UnsafePath with the mend."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        message = f"{path}: cannot be made: {error.strerror}; make its parent folder writable for this user"
        raise UnsafePath(message, path=str(path)) from error
    if not stat.S_ISDIR(found.st_mode):
        message = f"{path}: is not a folder of its own (a symlink or a file); remove it"
    elif found.st_uid != os.geteuid():
        message = f"{path}: belongs to uid {found.st_uid}, not to {os.geteuid()}; run: chown {os.geteuid()} '{path}'"
    elif stat.S_IMODE(found.st_mode) & 0o077:
        message = f"{path}: has mode {stat.S_IMODE(found.st_mode):04o}, others may enter; run: chmod 700 '{path}'"
    else:
        return
    raise UnsafePath(message, path=str(path))


def refuse_root_elsewhere(path: Path) -> None:
    """Raise UnsafePath where root would work in somebody else's home, as under sudo, and leave files of root there."""
    if os.geteuid() != 0:
        return
    nearest = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    owner = nearest.stat().st_uid
    if owner != 0:
        message = f"{nearest}: belongs to uid {owner}, and this is root: run it as that user, without sudo"
        raise UnsafePath(message, path=str(nearest))


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
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:100] or "another process"
    except OSError:
        return "another process"
