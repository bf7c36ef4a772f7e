"""Programs beside the loop: one run to its end with a deadline, or a helper that obeys orders as JSON lines.

A helper is for work that cannot be cancelled from within: it dies with the agent, and can be killed at any
moment. Orders carry a number, reports name it. Whatever such a program starts is in its process group and
goes with it. Must not know what the orders mean; `shared.tools` runs programs where blocking is fine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from autotuned.shared.tools import OUTPUT_LIMIT, Answer

LINE_LIMIT = 32 * 1024 * 1024
LAST_WORDS_BYTES = 4096
KILL_DEADLINE_S = 10.0


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
            _kill_group(process)
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


class HelperDied(Exception):
    """It ended before it answered; the message is the end of what it wrote to stderr."""


class Helper:
    """One helper. Use as `async with`: leaving kills its whole group."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], begin: Mapping[str, object]
    ) -> None:
        """`begin` is the first line that it reads."""
        self._argv, self._env, self._begin = argv, env, begin
        self._numbers = 0
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self._last_words = b""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            env=dict(self._env),
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_LIMIT,
        )
        self._drain = asyncio.create_task(self._listen_to_stderr(), name="helper's stderr")
        self._write(self._begin)
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        _kill_group(process)
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_DEADLINE_S):
                await process.wait()
        if self._drain is not None:
            self._drain.cancel()
            await asyncio.gather(self._drain, return_exceptions=True)

    async def ask(
        self, do: str, progress: Callable[[Mapping[str, Any]], None], **order: object
    ) -> dict[str, Any]:
        """Give one order and wait for its report; others go to `progress`. Raises HelperDied.

        Only one order at a time. Cancelling leaves the helper at work: leave the `async with` too.
        """
        assert self._process is not None  # noqa: S101 - inside of `async with`
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        self._numbers += 1
        self._write({"do": do, "number": self._numbers, **order})
        while line := await self._process.stdout.readline():
            report: dict[str, Any] = json.loads(line)
            if report.get("number") == self._numbers:
                return report
            progress(report)
        if self._drain is not None:
            await asyncio.wait({self._drain}, timeout=1.0)
        words = self._last_words.decode("utf-8", errors="replace").strip().splitlines()
        raise HelperDied(words[-1] if words else "without a word")

    def _write(self, message: Mapping[str, object]) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _listen_to_stderr(self) -> None:
        assert self._process is not None  # noqa: S101 - started just before
        assert self._process.stderr is not None  # noqa: S101 - PIPE was asked for
        while data := await self._process.stderr.read(4096):
            self._last_words = (self._last_words + data)[-LAST_WORDS_BYTES:]


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
