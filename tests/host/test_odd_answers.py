"""Whatever the system's own tools and files say, what cannot be read is unknown and never an exception."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotuned.host import power
from autotuned.host.machine import Machine, Pressure, linux_pressure
from autotuned.shared import identity, launchctl

WORDS = ("MemTotal:", "MemAvailable:", " 0 kB", "full avg10=", "nan", "²", "pid = ", "state = ")
LINES = st.lists(st.sampled_from(WORDS) | st.text(max_size=6) | st.integers().map(str)).map("".join)


@given(LINES, LINES)
def test_no_text_of_the_kernel_makes_the_pressure_raise(stalls: str, meminfo: str) -> None:
    linux_pressure(stalls, meminfo)


@pytest.mark.parametrize(
    "meminfo", ["MemTotal: 0 kB\nMemAvailable: 0 kB", "MemTotal:", "MemTotal: x"]
)
def test_a_memory_that_is_not_told_is_no_pressure(meminfo: str) -> None:
    assert linux_pressure("full avg10=nan", meminfo) is Pressure.NORMAL


@given(LINES)
def test_no_dump_of_launchctl_makes_the_reader_raise(text: str) -> None:
    job = launchctl.parse("gui/501", "a.b", f"{text}\n\tpid = {'9' * 5000}\n\texit timeout = ²\n")
    assert job.exit_timeout_s == 5.0


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40))
def test_no_bytes_of_a_tool_make_the_facts_of_a_machine_raise(
    tmp_path_factory: pytest.TempPathFactory, printed: bytes
) -> None:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "printed").write_bytes(printed)
    for name in ("sw_vers", "sysctl", "pmset"):
        tool = folder / name
        tool.write_text(f"#!/bin/sh\nexec /bin/cat '{folder}/printed'\n", encoding="utf-8")
        tool.chmod(stat.S_IRWXU)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        assert Machine().facts().ram_bytes > 0
        power.on_ac()


@given(st.binary())
def test_no_file_makes_the_boot_raise(
    tmp_path_factory: pytest.TempPathFactory, told: bytes
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "boot"
    path.write_bytes(told)
    assert isinstance(identity.boot_id({"AUTOTUNED_BOOT_ID_FILE": str(path)}), str)
