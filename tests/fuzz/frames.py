"""Hostile clients against the real agent, and one that behaves beside them.

    python -m tests.fuzz.frames --frames 1000000 --seed 7

Malformed, huge, deep and half messages, batches, slow readers and writers, hang-ups, 128 connections at
once; beside them a client asks for `status` all the time. Prints the agent's memory and that client's
latency over time. Fails when the agent dies, when its memory goes beyond 20 MB above idle, when an
answer is no JSON-RPC, or when the one that behaves gets no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from autotuned.shared import wire
from tests.fuzz import material
from tests.support.home import X, home

BESIDE = Path(__file__).with_name("beside.py")
ALLOWED_BYTES = 20 * 1024 * 1024
WORKERS = 16
STATUS = {"jsonrpc": "2.0", "id": 1, "method": "status", "params": {}}
COLUMNS = 60
BARS = " ▁▂▃▄▅▆▇█"
PATIENCE_S = 60.0
FOREVER_S = 30 * 86_400.0


@dataclass
class Seen:
    """What a round has shown."""

    frames: int = 0
    answers: int = 0
    closed: int = 0
    idle_bytes: int = 0
    memory: list[int] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def judge(self, line: bytes) -> None:
        """An answer is JSON-RPC, or it is a problem."""
        self.answers += 1
        try:
            content = json.loads(line)
        except ValueError:
            self.problems.append(f"no JSON: {line[:200]!r}")
            return
        for one in content if isinstance(content, list) else [content]:
            if not _is_answer(one):
                self.problems.append(f"no JSON-RPC: {line[:200]!r}")


def _is_answer(one: Any) -> bool:
    if not isinstance(one, dict) or one.get("jsonrpc") != "2.0":
        return False
    if "method" in one:
        return bool(one["method"] == "event")
    if ("result" in one) == ("error" in one) or "id" not in one:
        return False
    error = one.get("error", {"code": 0, "message": ""})
    return isinstance(error.get("code"), int) and isinstance(error.get("message"), str)


class Attack:
    """Hostile clients of one socket, until `frames` lines have been sent."""

    def __init__(self, path: str, seen: Seen, frames: int, seed: int, seconds: float) -> None:
        self._path, self._seen, self._frames, self._seed = path, seen, frames, seed
        self._until = time.monotonic() + seconds
        rng = random.Random(seed)
        self._lines = [material.frame(rng) for _ in range(3000)]
        self._huge = [material.huge(rng) for _ in range(24)]

    async def run(self) -> None:
        """All workers to their end."""
        await asyncio.gather(*(self._work(number) for number in range(WORKERS)))

    async def _work(self, number: int) -> None:
        rng = random.Random(self._seed * 1000 + number)
        usual = (self._burst, self._burst, self._burst, self._half, self._dribble, self._huge_line)
        while (
            self._seen.frames < self._frames
            and time.monotonic() < self._until
            and not self._seen.problems
        ):
            if number == 0:
                context = rng.choice((self._crowd, self._deaf, self._waits, self._refused, *usual))
            else:
                context = rng.choice(usual)
            with contextlib.suppress(ConnectionError, BrokenPipeError):
                await context(rng)

    @contextlib.asynccontextmanager
    async def _client(self) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=1 << 26)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader) -> None:
        """Judge all that comes until the agent ends the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while line := await reader.readline():
                    self._seen.judge(line)
            except ConnectionError:
                self._seen.closed += 1

    async def _burst(self, rng: random.Random) -> None:
        """Many lines in one go, then the end; every answer is read."""
        lines = rng.choices(self._lines, k=rng.randrange(1, 150))
        async with self._client() as (reader, writer):
            writer.write(b"\n".join(lines) + rng.choice((b"\n", b"")))
            self._seen.frames += len(lines)
            writer.write_eof()
            await self._answers(reader)

    async def _half(self, rng: random.Random) -> None:
        """Half a message and a hang-up, or whole ones whose answers nobody waits for."""
        line = rng.choice(self._lines)
        async with self._client() as (_, writer):
            writer.write(line[: rng.randrange(len(line) + 1)] + rng.choice((b"", b"\n")))
            self._seen.frames += 1
            await asyncio.sleep(rng.choice((0, 0, 0.01)))

    async def _dribble(self, rng: random.Random) -> None:
        """A line in small pieces."""
        line = rng.choice(self._lines)[:200] + b"\n"
        async with self._client() as (reader, writer):
            step = rng.choice((1, 7, 50))
            for at in range(0, len(line), step):
                writer.write(line[at : at + step])
                await asyncio.sleep(0.0005)
            self._seen.frames += 1
            writer.write_eof()
            await self._answers(reader)

    async def _huge_line(self, rng: random.Random) -> None:
        """About a mebibyte, whole or not."""
        async with self._client() as (reader, writer):
            writer.write(rng.choice(self._huge) + rng.choice((b"\n", b"\n", b"")))
            self._seen.frames += 1
            writer.write_eof()
            await self._answers(reader)

    async def _refused(self, rng: random.Random) -> None:
        """Calls that would act, hung up on before they are refused, or not."""
        async with self._client() as (reader, writer):
            for method, params in material.REFUSED.items():
                writer.write(text({**STATUS, "method": method, "params": params}) + b"\n")
                self._seen.frames += 1
            if rng.random() < 0.5:
                writer.write_eof()
                await self._answers(reader)

    async def _crowd(self, rng: random.Random) -> None:
        """As many as the agent lets in, each with most of a mebibyte that does not end."""
        line = rng.choice(self._huge)[: rng.choice((1000, 300_000, 1_000_000))]

        async def one() -> None:
            async with self._client() as (reader, writer):
                writer.write(line)
                self._seen.frames += 1
                async with asyncio.timeout(rng.uniform(0.1, 1.0)):
                    await self._answers(reader)

        many = (one() for _ in range(wire.MAX_CONNECTIONS))
        await asyncio.gather(*many, return_exceptions=True)

    async def _deaf(self, rng: random.Random) -> None:
        """Many who ask for the longest answer and read none."""
        longest = {**STATUS, "method": "rpc.discover"}
        line = text(rng.choice((longest, [longest] * wire.MAX_BATCH)))

        async def one() -> None:
            async with self._client() as (_, writer):
                writer.transport.pause_reading()
                count = rng.randrange(1, 40)
                writer.write((line + b"\n") * count)
                self._seen.frames += count
                await asyncio.sleep(rng.uniform(0.1, 1.0))

        await asyncio.gather(*(one() for _ in range(40)), return_exceptions=True)

    async def _waits(self, rng: random.Random) -> None:
        """Calls that stay open, by the batch, with as much beside them as goes into a line."""
        waiting = {**STATUS, "method": "subscribe", "params": {"since": 0}}
        line = text([waiting] * wire.MAX_BATCH) + b" " * rng.choice((0, 100_000, 1_000_000))

        async def one() -> None:
            async with self._client() as (_, writer):
                writer.transport.pause_reading()
                writer.write((line + b"\n") * 4)
                self._seen.frames += 4
                await asyncio.sleep(rng.uniform(0.1, 1.0))

        await asyncio.gather(*(one() for _ in range(60)), return_exceptions=True)


