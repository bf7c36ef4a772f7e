"""Prewarm: a candidate's weights are on this disk, complete and checked, before it is started.

What is here already needs no network. Else: list, does it fit the memory, does it fit the disk, small
files, weights, checks - in this order, so that no gigabyte is fetched for nothing. Fails by value, in
two classes: transient (the next candidate may do) and integrity (weights are not what they should be).
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuned.core.candidates import is_path
from autotuned.core.model import Failure, WeightsFormat
from autotuned.weights import cache, integrity, wanted
from autotuned.weights.cache import Found, NotHere, Weights, damaged, transient
from autotuned.weights.hub import (
    IMPATIENT,
    HubFault,
    HubSession,
    Listing,
    Meter,
    Patience,
    is_offline,
)
from autotuned.weights.ledger import Ledger

HEADROOM_BYTES = 2 * 2**30
"""Must stay free on the cache's disk after a download."""
STEP_SHARE, STEP_S, STEP_MAX_S = 0.005, 1.0, 10.0
"""Progress is told when half a percent more is there and a second has passed, or after ten seconds."""
RATE_FROM_BYTES = 8 * 2**20
"""A shorter download says nothing about the network's rate."""
LISTING_S = 20.0
"""A look at all candidates' sizes may take this long."""

Report = Callable[..., Any]
"""Called with `activity` (`fetch` or `check`), `bytes`, `total` and `rate` (bytes a second)."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What prewarming a model would mean. Bytes are None where nobody could say; `reason`: why it would fail."""

    model: str
    cached: bool
    weights_bytes: int | None = None
    fetch_bytes: int | None = None
    reason: str | None = None


