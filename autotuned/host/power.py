"""Power: where it comes from, and keeping the machine awake while a run lasts, with `caffeinate` where there is one.

`pmset` tells the first where there is one, else Linux's own files. The helper watches the agent's pid
itself (`-w`), so it ends with an agent that is killed, too. A lid that is closed still puts the machine
to sleep: that is seen by the sleep clock, not prevented here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from autotuned.host.files import text_of
from autotuned.shared import tools

END_DEADLINE_S = 5.0
SUPPLIES = Path("/sys/class/power_supply")
EXTERNAL = ("Mains", "USB")

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


def on_ac() -> bool | None:
    """True on mains power, False on battery, None where it cannot be told. Blocks for as long as the tool takes."""
    if tools.find("pmset") is None:
        return linux_on_ac(SUPPLIES)
    told = tools.ask("pmset", "-g", "batt")
    if "'AC Power'" in told:
        return True
    return False if "drawing from" in told else None


def low_power() -> bool | None:
    """Whether the machine saves power at the cost of speed; None where it cannot be told. Blocks."""
    told = tools.ask("pmset", "-g") if tools.find("pmset") is not None else ""
    mode = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)\b", told, re.MULTILINE)
    return None if mode is None else mode[1] == "1"


def linux_on_ac(supplies: Path) -> bool | None:
    """The same from a folder of power supplies; a machine without a battery is on mains power."""
    kinds = {
        folder: text_of(folder / "type")
        for folder in sorted(supplies.glob("*"))
        if text_of(folder / "scope") != "Device"  # the battery of a mouse
    }
    if "Battery" not in kinds.values():
        return True
    external = [folder for folder, kind in kinds.items() if kind in EXTERNAL]
    if any(text_of(folder / "online") == "1" for folder in external):
        return True
    states = [text_of(folder / "status") for folder, kind in kinds.items() if kind == "Battery"]
    return False if external or "Discharging" in states else None
