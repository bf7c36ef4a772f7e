"""The model hub as the agent sees it: what a repository holds, and bringing its files into the cache.

The work is done by a process of its own (`process.py`), which dies with `async with`. Retries and
time-outs are the process's; budget and cancel are the caller's. Must not know what a run is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autotuned.host.children.programs import Helper, HelperDied
from autotuned.weights.hub import HubFault, Listing, RemoteFile

ROOT = Path(__file__).parents[3]
PROCESS = f"import sys; sys.path.append({str(ROOT)!r}); from autotuned.weights.hub.process import main; main()"
"""The helper's program: it needs no installation of this package, and takes no module from the folder it runs in."""

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_XET": "1",
}
"""Read when the library is imported: nothing but the hub is contacted, over HTTP, for nothing but files."""

HUB = "https://huggingface.co"
LISTING_S = 60.0
"""For all tries together: some name servers take long to say nothing."""
_TRUE = ("1", "ON", "YES", "TRUE")

Count = Callable[[int, int], None]
"""Called with the bytes that are there, and those that came over the network in this session."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses before each try again after a fault of the network, and `read_s`, the silence that is one."""

    listing_s: tuple[float, ...] = (0.25, 0.5, 1.0)
    fetch_s: tuple[float, ...] = (1.0, 2.0, 4.0)
    read_s: float = 20.0


IMPATIENT = Patience((), (), 5.0)
"""For a look at what is there, which somebody waits for."""


class HubSession(Helper):
    """One conversation with the hub. Use as `async with`; leaving it ends whatever is still on its way."""

    def __init__(self, environ: Mapping[str, str], cache: Path, patience: Patience) -> None:
        env = {
            name: value for name, value in environ.items() if not name.startswith("MACPROVIDER_")
        }
        begin = {
            # As the library reads it from the environment itself; given to it, it takes it word by word.
            "endpoint": environ.get("HF_ENDPOINT", "").rstrip("/") or HUB,
            "read_s": patience.read_s,
        }
        super().__init__((sys.executable, "-P", "-c", PROCESS), env | QUIET, begin)
        self._cache, self._patience = cache, patience

    async def listing(self, repo: str) -> Listing:
        """What the repository holds. Raises HubFault."""
        try:
            async with asyncio.timeout(LISTING_S):
                found = await self._ask("list", repo=repo, delays_s=self._patience.listing_s)
        except TimeoutError:
            message = f"no answer of the hub within {LISTING_S:.0f} s"
            raise HubFault(message, unreachable=True) from None
        files = {name: RemoteFile(**file) for name, file in found["files"].items()}
        return Listing(repo, found["commit"], files)

    async def fetch(self, listing: Listing, names: Sequence[str], count: Count) -> None:
        """Bring these files into the cache, checked; `count` gets how much is there. Raises HubFault."""
        files = [asdict(listing.files[name]) for name in names]
        where = {"repo": listing.repo, "commit": listing.commit, "cache": str(self._cache)}
        await self._ask("fetch", count, **where, files=files, delays_s=self._patience.fetch_s)

    async def settle(self, listing: Listing) -> None:
        """Make the listed revision the one that is used from the cache. Raises HubFault."""
        await self._ask("settle", cache=str(self._cache), repo=listing.repo, commit=listing.commit)

    async def _ask(self, do: str, count: Count = lambda *_: None, **order: object) -> Any:
        def progress(report: Mapping[str, int]) -> None:
            count(report["bytes"], report["received"])

        try:
            report = await self.ask(do, progress, **order)
        except HelperDied as died:
            message = f"interrupted: the download process ended: {died}"
            raise HubFault(message) from died
        if report["report"] == "failed":
            raise HubFault(**report["fault"])
        return report["result"]


def is_offline(environ: Mapping[str, str]) -> bool:
    """The operator wants no network, in the library's own words."""
    named = environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or ""
    return named.upper() in _TRUE
