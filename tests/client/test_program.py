"""Which program a job runs: paths that last, and an environment without secrets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autotunectl.service import process
from autotunectl.service.managers import ServiceError


def test_homebrew_s_lasting_name_is_taken_for_a_path_in_its_cellar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cellar = tmp_path / "Cellar" / "autotuned" / "1.0" / "libexec" / "bin"
    cellar.mkdir(parents=True)
    for name in ("python3", "autotuned"):
        (cellar / name).touch()
    monkeypatch.setattr(sys, "executable", str(cellar / "python3"))
    assert process.program() == (str(cellar / "autotuned"),)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "autotuned").symlink_to(cellar.parents[1])
    lasting = tmp_path / "opt" / "autotuned" / "libexec" / "bin" / "autotuned"
    assert process.program() == (str(lasting),)


def test_a_link_to_the_interpreter_is_not_resolved_out_of_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(venv / "python"))
    assert process.program() == (str(venv / "python"), "-m", "autotuned")


@pytest.mark.parametrize(
    "path",
    [
        "/opt/homebrew/Cellar/autotuned/1.0/libexec/bin/autotuned",
        "/Users/me/.cache/uv/archive-v0/x/bin/autotuned",
        "/Users/me/.local/pipx/.cache/1234/bin/autotuned",
        "/private/var/folders/x/T/venv/bin/autotuned",
        "/nix/store/x-autotuned/bin/autotuned",
        "/Volumes/Stick/venv/bin/autotuned",
    ],
)
def test_paths_that_go_stale_are_told(path: str) -> None:
    assert process.doubts((path,))


@pytest.mark.parametrize(
    "path",
    [
        "/Users/me/.local/pipx/venvs/autotuned/bin/autotuned",
        "/Users/me/.local/share/uv/tools/autotuned/bin/autotuned",
        "/Users/me/code/.venv/bin/autotuned",
    ],
)
def test_environments_that_last_are_not_doubted(path: str) -> None:
    assert process.doubts((path,)) == []


def test_an_environment_whose_interpreter_will_vanish_is_doubted(tmp_path: Path) -> None:
    lasting = Path("/nowhere") / "venv"
    assert process.doubts((str(lasting / "bin" / "autotuned"),)) == []
    config = tmp_path / "pyvenv.cfg"
    config.write_text("home = /opt/homebrew/Cellar/python@3.12/3.12.4/bin\n", encoding="utf-8")
    told = " ".join(process.doubts((str(tmp_path / "bin" / "autotuned"),)))
    assert "python@3.12" in told


def test_the_job_s_environment_holds_places_and_no_secret(tmp_path: Path) -> None:
    server = tmp_path / "macprovider-cli"
    server.write_text("#!/bin/sh\n", encoding="utf-8")
    server.chmod(0o755)
    environ = {
        "PATH": f"relative:{tmp_path}:/usr/bin",
        "HF_TOKEN": "secret",
        "HF_HOME": "/models",
        "AUTOTUNED_SOCKET": "",
    }
    made = process.environment(environ, ("/venv/bin/autotuned",))
    folders = made["PATH"].split(":")
    assert folders[0] == str(tmp_path)
    assert "/venv/bin" in folders
    assert folders[-4:] == ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    assert "relative" not in folders
    assert set(made) == {"PATH", "HF_HOME"}


def test_a_program_that_does_not_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    broken = tmp_path / "autotuned"
    broken.write_text("#!/bin/sh\necho 'No module named autotuned' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(ServiceError, match="No module named autotuned"):
        process.verify((str(broken),), {"PATH": "/usr/bin:/bin"})
    broken.write_text("#!/bin/sh\necho autotuned 0.0.1\n", encoding="utf-8")
    with pytest.raises(ServiceError, match=r"0\.0\.1"):
        process.verify((str(broken),), {"PATH": "/usr/bin:/bin"})
