"""One repository in the hub's cache: the library's own layout, under the library's own locks.

Part of the process that speaks to the hub, which alone writes there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from autotuned.shared.files import write_atomic
from autotuned.weights.hub.faults import Fault

OURS = ".autotuned.incomplete"
"""What our partial files end with."""
STALE_S, OURS_STALE_S = 3600.0, 7 * 86400.0
"""Partial files this old, whose lock nobody holds, are rubbish; ours are kept longer, to be resumed."""


class Folder:
    """One repository in the cache, in the library's own layout and under its own locks."""

    def __init__(self, cache: Path, repo: str, commit: str) -> None:
        self.repo, self.commit = repo, commit
        name = f"models--{repo.replace('/', '--')}"
        self.root, self._locks = cache / name, cache / ".locks" / name
        self.blobs = self.root / "blobs"

    def make(self) -> None:
        """Create what is missing. Raises OSError."""
        for folder in (self.blobs, self.root / "snapshots" / self.commit, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    def pointer(self, name: str) -> Path:
        """Where the revision has its file `name`. Raises Fault for a name that leads out of it."""
        if name.startswith("/") or ".." in name.split("/"):
            message = f"the hub lists a file with the name {name!r}"
            raise Fault(message, integrity=True)
        return self.root / "snapshots" / self.commit / name

    def link(self, blob: Path, pointer: Path) -> None:
        """Let the revision's name point to the blob; where the disk knows no links, be the blob."""
        if pointer.exists():
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)  # a link into nothing
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            blob.replace(pointer)

    def settle(self) -> None:
        """Name the revision as main."""
        refs = self.root / "refs"
        refs.mkdir(exist_ok=True)
        write_atomic(refs / "main", self.commit.encode(), None)

    @contextlib.contextmanager
    def lock(self, etag: str) -> Iterator[None]:
        """One process at a time fetches a blob; the library takes the same lock."""
        with (self._locks / f"{etag}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def sweep(self) -> None:
        """Remove partial files that nobody will finish: old, and without a living owner."""
        for part in self.blobs.glob("*.incomplete"):
            with contextlib.suppress(OSError):
                ours = part.name.endswith(OURS)
                if time.time() - part.stat().st_mtime < (OURS_STALE_S if ours else STALE_S):
                    continue
                with (self._locks / f"{part.name.partition('.')[0]}.lock").open("a") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