class Prewarmer:
    """Brings weights in and checks them; one instance an agent."""

    def __init__(
        self, environ: Mapping[str, str], ledger: Ledger, patience: Patience | None = None
    ) -> None:
        self._environ, self.ledger = environ, ledger
        self._patience = patience or Patience()

    async def prewarm(
        self,
        model: str,
        form: WeightsFormat,
        report: Report,
        *,
        memory_bytes: int | None,
        verify: bool = False,
    ) -> Weights | Failure:
        """Have the weights of `model` here and whole; never raises for what is found.

        `memory_bytes` None: no static fit check. `verify`: read everything again, whatever was checked
        before. Cancelling ends a download at once; its partial files are used by the next one.
        """
        try:
            return await self._prewarm(model, form, report, memory_bytes, verify=verify)
        except integrity.Defect as defect:
            return damaged(f"{model}: {defect}")
        except HubFault as fault:
            made = damaged if fault.integrity else transient
            return made(f"{model}: {fault.reason}")
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            return transient(f"{model}: {error.strerror or error}{where}")

    def for_run(
        self, form: WeightsFormat, memory_bytes: int | None, *, verify: bool
    ) -> Callable[[str, Report], Awaitable[Weights | Failure]]:
        """`prewarm` as one run asks for it: model and listener. Reads all again once a model, not once a cell."""
        verified: set[str] = set()

        async def prewarm(model: str, report: Report) -> Weights | Failure:
            again = verify and model not in verified
            verified.add(model)
            return await self.prewarm(model, form, report, memory_bytes=memory_bytes, verify=again)

        return prewarm

    def disk_free(self) -> int:
        """Free bytes on the cache's disk. Raises OSError."""
        return disk_free(cache.hub_cache(self._environ))

    async def outlook(
        self, models: Sequence[str], form: WeightsFormat, memory_bytes: int | None
    ) -> list[Outlook]:
        """What prewarming each would mean; asks the hub for sizes where it may, and changes nothing."""
        found = [await asyncio.to_thread(self._look, model, form) for model in models]
        absent = [look.model for look in found if not look.cached and not is_path(look.model)]
        remote: dict[str, Outlook] = {}
        if absent and not is_offline(self._environ):
            try:
                async with asyncio.timeout(LISTING_S), self._session(IMPATIENT) as session:
                    for model in absent:
                        remote[model] = await self._look_remotely(session, model, form)
            except TimeoutError:
                pass
        return [self._judged(remote.get(look.model, look), memory_bytes) for look in found]

    # --- what is here ------------------------------------------------------------------------------

    async def _prewarm(
        self,
        model: str,
        form: WeightsFormat,
        report: Report,
        memory_bytes: int | None,
        *,
        verify: bool,
    ) -> Weights | Failure:
        found = await asyncio.to_thread(cache.locate, model, form, self._environ)
        if isinstance(found, Failure):
            return found
        lacking: integrity.Lacking | None = None
        if isinstance(found, Found):
            try:
                return await self._checked(
                    found, form, report, memory_bytes, verify=verify, hashes=True
                )
            except integrity.Lacking as error:
                if is_path(model):
                    raise
                lacking = error
        absent = str(lacking) if isinstance(found, Found) else found.reason
        if is_offline(self._environ):
            if lacking is not None:
                raise lacking
            return transient(f"{model}: {absent}, and HF_HUB_OFFLINE is set")
        async with self._session(self._patience) as session:
            try:
                listing = await session.listing(cache.repository(model, form)[0])
            except HubFault as fault:
                if lacking is not None:  # what is here is all there is to judge by
                    raise lacking from None
                return transient(f"{model}: {fault.reason} ({absent})")
            return await self._fetch(session, listing, model, form, report, memory_bytes)

    async def _checked(
        self,
        found: Found,
        form: WeightsFormat,
        report: Report,
        memory_bytes: int | None,
        *,
        verify: bool,
        hashes: bool,
    ) -> Weights | Failure:
        """The weights found, checked now or before; a Failure where they exceed the memory. Raises Defect."""
        weights = None
        if not verify:
            weights = await asyncio.to_thread(self.ledger.known, found.path, found.files)
        if weights is not None:
            return _unfit(weights.weights_bytes, memory_bytes) or weights
        marks = await asyncio.to_thread(self.ledger.marks, found.files)
        weights = await asyncio.to_thread(cache.inspect, found, form)
        unfit = _unfit(weights.weights_bytes, memory_bytes)
        if unfit is not None:
            return unfit
        if hashes:
            await self._hash(found, report)
        await asyncio.to_thread(self.ledger.remember, weights, marks)
        return weights

    async def _hash(self, found: Found, report: Report) -> None:
        total = await asyncio.to_thread(cache.hashable_bytes, found)
        stop, tell = threading.Event(), _Teller(report, "check", total)
        done = 0

        def count(read: int) -> None:
            nonlocal done
            done += read

        work = asyncio.create_task(asyncio.to_thread(cache.check_hashes, found, stop, count))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=STEP_S)
                tell(done)
            await work
        finally:
            stop.set()
            await asyncio.gather(work, return_exceptions=True)

    # --- what the hub has ----------------------------------------------------------------------------

    async def _fetch(
        self,
        session: HubSession,
        listing: Listing,
        model: str,
        form: WeightsFormat,
        report: Report,
        memory_bytes: int | None,
    ) -> Weights | Failure:
        small, weights = _chosen(listing, model, form)
        if not weights:
            kind = "*.safetensors" if form == "mlx" else "such .gguf file"
            return transient(f"{model}: the repository has no {kind}")
        unfit = _unfit(listing.bytes_of(weights), memory_bytes)
        if unfit is not None:
            return unfit
        room = await asyncio.to_thread(self._no_room_for, listing, [*small, *weights])
        if room is not None:
            return transient(f"{model}: {room}")
        tell = _Teller(report, "fetch", listing.bytes_of([*small, *weights]))
        began, first = time.monotonic(), self._here(listing, [*small, *weights])
        await session.fetch(listing, small, tell)
        folder = self._root(listing) / "snapshots" / listing.commit
        if form == "mlx":
            weights = _named_by_index(folder, listing, weights)
        tell.base = listing.bytes_of(small)
        await session.fetch(listing, weights, tell)
        tell(listing.bytes_of(weights), now=True)
        self._measure(tell.total - first, time.monotonic() - began)
        names = tuple(folder / name for name in weights)
        found = cache.in_folder(folder) if form == "mlx" else Found(names[0], names)
        checked = await self._checked(found, form, report, memory_bytes, verify=True, hashes=False)
        await session.settle(listing)
        return checked

    def _no_room_for(self, listing: Listing, names: Sequence[str]) -> str | None:
        """Why these files do not fit on the cache's disk. Raises OSError."""
        missing = listing.bytes_of(names) - self._here(listing, names)
        folder, free = cache.hub_cache(self._environ), self.disk_free()
        if free >= missing + HEADROOM_BYTES:
            return None
        need = f"{missing / 2**30:.1f} GB to fetch and {HEADROOM_BYTES / 2**30:.0f} GB to spare"
        return f"disk full: {need}, {free / 2**30:.1f} GB free at {folder}"

    def _here(self, listing: Listing, names: Sequence[str]) -> int:
        """Bytes of these files that are in the cache already, partial ones too."""
        root, total = self._root(listing), 0
        for name in names:
            file = listing.files[name]
            blob = root / "blobs" / (file.sha256 or file.git_sha1 or "-")
            pointer = root / "snapshots" / listing.commit / name
            for path in (pointer, blob, blob.with_name(f"{blob.name}.autotuned.incomplete")):
                if path.is_file():
                    total += min(path.stat().st_size, file.size or 0)
                    break
        return total

    def _measure(self, fetched: int, seconds: float) -> None:
        if fetched >= RATE_FROM_BYTES and seconds > 0:
            self.ledger.rate = fetched / seconds

    def _root(self, listing: Listing) -> Path:
        return cache.hub_cache(self._environ) / f"models--{listing.repo.replace('/', '--')}"

    @asynccontextmanager
    async def _session(self, patience: Patience) -> AsyncIterator[HubSession]:
        async with HubSession(self._environ, cache.hub_cache(self._environ), patience) as session:
            yield session

    # --- only looking ----------------------------------------------------------------------------------

    def _look(self, model: str, form: WeightsFormat) -> Outlook:
        try:
            found = cache.locate(model, form, self._environ)
            if isinstance(found, Failure):
                return Outlook(model, cached=False, reason=found.reason)
            if isinstance(found, NotHere):
                return Outlook(model, cached=False, reason=transient(found.reason).reason)
            weights = self.ledger.known(found.path, found.files) or cache.inspect(found, form)
        except integrity.Lacking as lacking:
            made = damaged if is_path(model) else transient
            return Outlook(model, cached=False, reason=made(str(lacking)).reason)
        except integrity.Defect as defect:
            return Outlook(model, cached=True, reason=damaged(str(defect)).reason)
        except OSError as error:
            return Outlook(model, cached=False, reason=transient(str(error)).reason)
        return Outlook(model, cached=True, weights_bytes=weights.weights_bytes, fetch_bytes=0)

    async def _look_remotely(self, session: HubSession, model: str, form: WeightsFormat) -> Outlook:
        try:
            listing = await session.listing(cache.repository(model, form)[0])
            small, weights = _chosen(listing, model, form)
        except HubFault as fault:
            return Outlook(model, cached=False, reason=transient(fault.reason).reason)
        except integrity.Defect as defect:
            return Outlook(model, cached=False, reason=damaged(str(defect)).reason)
        if not weights:
            return Outlook(
                model, cached=False, reason=transient("the repository has no such weights").reason
            )
        names = [*small, *weights]
        missing = listing.bytes_of(names) - self._here(listing, names)
        room = self._no_room_for(listing, names)
        return Outlook(
            model,
            cached=False,
            weights_bytes=listing.bytes_of(weights),
            fetch_bytes=missing,
            reason=room and transient(room).reason,
        )

    def _judged(self, look: Outlook, memory_bytes: int | None) -> Outlook:
        unfit = None if look.weights_bytes is None else _unfit(look.weights_bytes, memory_bytes)
        if unfit is None:
            return look
        return Outlook(look.model, look.cached, look.weights_bytes, 0, unfit.reason)


