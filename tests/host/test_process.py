"""Candidates and their guardian: what is started ends, whoever dies first, and its log stays bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from autotuned.host.children.guardian import LOG_RING_BYTES
from autotuned.host.children.marked import marked
from autotuned.host.children.process import Child, Processes, sweep_orphans
from tests.support.home import poll

MARKER = "AUTOTUNED_TEST_CANDIDATE"
SLEEPS = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
WITH_HELPER = (
    "import subprocess, sys; p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']);"
    "print(p.pid, flush=True); sys.exit(3)"
)

DAEMON = """
import os, time
for _ in range(COUNT):
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(600)
for _ in range(COUNT):
    os.wait()
print("away", flush=True)
time.sleep(600)
"""
BOMB = """
import os, time
for number in range(6):
    os.fork()
if os.getpid() == os.getpgid(0):
    print("many", flush=True)
while True:
    if not os.fork():
        time.sleep(0.05)
        os._exit(0)
    time.sleep(0.1)
"""
"""64 processes of which each starts others: bounded, and never still."""
LOUD = """
import os
for _ in range(2048):
    os.write(2, b"x" * (1 << 20))
os.write(2, b"the end\\n")
"""


class Bench:
    """Processes with a folder; every candidate is a short Python program."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.value = folder, str(folder)
        self.processes = Processes(MARKER, self.value)
        self.log = folder / "log"

    async def start(self, program: str, log_max_bytes: int = 1 << 20) -> Child:
        self.log = self.folder / f"log-{time.monotonic_ns()}"
        return await self.processes.start(
            [sys.executable, "-S", "-c", program],
            env={"PATH": os.defpath, "SHOWN": "yes"},
            cwd=self.folder,
            log=self.log,
            log_max_bytes=log_max_bytes,
        )

    async def says(self, text: str = "") -> str:
        """What the candidate has written, once that holds `text`."""
        await asyncio.to_thread(
            poll,
            lambda: self.log.exists() and text in self.log.read_text() and self.log.read_text(),
        )
        return self.log.read_text()

    def group(self, group: int) -> list[int]:
        """Live pids of a group."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.processes.close()
    assert sweep_orphans(MARKER, made.value) == 0


async def test_a_candidate_runs_in_its_own_session_with_only_the_environment_given(
    bench: Bench,
) -> None:
    program = (
        "import os, sys, json; print(json.dumps([os.getsid(0) == os.getpid(), os.getppid(), dict(os.environ), "
        "os.getcwd(), sys.stdin.read()])); sys.exit(7)"
    )
    child = await bench.start(program)
    assert await child.exited() == 7
    assert child.exit_code == 7
    await child.stop(5)
    own_session, parent, environ, folder, stdin = json.loads(bench.log.read_text())
    assert own_session
    assert parent == bench.processes.guardian_pid
    assert environ == {**environ, "SHOWN": "yes", MARKER: bench.value}
    assert not {"HOME", "USER"} & set(environ)
    assert (folder, stdin) == (str(bench.folder), "")
    assert stat.S_IMODE(bench.log.stat().st_mode) == 0o600


async def test_a_signal_is_told_as_a_negative_code(bench: Bench) -> None:
    child = await bench.start(SLEEPS)
    os.kill(child.pid, signal.SIGKILL)
    assert await child.exited() == -signal.SIGKILL
    await child.stop(1)
    await child.stop(1)  # idempotent


async def test_a_program_that_cannot_be_started_is_an_oserror_and_the_next_one_starts(
    bench: Bench,
) -> None:
    with pytest.raises(OSError, match="nowhere"):
        await bench.processes.start(
            ["/nowhere/server"], env={}, cwd=bench.folder, log=bench.folder / "l", log_max_bytes=9
        )
    child = await bench.start("pass")
    assert await child.exited() == 0


async def test_a_log_that_exists_is_never_written_into(bench: Bench) -> None:
    (bench.folder / "taken").symlink_to(bench.folder / "precious")
    (bench.folder / "precious").write_text("mine")
    with pytest.raises(OSError, match="exists"):
        await bench.processes.start(
            [sys.executable, "-c", "print(1)"],
            env={},
            cwd=bench.folder,
            log=bench.folder / "taken",
            log_max_bytes=9,
        )
    assert (bench.folder / "precious").read_text() == "mine"


async def test_a_stop_of_who_obeys_takes_no_grace(bench: Bench) -> None:
    child = await bench.start(SLEEPS)
    began = time.monotonic()
    await child.stop(60)
    assert time.monotonic() - began < 30
    assert child.exit_code == -signal.SIGTERM
    assert bench.group(child.pid) == []


async def test_who_ignores_sigterm_is_killed_after_the_grace(bench: Bench) -> None:
    child = await bench.start(STUBBORN)
    await bench.says("up")
    await child.stop(0.2)
    assert child.exit_code == -signal.SIGKILL
    assert bench.group(child.pid) == []


async def test_a_helper_that_outlives_its_leader_is_swept(bench: Bench) -> None:
    child = await bench.start(WITH_HELPER)
    assert await child.exited() == 3
    helper = int(await bench.says("\n"))
    assert bench.group(child.pid) == [helper]
    await child.stop(5)
    assert bench.group(child.pid) == []


@pytest.mark.parametrize("leaders", [False, True], ids=["one", "many"])
async def test_what_leaves_its_group_ends_with_the_candidate(bench: Bench, leaders: bool) -> None:
    """A process that has made itself a daemon is known by the mark that it inherited."""
    child = await bench.start(DAEMON.replace("COUNT", "12" if leaders else "1"))
    await bench.says("away")
    assert len(marked(f"{MARKER}={bench.value}")) >= 2
    await child.stop(5)
    assert not marked(f"{MARKER}={bench.value}")


async def test_a_bomb_of_forks_in_the_group_ends_with_it(bench: Bench) -> None:
    child = await bench.start(BOMB)
    await bench.says("many")
    await child.stop(0)
    assert bench.group(child.pid) == []


@pytest.mark.slow
async def test_gigabytes_of_output_cost_neither_disk_nor_memory(bench: Bench) -> None:
    child = await bench.start(LOUD, log_max_bytes=1 << 20)
    guardian = psutil.Process(bench.processes.guardian_pid)
    before = guardian.memory_info().rss
    async with asyncio.timeout(90):
        await child.exited()
    grown = guardian.memory_info().rss - before
    await child.stop(0)
    assert grown < 8 * 1024 * 1024
    assert bench.log.stat().st_size <= (1 << 20) + 4096
    assert "bytes left out" in bench.log.read_text(errors="replace")
    assert bench.log.read_text(errors="replace").endswith("the end\n")


async def test_who_closes_its_output_is_watched_and_stopped_all_the_same(bench: Bench) -> None:
    closes = "import os, time; os.close(1); os.close(2); time.sleep(600)"
    child = await bench.start(closes)
    await asyncio.sleep(0.05)
    assert child.exit_code is None
    await child.stop(5)
    assert child.exit_code == -signal.SIGTERM


async def test_of_a_long_log_the_beginning_and_the_end_are_kept(bench: Bench) -> None:
    bound = LOG_RING_BYTES + 100_000
    program = (
        "import sys; [sys.stdout.write(f'line {n:06d}\\n') for n in range(200_000)]; sys.exit(0)"
    )
    child = await bench.start(program, log_max_bytes=bound)
    await child.exited()
    await child.stop(5)
    text = bench.log.read_text()
    assert len(text) <= bound + 100
    assert text.startswith("line 000000\n")
    assert text.endswith("line 199999\n")
    assert " bytes left out ..." in text


async def test_a_killed_guardian_takes_its_candidates_along_and_the_next_one_has_a_new_guardian(
    bench: Bench,
) -> None:
    child = await bench.start(STUBBORN)
    await bench.says("up")
    first = bench.processes.guardian_pid
    os.kill(first, signal.SIGKILL)
    assert await asyncio.wait_for(child.exited(), 20) == -signal.SIGKILL
    await asyncio.to_thread(poll, lambda: not bench.group(child.pid))
    await child.stop(1)
    again = await bench.start("pass")
    assert await again.exited() == 0
    assert bench.processes.guardian_pid != first


async def test_close_ends_whatever_runs_and_the_guardian(bench: Bench) -> None:
    children = [await bench.start(SLEEPS) for _ in range(2)]
    guardian = bench.processes.guardian_pid
    await bench.processes.close()
    await bench.processes.close()
    assert all(child.exit_code is not None for child in children)
    assert not psutil.pid_exists(guardian)


AGENT = """
import asyncio, os, sys
from pathlib import Path
from autotuned.host.children.process import Processes
async def main():
    processes = Processes({marker!r}, {value!r})
    child = await processes.start([sys.executable, "-S", "-c", {program!r}], env={{}}, cwd=Path({value!r}),
        log=Path({value!r}) / "log", log_max_bytes=1 << 20)
    print(child.pid, processes.guardian_pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_a_killed_agent_leaves_neither_candidate_nor_guardian(tmp_path: Path) -> None:
    program = AGENT.format(marker=MARKER, value=str(tmp_path), program=STUBBORN)
    agent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    with agent.stdout:
        pids = [int(word) for word in agent.stdout.readline().split()]
    poll(lambda: "up" in (tmp_path / "log").read_text())
    agent.kill()
    agent.wait()
    poll(lambda: not [pid for pid in pids if _alive(pid)], "candidate and guardian are gone")


def test_orphans_are_swept_by_their_mark_alone(tmp_path: Path) -> None:
    environ = {"PATH": os.defpath}
    ours, other = (
        subprocess.Popen([sys.executable, "-S", "-c", SLEEPS], env={**environ, MARKER: value})
        for value in (str(tmp_path), "another home")
    )
    try:
        poll(lambda: psutil.Process(ours.pid).environ().get(MARKER))
        assert sweep_orphans(MARKER, str(tmp_path)) == 1
        ours.wait(20)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def _alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
