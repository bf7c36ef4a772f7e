"""The model hub: one session, the helper process that downloads, and what both know of a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository. `size` None: the hub did not say."""

    name: str
    size: int | None
    sha256: str | None
    git_sha1: str | None
    etag: str | None = None
    """What names its content where neither hash is known."""

    @property
    def bytes(self) -> int:
        """Its size, as far as the hub says."""
        return self.size or 0

    @property
    def digest(self) -> str | None:
        """What its content is compared with: large files go by their SHA-256, small ones by git's hash."""
        return self.sha256 or self.git_sha1


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository's main revision: its commit and its files by name."""

    repo: str
    commit: str
    files: Mapping[str, RemoteFile]

    def bytes_of(self, names: Sequence[str]) -> int:
        return sum(self.files[name].bytes for name in names)


class HubFault(Exception):
    """Why the hub did not give what was asked for. `integrity`: it gave something else.

    `unreachable`: nobody answers at all, and nobody will for another repository.
    """

    def __init__(self, reason: str, *, integrity: bool = False, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.integrity, self.unreachable = reason, integrity, unreachable
