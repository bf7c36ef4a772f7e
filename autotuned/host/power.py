"""Keeping the machine awake while a run lasts, with `caffeinate` where the system has one.

The helper watches the agent's pid itself (`-w`), so it ends with an agent that is killed, too. A lid that
is closed still puts the machine to sleep: that is seen by the sleep clock, not prevented here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import structlog

from autotuned.host import tools

END_DEADLINE_S = 5.0

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def awake() -> AsyncIterator[None]:
    """Hold `caffeinate -i -s -w <this pid>` inside the block; nothing where there is none, or it fails."""
    program = tools.find("caffeinate")
    holder = None
    if program is not None:
        try:
            holder = await asyncio.create_subprocess_exec(
                program,
                *("-i", "-s", "-w", str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            log.warning(
                "the machine may fall asleep: caffeinate cannot be started", reason=str(error)
            )
    try:
        yield
    finally:
        if holder is not None:
            await _end(holder)


async def _end(holder: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        holder.terminate()
    try:
        async with asyncio.timeout(END_DEADLINE_S):
            await holder.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