text = material.text


@contextlib.asynccontextmanager
async def beside(path: str, seen: Seen) -> AsyncIterator[None]:
    """Have a client that behaves ask for `status` all the time, and note how long each answer took."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, BESIDE, path, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield
    finally:
        async with asyncio.timeout(2 * PATIENCE_S):
            took, said = await program.communicate(b"")
    if program.returncode:
        seen.problems.append(f"the client that behaves was not served: {said.decode()[-300:]}")
    else:
        seen.latency_ms = json.loads(took)


async def look(agent: psutil.Process, seen: Seen) -> None:
    """Sample the agent's resident memory."""
    while True:
        try:
            seen.memory.append(agent.memory_info().rss)
        except psutil.Error:
            seen.problems.append("the agent died")
            return
        if seen.memory[-1] > seen.idle_bytes + ALLOWED_BYTES:
            grown = (seen.memory[-1] - seen.idle_bytes) / 1e6
            seen.problems.append(f"the agent's memory grew by {grown:.1f} MB")
            return
        await asyncio.sleep(0.02)


async def attack(path: str, agent: psutil.Process, frames: int, seed: int, seconds: float) -> Seen:
    """Everything at once, until `frames` lines have been sent or something broke."""
    seen = Seen()
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    for _ in range(20):
        for method in ("status", "rpc.discover"):  # what is loaded once is loaded now
            writer.write(text({**STATUS, "method": method}) + b"\n")
            await reader.readline()
    writer.close()
    seen.idle_bytes = agent.memory_info().rss
    watch = asyncio.create_task(look(agent, seen))
    async with beside(path, seen):
        await Attack(path, seen, frames, seed, seconds).run()
        await asyncio.sleep(0.2)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    return seen


def curve(values: Sequence[float]) -> str:
    """The largest value of each part of the time, as bars."""
    parts = [
        max(values[len(values) * at // COLUMNS : len(values) * (at + 1) // COLUMNS] or [0])
        for at in range(COLUMNS)
    ]
    top = max(parts) or 1
    return "".join(BARS[round(part / top * (len(BARS) - 1))] for part in parts)


def report(seen: Seen) -> str:
    """Both curves and the figures that matter."""
    grown = [max(0, size - seen.idle_bytes) / 1e6 for size in seen.memory]
    slow = sorted(seen.latency_ms) or [0.0]

    def at(share: float) -> float:
        return slow[min(len(slow) - 1, int(len(slow) * share))]

    return "\n".join(
        (
            f"{seen.frames} lines sent, {seen.answers} answers, {seen.closed} cut off",
            f"memory above idle ({seen.idle_bytes / 1e6:.1f} MB), MB: largest {max(grown):.1f}, at the end {grown[-1]:.1f}",
            f"|{curve(grown)}|",
            f"status beside it, ms ({len(slow)} calls): median {at(0.5):.1f}, "
            f"99 % {at(0.99):.1f}, 99.9 % {at(0.999):.1f}, largest {slow[-1]:.1f}",
            f"|{curve(seen.latency_ms)}|",
            *seen.problems[:5],
        )
    )


def fuzz(frames: int, seed: int, seconds: float = FOREVER_S) -> Seen:
    """One round against an agent of its own."""
    with home() as made:
        made.provider({X: {}})
        daemon = made.start_daemon()
        return asyncio.run(
            attack(str(made.socket), psutil.Process(daemon.pid), frames, seed, seconds)
        )


def main() -> None:
    """`--frames N --seed S`; 1 when something broke."""
    words = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else ""
    )
    words.add_argument("--frames", type=int, default=1_000_000)
    words.add_argument("--seed", type=int, default=7)
    words.add_argument("--minutes", type=float, default=FOREVER_S / 60, help="end earlier")
    flags = words.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # of clients that write on after a cut
    seen = fuzz(flags.frames, flags.seed, flags.minutes * 60)
    print(report(seen))  # noqa: T201 - a program
    sys.exit(bool(seen.problems))


if __name__ == "__main__":
    main()