class _Teller:
    """Reports progress, often enough to be followed and not more often."""

    def __init__(self, report: Report, activity: str, total: int) -> None:
        self._report, self._activity, self.total = report, activity, total
        self.base = 0
        self._meter = Meter()
        self._told_at, self._told = time.monotonic(), 0

    def __call__(self, done: int, *, now: bool = False) -> None:
        done = min(self.total, self.base + done)
        rate, waited = self._meter.rate(done), time.monotonic() - self._told_at
        enough = waited >= STEP_S and done - self._told >= self.total * STEP_SHARE
        if enough or waited >= STEP_MAX_S or now:
            self._told_at, self._told = time.monotonic(), done
            self._report(activity=self._activity, bytes=done, total=self.total, rate=round(rate))


def disk_free(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which may not exist yet. Raises OSError."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _unfit(weights_bytes: int, memory_bytes: int | None) -> Failure | None:
    return None if memory_bytes is None else cache.fits_in_memory(weights_bytes, memory_bytes)


def _chosen(listing: Listing, model: str, form: WeightsFormat) -> tuple[list[str], list[str]]:
    """The small files and the weight files of `model`. Raises Defect where a file is lacking that must be there."""
    names = list(listing.files)
    if form == "gguf":
        weights = wanted.gguf(names, cache.repository(model, form)[1])
        _require_parts(weights)
        return [], weights
    small, weights = wanted.mlx_small(names), wanted.mlx_weights(names)
    if weights and "config.json" not in small:
        message = "no config.json in the repository"
        raise integrity.Defect(message)
    if weights and not any(name in small for name in integrity.TOKENIZERS):
        message = "no tokenizer in the repository"
        raise integrity.Defect(message)
    if wanted.INDEX not in small:
        _require_parts(weights)
    return small, weights


def _require_parts(weights: Sequence[str]) -> None:
    absent = wanted.missing_parts(weights)
    if absent:
        message = f"shards are absent from the repository: {', '.join(absent[:3])}"
        raise integrity.Defect(message)


def _named_by_index(folder: Path, listing: Listing, weights: list[str]) -> list[str]:
    """The weight files that the index names; all where there is none. Raises Defect for one that the hub lacks."""
    index = folder / wanted.INDEX
    if not index.is_file():
        return weights
    names = integrity.shards(index)
    absent = [name for name in names if name not in listing.files]
    if absent:
        message = f"{wanted.INDEX} names shards that are absent from the repository: {', '.join(absent[:3])}"
        raise integrity.Defect(message)
    return names
