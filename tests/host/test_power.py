"""The machine is kept awake while a run lasts, by a helper that ends with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autotuned.host import power
from autotuned.host.clock import Sleep
from tests.support.home import Home, Y, poll

CAFFEINATE = """\
#!{python} -S
import pathlib, os, sys, time
here = pathlib.Path(__file__)
with here.with_name("caffeinate.calls").open("a") as log:
    log.write(f"{{os.getpid()}} {{' '.join(sys.argv[1:])}}\\n")
while True:
    try:
        os.kill(int(sys.argv[-1]), 0)
    except ProcessLookupError:
        break
    time.sleep(0.05)
"""


def caffeinate(folder: Path) -> Path:
    """A `caffeinate` that writes down its pid and arguments, and ends with the pid it watches."""
    program = folder / "caffeinate"
    program.write_text(CAFFEINATE.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    return folder / "caffeinate.calls"


@pytest.mark.slow
def test_the_machine_is_kept_awake_for_a_run_and_no_longer(home: Home) -> None:
    home.provider({Y: {}})
    calls = caffeinate(home.bin)
    daemon = home.start_daemon()
    assert not calls.exists()
    home.tune(Y)
    pid, *words = calls.read_text(encoding="utf-8").split()
    assert words == ["-i", "-s", "-w", str(daemon.pid)]
    poll(lambda: not [process for process in home.processes() if process.pid == int(pid)])


async def test_a_caffeinate_that_cannot_be_started_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "caffeinate"
    program.write_text("#!/nowhere/at/all\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with power.awake():
        pass


def test_a_machine_that_is_awake_does_not_sleep() -> None:
    """The two clocks are read one after the other, so that one reading may be held up; not each of twenty."""
    clock = Sleep()
    before = clock.slept_s()
    assert min(abs(clock.slept_s() - before) for _ in range(20)) < 0.01
