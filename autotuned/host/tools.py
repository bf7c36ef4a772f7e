"""Running a program to its end beside the loop, with a deadline; `shared.tools` does the same where blocking is fine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from autotuned.shared.tools import OUTPUT_LIMIT, Answer


async def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    timeout_s: float,
    stdin: bytes | None = None,
) -> Answer:
    """Run `argv` in a session of its own, without a terminal; after `timeout_s` its process group is killed.

    Never raises for what the program does. Outputs are cut at `OUTPUT_LIMIT` bytes each. A program that
    is given `stdin` is not listened to: what it leaves behind in the background may keep its outputs.
    """
    output = asyncio.subprocess.PIPE if stdin is None else asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(environ),
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Answer(None, "", f"cannot be started: {error}")
    out, err = bytearray(), bytearray()
    ended = False
    try:
        async with asyncio.timeout(timeout_s):
            if stdin is None:
                await asyncio.gather(_drain(process.stdout, out), _drain(process.stderr, err))
                await process.wait()
            else:
                await process.communicate(stdin)
            ended = True
    except TimeoutError:
        pass
    finally:
        if not ended:  # too late, or we were cancelled
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Answer(
        process.returncode if ended else None,
        out.decode("utf-8", "replace"),
        err.decode("utf-8", "replace"),
    )


async def _drain(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    """Read `stream` to its end, so that the program never blocks on it; keep the first part."""
    assert stream is not None  # noqa: S101 - both pipes are asked for
    while block := await stream.read(64 * 1024):
        into.extend(block[: max(0, OUTPUT_LIMIT - len(into))])
