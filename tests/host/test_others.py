"""What other programs do to the machine while a candidate is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autotuned.host import others as programs
from autotuned.host.find import other_agents
from autotuned.host.machine import Machine
from autotuned.host.others import OtherPrograms
from autotuned.host.power import low_power
from tests.support.home import DEADLINE_S, poll

BUSY = "while True: pass"


@pytest.fixture
def spinning() -> Iterator[subprocess.Popen[bytes]]:
    """A process of a group of its own that takes a processor."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True)
    yield process
    process.kill()
    process.wait(DEADLINE_S)


def test_what_another_program_takes_is_counted_and_the_candidates_own_is_not(
    spinning: subprocess.Popen[bytes],
) -> None:
    others, without = OtherPrograms(0, {}), OtherPrograms(spinning.pid, {})
    worked = psutil.Process(spinning.pid).cpu_times().user + 0.5
    poll(lambda: psutil.Process(spinning.pid).cpu_times().user > worked, "it has worked")
    beside, apart = others.share(), without.share()
    assert 0 < beside <= 1
    assert 0 <= apart < beside
    poll(lambda: psutil.Process(spinning.pid).name() in others.busiest(), "it is named")
    assert len(others.busiest()) <= 3


def test_a_file_can_tell_it_instead(tmp_path: Path) -> None:
    (tmp_path / "busy.json").write_text('{"share": 0.4, "busiest": ["backupd"]}')
    others = OtherPrograms(1, {"AUTOTUNED_BUSY_FILE": str(tmp_path / "busy.json")})
    assert (others.share(), others.busiest()) == (0.4, ("backupd",))


def test_the_conditions_of_a_trial_are_read_off_the_machine() -> None:
    conditions = Machine().conditions()
    assert conditions.load_average is not None
    assert conditions.power_source in ("ac", "battery", None)
    assert conditions.others_share is None


@pytest.mark.parametrize(
    ("answer", "saving"),
    [(" lowpowermode         1", True), (" powermode 0", False), (" sleep 1", None), (None, None)],
)
def test_low_power_mode_is_read_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None, saving: bool | None
) -> None:
    if answer is not None:
        (tmp_path / "pmset").write_text(f"#!/bin/sh\necho '{answer}'\n")
        (tmp_path / "pmset").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    assert low_power() is saving


def test_another_model_server_is_named_with_how_to_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "MEMORY_SHARE", 0.0)
    server = tmp_path / "llama-server"
    server.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    server.chmod(0o755)
    home = {"HOME": str(tmp_path)}
    process = subprocess.Popen([server], env=home)
    environ = {"AUTOTUNED_LIVE_HOME": str(tmp_path)}
    try:
        poll(lambda: programs.beside(environ, "MARK", ()), "it is there")
        (sentence,) = programs.beside(environ, "MARK", ())
        assert sentence.startswith(f"llama-server (pid {process.pid}) holds ")
        assert sentence.endswith(f": kill {process.pid}")
        assert programs.beside(environ, "MARK", [process.pid]) == []
        assert programs.beside(environ, "MARK", [os.getpid()]) == []
        assert programs.beside(environ, "HOME", ()) == []
        assert programs.beside({"AUTOTUNED_LIVE_HOME": "/nowhere"}, "MARK", ()) == []
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def test_a_child_that_still_bears_its_agents_command_line_is_no_second_agent() -> None:
    command = "import subprocess as s; p = s.Popen(['autotuned', '60'], executable='/bin/sleep'); print(p.pid, flush=True); p.wait()"
    child = subprocess.Popen(["autotuned", "60"], executable="/bin/sleep")
    parent = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    stranger = int(parent.stdout.readline())
    try:
        poll(lambda: stranger in {pid for pid, _ in other_agents()})
        assert child.pid not in {pid for pid, _ in other_agents()}
    finally:
        psutil.Process(stranger).kill()
        for process in (child, parent):
            process.kill()
            process.wait(DEADLINE_S)
        parent.stdout.close()
