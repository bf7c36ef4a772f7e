"""What launchd says about a job, asked through `launchctl` wherever one is on the PATH.

Exit codes are trusted before any text: 0 loaded, 113 not loaded, 112 and 125 no such domain here.
Must not know why anybody asks.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job that launchd has loaded: `domain` is where it was found and where it belongs."""

    domain: str
    label: str


class Launchd:
    """The launchd of this user."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {**environ, "LC_ALL": "C"}
        self._uid = os.getuid()

    def available(self) -> bool:
        """True where a `launchctl` is on the PATH."""
        return self._program() is not None

    async def loaded(self, labels: Sequence[str]) -> LoadedJob | None:
        """The first of `labels` that is loaded, in `gui`, `user` or `system`; None when none is.

        A launchctl that hangs or fails counts as "not known to be loaded" for that domain.
        """
        if not self.available():
            return None
        for label in labels:
            for domain in (f"gui/{self._uid}", f"user/{self._uid}", "system"):
                if await self._succeeds("print", f"{domain}/{label}"):
                    return LoadedJob(domain, label)
        return None

    def _program(self) -> str | None:
        return shutil.which("launchctl", path=self._environ.get("PATH"))

    async def _succeeds(self, *arguments: str) -> bool:
        process = await asyncio.create_subprocess_exec(
            self._program() or "launchctl",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=self._environ,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await process.wait() == 0
        except TimeoutError:
            return False
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
