"""Whose line is looked at next: one at a time, in the order of coming, the patient before the greedy.

Who sends one short line and waits for its answer is served at once; who sends many ahead, or a megabyte,
lets those pass for a while, but not for ever. Must not know what a line says.
"""

from __future__ import annotations

import asyncio
import heapq

SHORT_BYTES = 1024
GREEDY_S = 1.0
"""How long those who wait for each answer go first."""


class Turns:
    """One turn at a time, shared among all clients."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, asyncio.Future[None]]] = []
        self._taken = False
        self._number = 0

    async def take(self, waiting_bytes: int, *, more: bool) -> None:
        """Return when it is this client's turn; `leave` must follow.

        `waiting_bytes`: what it has sent and we have not looked at. `more`: that is not one line alone.
        """
        if not self._taken:
            self._taken = True
            return
        loop = asyncio.get_running_loop()
        greedy = more or waiting_bytes > SHORT_BYTES
        self._number += 1
        turn: asyncio.Future[None] = loop.create_future()
        due = loop.time() + (GREEDY_S if greedy else 0.0)
        heapq.heappush(self._queue, (due, self._number, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came in the same moment: pass it on
                self.leave()
            raise

    def leave(self) -> None:
        """End the turn; the next one may begin."""
        self._taken = False
        while self._queue:
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self._taken = True  # nobody may come between this and the moment it runs
                turn.set_result(None)
                return
