"""Prewarm: a candidate's weights are on this disk, complete and checked, before it is started.

What is here already needs no network. Else: list, does it fit the memory, does it fit the disk, small
files, weights, checks - in this order, so that no gigabyte is fetched for nothing. Fails by value, in
two classes: transient (the next candidate may do) and integrity (weights are not what they should be).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from autotuned.core.model import Failure, WeightsFormat
from autotuned.shared.paths import is_path
from autotuned.weights import cache, integrity, plan
from autotuned.weights.cache import Found, Weights, damaged, transient
from autotuned.weights.hub import HubFault, Listing
from autotuned.weights.hub.session import HubSession, Patience, is_offline
from autotuned.weights.verified import Ledger

STEP_SHARE, STEP_S, STEP_MAX_S = 0.005, 1.0, 10.0
"""Progress is told when half a percent more is there and a second has passed, or after ten seconds."""
UNREACHABLE_S = 60.0
"""A hub that nobody answered for is asked once only for so long, or an offline run would wait for each candidate."""
RATE_WINDOW_S = 10.0
RATE_FROM_BYTES = 8 * 2**20
"""A shorter download says nothing about the network's rate."""
Report = Callable[..., object]
"""Called with `activity` (`fetch` or `check`), `bytes`, `total` and `rate` (bytes a second)."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    model: str
    form: WeightsFormat
    report: Report
    memory_bytes: int | None
    verify: bool

    def unfit(self, weights_bytes: int) -> Failure | None:
        if self.memory_bytes is None:
            return None
        return cache.fits_in_memory(weights_bytes, self.memory_bytes)


class Prewarmer:
    """Brings weights in and checks them; one instance an agent."""

    def __init__(
        self, environ: Mapping[str, str], ledger: Ledger, patience: Patience | None = None
    ) -> None:
        self.environ, self.ledger = environ, ledger
        self._patience = patience or Patience()
        self._unreachable_until = 0.0

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
            return await self._prewarm(_Wanted(model, form, report, memory_bytes, verify))
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

    # --- what is here ------------------------------------------------------------------------------

    async def _prewarm(self, wanted: _Wanted) -> Weights | Failure:
        model = wanted.model
        found = await asyncio.to_thread(cache.locate, model, wanted.form, self.environ)
        if isinstance(found, Failure):
            return found
        lacking: integrity.Lacking | None = None
        if isinstance(found, Found):
            try:
                return await self._checked(found, wanted)
            except integrity.Lacking as error:
                if is_path(model):
                    raise
                lacking = error
        absent = str(lacking) if isinstance(found, Found) else found.reason
        if is_offline(self.environ):
            if lacking is not None:
                raise lacking
            return transient(f"{model}: {absent}, and HF_HUB_OFFLINE is set")
        # Less patience with a hub that the candidate before has waited for in vain.
        tired = time.monotonic() < self._unreachable_until
        patience = replace(self._patience, listing_s=()) if tired else self._patience
        async with HubSession(self.environ, cache.hub_cache(self.environ), patience) as session:
            try:
                listing = await session.listing(cache.repository(model, wanted.form)[0])
            except HubFault as fault:
                if fault.unreachable:
                    self._unreachable_until = time.monotonic() + UNREACHABLE_S
                if lacking is not None:  # what is here is all there is to judge by
                    raise lacking from None
                where = f" ({absent})" if fault.unreachable else ""
                return transient(f"{model}: {fault.reason}{where}")
            return await self._fetch(session, listing, wanted)

    async def _checked(
        self, found: Found, wanted: _Wanted, *, fetched: bool = False
    ) -> Weights | Failure:
        """The weights found, checked now or before; a Failure where they exceed the memory. Raises Defect.

        `fetched`: just now, and hashed on the way.
        """
        weights = None
        if not (wanted.verify or fetched):
            weights = await asyncio.to_thread(self.ledger.known, found.path, found.files)
        if weights is not None:
            return wanted.unfit(weights.weights_bytes) or weights
        marks = await asyncio.to_thread(self.ledger.marks, found.files)
        weights = await asyncio.to_thread(cache.inspect, found, wanted.form)
        unfit = wanted.unfit(weights.weights_bytes)
        if unfit is not None:
            return unfit
        if not fetched:
            await self._hash(found, wanted.report)
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
                tell(done, done)
            await work
        finally:
            stop.set()
            await asyncio.gather(work, return_exceptions=True)

    # --- what the hub has ----------------------------------------------------------------------------

    async def _fetch(
        self, session: HubSession, listing: Listing, wanted: _Wanted
    ) -> Weights | Failure:
        model, form = wanted.model, wanted.form
        small, weights = plan.chosen(listing, model, form)
        if not weights:
            kind = "*.safetensors" if form == "mlx" else "such .gguf file"
            return transient(f"{model}: the repository has no {kind}")
        unfit = wanted.unfit(listing.bytes_of(weights))
        if unfit is not None:
            return unfit
        root = cache.hub_cache(self.environ)
        room = await asyncio.to_thread(plan.no_room_for, root, listing, [*small, *weights])
        if room is not None:
            return transient(f"{model}: {room}")
        tell = _Teller(wanted.report, "fetch", listing.bytes_of([*small, *weights]))
        missing = await asyncio.to_thread(plan.missing_bytes, root, listing, [*small, *weights])
        began = time.monotonic()
        await session.fetch(listing, small, tell)
        folder = cache.repository_folder(root, listing.repo) / "snapshots" / listing.commit
        if form == "mlx":
            weights = plan.named_by_index(folder, listing, weights)
        tell.base = listing.bytes_of(small)
        await session.fetch(listing, weights, tell)
        tell(listing.bytes_of(weights))
        seconds = time.monotonic() - began
        if missing >= RATE_FROM_BYTES and seconds > 0:
            self.ledger.rate = missing / seconds
        names = tuple(folder / name for name in weights)
        found = cache.in_folder(folder) if form == "mlx" else Found(names[0], names)
        checked = await self._checked(found, wanted, fetched=True)
        await session.settle(listing)
        return checked


class _Teller:
    """Reports progress, often enough to be followed and not more often."""

    def __init__(self, report: Report, activity: str, total: int) -> None:
        self._report, self._activity, self.total = report, activity, total
        self.base = 0
        self._seen: deque[tuple[float, int]] = deque()
        self._told_at, self._told, self._received = time.monotonic(), 0, 0

    def __call__(self, done: int, received: int | None = None) -> None:
        """`received`: the bytes by which the rate is judged; None: the end, told at once."""
        now = received is None
        done = min(self.total, self.base + done)
        self._received = self._received if received is None else received
        rate, waited = self._rate(), time.monotonic() - self._told_at
        enough = waited >= STEP_S and done - self._told >= self.total * STEP_SHARE
        if enough or waited >= STEP_MAX_S or now:
            self._told_at, self._told = time.monotonic(), done
            self._report(activity=self._activity, bytes=done, total=self.total, rate=round(rate))

    def _rate(self) -> float:
        """Bytes a second over the last ten seconds."""
        now = time.monotonic()
        self._seen.append((now, self._received))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_WINDOW_S:
            self._seen.popleft()
        began, at = self._seen[0]
        return max(0.0, (self._received - at) / (now - began)) if now > began else 0.0
