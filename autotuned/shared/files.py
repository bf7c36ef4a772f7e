"""The one way to write a file: whole or not at all, also where the machine loses its power. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path

F_FULLFSYNC = 51
"""Darwin's fsync stops at the drive's cache; this goes through it. Elsewhere the call is refused."""

ACL = "system.posix_acl_access"
COPYFILE_ACL, COPYFILE_XATTR = 1 << 0, 1 << 2


def write_atomic(
    path: Path,
    data: bytes,
    mode: int | None = 0o600,
    *,
    owner: tuple[int, int] | None = None,
    like: Path | None = None,
    still_wanted: Callable[[], bool] = lambda: True,
    exclusive: bool = False,
    reached: Callable[[str], None] = lambda _: None,
) -> bool:
    """Replace `path` so that a reader, or a crash, sees the old content or the new, whole. Raises OSError.

    `mode` None is what the umask leaves. `owner` is uid and gid where they must be kept, `like` a file whose access control list and extended
    attributes go along: where its list cannot be kept, the mode becomes 0600, for without it the same
    mode may let others in. `still_wanted` is asked at the last moment; with `exclusive` a file that
    stands there is never replaced. False when either came to nothing. `reached` is told of the steps.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(
        part,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o666 if mode is None else mode & 0o600,
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            kept = like is None or _access_kept(like, file.fileno())
            if mode is not None:
                _keep(file.fileno(), mode if kept else mode & 0o600, owner)
            sync(file.fileno())
        reached("file.written")
        if not still_wanted() or not _put(part, path, exclusive=exclusive):
            return False
    finally:
        part.unlink(missing_ok=True)
    reached("file.renamed")
    sync_folder(path.parent)
    return True


def _access_kept(like: Path, descriptor: int) -> bool:
    """Give a file the access control list and the extended attributes of `like`; False where the list is lost."""
    if sys.platform == "darwin":
        import ctypes  # noqa: PLC0415 - costs start-up time

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


def nearest_there(path: Path) -> Path:
    """`path` itself, or of its parents the nearest that exists."""
    return next((each for each in (path, *path.parents) if each.exists()), path)


def open_to_others(path: Path, status: os.stat_result) -> tuple[str, str] | None:
    """Why somebody else may enter `path`, and the command against it; None where it is this user's alone."""
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        return (
            f"belongs to uid {status.st_uid}, not to {os.geteuid()}",
            f"sudo chown {os.geteuid()} '{path}'",
        )
    if mode & 0o077:
        wanted = "700" if stat.S_ISDIR(status.st_mode) else "600"
        return f"has mode {mode:04o}, others may enter", f"chmod {wanted} '{path}'"
    return None
