"""What happens, in order: kept in batches, then told, replayed to whoever comes later.

Publishing never waits: one writer keeps a batch and then tells it, so nobody has seen an event that
an agent started after a crash does not know. Sequence numbers are dense: a gap shows a loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from autotuned.core.model import Event
from autotuned.documents.events import AnyEvent
from autotuned.errors import StoreError
from autotuned.store import events as kept
from autotuned.store.database import Database

MAX_WAITING = 20_000
"""Events that may wait for one subscriber: twice what is kept."""
REPLAYS = 2
"""Of all subscribers so many read a page at a time: whoever asks for something else waits behind these alone."""
PAGE = 200
"""Events of a replay that are in memory at once, for each subscriber."""

log = structlog.get_logger(__name__)


class Subscription:
    """Events for one reader: what was kept since `after`, page by page, then what comes.

    Ends when it falls too far behind.
    """

    def __init__(
        self,
        number: int,
        run_id: str | None,
        after: int,
        page: Callable[[int], Awaitable[list[Event]]],
    ) -> None:
        self.id = f"s{number}"
        self._run_id, self._last, self._page = run_id, after, page
        self._waiting: asyncio.Queue[Event | None] = asyncio.Queue(MAX_WAITING)
        self._closed = False

    def offer(self, event: Event) -> None:
        """Hand over one event, if it is wanted; during the replay it waits its turn."""
        if self._closed or self._run_id not in (None, event.run_id):
            return
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            self.close()

    def close(self) -> None:
        """End it after what waits. Idempotent."""
        if not self._closed:
            self._closed = True
            if self._waiting.full():
                self._waiting.get_nowait()
            self._waiting.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while page := await self._page(self._last):
            for event in page:
                self._last = event.seq
                yield event
        while (new := await self._waiting.get()) is not None:
            if new.seq > self._last:
                self._last = new.seq
                yield new


class Events:
    def __init__(self, database: Database, now: Callable[[], str], last_seq: int) -> None:
        self._database, self._now = database, now
        self._seq = last_seq
        self._unwritten: list[Event] = []
        self._writer: asyncio.Task[None] | None = None
        self._subscriptions: set[Subscription] = set()
        self._numbers = 0
        self._replaying = asyncio.Semaphore(REPLAYS)

    @property
    def seq(self) -> int:
        return self._seq

    def publish(self, event: AnyEvent, run_id: str | None) -> int:
        """Keep it and tell everybody, in a moment; its number."""
        self._seq += 1
        fields = {name: value for name, value in event.items() if name != "type"}
        self._unwritten.append(Event(self._seq, self._now(), run_id, event["type"], fields))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="events")
        return self._seq

    def subscribe(self, run_id: str | None, since: int | None) -> Subscription:
        """Events of one run, or of all; with `since`, first what is kept after that number."""
        self._numbers += 1

        async def page(after: int) -> list[Event]:
            if since is None:
                return []
            try:
                async with self._replaying:
                    return await self._database.ask(kept.since, after, run_id, PAGE)
            except StoreError as error:
                log.error("kept events cannot be read", reason=error.message)
                return []

        after = self._seq if since is None else since
        subscription = Subscription(self._numbers, run_id, after, page)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        subscription.close()

    async def flush(self) -> None:
        """Return once everything published so far is kept."""
        while self._writer is not None and not self._writer.done():
            await asyncio.shield(self._writer)

    async def close(self) -> None:
        await self.flush()
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)

    async def _write(self) -> None:
        while self._unwritten:
            batch = list(self._unwritten)
            try:
                await self._database.ask(kept.append, batch)
            except StoreError as error:
                log.error("events cannot be kept", reason=error.message, lost=len(batch))
            del self._unwritten[: len(batch)]
            for event in batch:
                for subscription in self._subscriptions:
                    subscription.offer(event)
