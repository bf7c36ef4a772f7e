"""Ports, files and the machine as they really are."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path

import pytest

from autotuned.errors import UnsafePath
from autotuned.host import files
from autotuned.host.machine import Machine, Pressure, linux_pressure
from autotuned.host.ports import Ports
from tests.support.home import free_port

ports = Ports()


def test_a_port_is_free_or_held_by_somebody_with_a_name() -> None:
    port = free_port()
    assert ports.is_free(port)
    assert ports.holder(port) is None
    assert not ports.listens(os.getpgrp(), port)
    with socket.create_server(("127.0.0.1", port)):
        assert not ports.is_free(port)
        assert ports.listens(os.getpgrp(), port)
        assert not ports.listens(os.getpgrp(), free_port())
        assert not ports.listens(1, port)
        found = ports.holder(port)
        assert found is not None
        assert (found.port, found.pid) == (port, os.getpid())
        assert found.name
    assert ports.is_free(port)


def test_a_port_that_is_bound_without_listening_is_not_free_and_one_that_lingers_is() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not ports.is_free(bound.getsockname()[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # the closing side is the one that lingers
    assert ports.is_free(port)


def test_an_atomic_write_replaces_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_atomic(path, b"one")
    files.write_atomic(path, b"two", mode=0o640)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(OSError, match="directory"):
        files.write_atomic(tmp_path / "nowhere" / "a", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        files.write_atomic(tmp_path / "folder", b"x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "folder"]


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert files.lock_holder(path) == "another process"
    held = files.take_lock(path)
    assert held is not None
    assert files.take_lock(path) is None
    assert re.fullmatch(rf"pid {os.getpid()} since 20\d\d-.*Z", files.lock_holder(path))
    held.release()
    held.release()
    again = files.take_lock(path)
    assert again is not None
    path.unlink()  # somebody removes the file: the name is free, and a new lock counts
    new = files.take_lock(path)
    assert new is not None
    again.release()
    new.release()


def test_a_private_folder_is_made_and_later_only_verified(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    files.private_folder(folder)
    files.private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(UnsafePath, match="chmod 700"):
        files.private_folder(folder)
    assert (
        stat.S_IMODE(folder.stat().st_mode) == 0o755
    )  # told, never changed behind somebody's back
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsafePath, match="cannot be made"):
        files.private_folder(tmp_path / "file" / "run")


def test_this_machine_has_memory_a_chip_and_a_name() -> None:
    machine = Machine()
    facts = machine.facts()
    assert facts.ram_gb >= 1
    assert abs(facts.ram_gb - facts.ram_bytes / 2**30) < 1
    assert facts.chip
    assert facts.os_version
    assert machine.facts() == facts
    assert machine.pressure() in Pressure
    assert machine.group_rss(os.getpgrp()) > 1_000_000
    assert machine.group_rss(2**22 - 1) == 0


PLENTY = "MemTotal: 1000 kB\nMemAvailable: 500 kB\n"


@pytest.mark.parametrize(
    ("stalls", "meminfo", "level"),
    [
        ("", "", Pressure.NORMAL),
        ("", PLENTY, Pressure.NORMAL),
        ("some avg10=99.00 avg60=1\nfull avg10=9.99 avg60=0", PLENTY, Pressure.NORMAL),
        ("some avg10=99.00\nfull avg10=10.00 avg60=0", PLENTY, Pressure.WARNING),
        ("full avg10=40.00 avg60=0", PLENTY, Pressure.CRITICAL),
        ("", "MemTotal: 1000 kB\nMemAvailable: 79 kB\n", Pressure.WARNING),
        ("", "MemTotal: 1000 kB\nMemAvailable: 19 kB\n", Pressure.CRITICAL),
    ],
)
def test_memory_pressure_is_the_kernels_own_word(
    stalls: str, meminfo: str, level: Pressure
) -> None:
    assert linux_pressure(stalls, meminfo) is level
