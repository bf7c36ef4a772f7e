"""A disk that is full, read-only or failing, a database destroyed under the agent, descriptors that run out.

What fails says so in one line with its path, nothing is lost, and a drained live provider comes back.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.home import DEADLINE_S, Home, Y, kill, poll
from tests.support.live import LaunchdJob

BRIEF: dict[str, Any] = {"replicates": [{"ttft_ms": 300, "total_ms": 700}]}

pytestmark = pytest.mark.slow
needs_prlimit = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="limits of another process can be set on Linux only"
)


def start_that_fails(home: Home) -> str:
    """Start an agent that cannot stay; the one line that it says."""
    done = subprocess.run(
        [sys.executable, "-m", "autotuned"],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd="/",
    )
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def drained(home: Home) -> LaunchdJob:
    """A run in progress whose live provider has been stopped; nothing has been measured yet."""
    home.provider({Y: BRIEF})
    job = LaunchdJob(home)
    home.begin(Y, drain=True)
    poll(lambda: "replicate" in str(home.calls("request")), "the candidate is being measured")
    assert not job.alive()
    return job


def limit(home: Home, what: int, value: int) -> None:
    """From now on the agent may have no more of this."""
    assert home.daemon is not None
    resource.prlimit(home.daemon.pid, what, (value, resource.prlimit(home.daemon.pid, what)[1]))  # type: ignore[attr-defined, unused-ignore]


def ended(home: Home) -> bool:
    """No run is in progress, and nothing is owed."""
    try:
        status = home.rpc("status")
    except (OSError, ValueError):  # all places may still be taken
        return False
    return status["lease"] is None and status["run"]["state"] == "finished"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_disk_that_fills_up_in_a_drained_run_costs_the_run_and_nothing_else(
    home: Home,
) -> None:
    folder = home.path / ".config" / "macprovider"
    with small_disk(folder, "6m"):
        job = drained(home)
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"x" * 65_536)
        poll(job.back, "the live provider is back")
        assert home.rpc("version")["pid"]
        log = home.path / "state" / "autotuned" / "autotuned.log"
        poll(lambda: str(home.database) in log.read_text(), "the log names the database")
        filler.unlink()
        poll(lambda: ended(home), "nothing is owed")
        job.take_down()
        assert home.tune(Y)["exit_reason"] == "ok"
        assert home.sql("PRAGMA integrity_check") == [("ok",)]
        home.rpc("shutdown")
        assert home.daemon is not None
        home.daemon.wait(DEADLINE_S)


@needs_prlimit
def test_files_that_may_not_grow_cost_the_run_and_nothing_else(home: Home) -> None:
    """Every write fails: of the database, the journal of the lease, the log."""
    job = drained(home)
    limit(home, resource.RLIMIT_FSIZE, 0)
    poll(job.back, "the live provider is back")
    assert home.rpc("version")["pid"]
    limit(home, resource.RLIMIT_FSIZE, 1 << 40)
    poll(lambda: home.rpc("status")["lease"] is None, "nothing is owed")
    assert home.daemon is not None
    kill(home.daemon)
    home.start_daemon()
    assert job.back()
    assert home.sql("PRAGMA integrity_check") == [("ok",)]


@needs_prlimit
def test_without_descriptors_the_live_provider_comes_back_as_soon_as_there_are_some(
    home: Home,
) -> None:
    job = drained(home)
    before = resource.prlimit(home.daemon.pid, resource.RLIMIT_NOFILE)[0]  # type: ignore[union-attr, attr-defined, unused-ignore]
    limit(home, resource.RLIMIT_NOFILE, 3)
    log = home.path / "state" / "autotuned" / "autotuned.log"
    poll(lambda: "Too many open files" in log.read_text(), "it is said")
    limit(home, resource.RLIMIT_NOFILE, before)
    poll(job.back, "the live provider is back", 60)
    poll(lambda: ended(home), "the run has ended")


def test_clients_cannot_take_the_descriptors_that_a_restore_needs(home: Home) -> None:
    home.provider({Y: BRIEF})
    job = LaunchdJob(home)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (110, hard))
    try:
        # the agent raises its limit to what it may have: so the hard one is what counts
        home.daemon = None
        program = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (110, 110)); "
        program += "from autotuned.__main__ import main; main([])"
        home.daemon = subprocess.Popen([sys.executable, "-c", program], env=home.environ, cwd="/")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    poll(home._answers, "the agent answers")
    with contextlib.ExitStack() as held:
        home.begin(Y, drain=True)
        for _ in range(128):
            with contextlib.suppress(OSError):
                held.enter_context(home.connect())
        poll(lambda: len(home.starts()) >= 2, "the candidate runs")
        poll(job.back, "the live provider is back")
    poll(lambda: ended(home), "the run has ended")
    assert home.rpc("result")["exit_reason"] == "ok"


def test_a_database_destroyed_under_a_drained_run_is_set_aside_at_the_next_start(
    home: Home,
) -> None:
    job = drained(home)
    for path in home.database.parent.glob("autotune.sqlite*"):
        path.write_bytes(b"\xff" * max(8192, path.stat().st_size))
    poll(job.back, "the live provider is back")
    poll(lambda: home.rpc("version")["pid"], "the agent lives")
    assert home.daemon is not None
    kill(home.daemon)
    home.start_daemon()
    assert job.back()
    assert list(home.database.parent.glob("autotune.sqlite.corrupt-*"))
    assert home.rpc("status")["lease"] is None
    job.take_down()
    assert home.tune(Y)["exit_reason"] == "ok"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("prepared", [False, True], ids=["new", "used"])
def test_a_read_only_disk_is_one_line_with_its_path(home: Home, prepared: bool) -> None:
    folder = home.path / ".config" / "macprovider"
    with small_disk(folder, "8m"):
        if prepared:
            home.start_daemon()
            home.rpc("shutdown")
            assert home.daemon is not None
            home.daemon.wait(DEADLINE_S)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        said = start_that_fails(home)
    assert str(folder) in said
    assert "Read-only file system" in said
    assert "writable" in said


@needs_prlimit
def test_a_database_that_cannot_grow_at_the_start_is_one_line_with_its_path(home: Home) -> None:
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
    program += "from autotuned.__main__ import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd="/",
    )
    assert done.returncode == 2
    assert str(home.database) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a home away")
def test_root_refuses_to_work_in_somebody_elses_home(home: Home) -> None:
    os.chown(home.path, 65534, 65534)
    said = start_that_fails(home)
    assert "this is root" in said
    assert "without sudo" in said
    assert not (home.path / ".config").exists()
    os.chown(home.path, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_user_gets_not_one_byte_though_the_folders_let_him_in(home: Home) -> None:
    """The last door: even with the modes of folder and socket undone, the peer's uid decides."""
    home.start_daemon()
    for folder in (home.path, *list(home.socket.parents)[:3]):
        folder.chmod(0o755)
    home.socket.chmod(0o666)
    call = '{"jsonrpc": "2.0", "id": 1, "method": "status"}\\n'
    program = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        f"s.connect({str(home.socket)!r}); s.settimeout(10)\n"
        f"try:\n    s.sendall(b'{call}'); print(len(s.recv(100)))\nexcept ConnectionError:\n    print(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "0"
    home.socket.parent.chmod(0o700)
    assert home.rpc("version")["pid"]
