"""What has been checked is remembered for as long as nothing of it has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuned.weights import verified as ledgers
from autotuned.weights.cache import Weights
from autotuned.weights.verified import Ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two files."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "a.safetensors").write_bytes(b"weights")
    (made / "b.json").write_bytes(b"{}")
    return made


def remembered(folder: Path, at: Path) -> tuple[Weights, list[Path]]:
    ledger, files = Ledger(at), sorted(folder.iterdir())
    weights = Weights(folder, 7, ("<|end|>",))
    ledger.remember(weights, ledger.marks(files))
    return weights, files


def test_a_check_is_remembered_by_the_next_agent(folder: Path, tmp_path: Path) -> None:
    weights, files = remembered(folder, tmp_path / "run" / "weights.json")
    later = Ledger(tmp_path / "run" / "weights.json")
    assert later.known(folder, files) == weights
    assert later.checked_at(folder) is not None
    assert (tmp_path / "run" / "weights.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "b.json").write_bytes(b"{ }"),
        lambda folder: os.utime(folder / "b.json"),
        lambda folder: (folder / "c.json").write_bytes(b"{}"),
        lambda folder: (folder / "b.json").unlink(),
        lambda folder: (folder / "b.json").rename(folder / "d.json"),
    ],
)
def test_any_change_of_any_file_makes_it_be_checked_again(
    folder: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    remembered(folder, tmp_path / "weights.json")
    change(folder)
    later = Ledger(tmp_path / "weights.json")
    assert later.known(folder, sorted(folder.iterdir())) is None


def test_another_file_with_the_same_size_and_time_is_another_inode(
    folder: Path, tmp_path: Path
) -> None:
    _, files = remembered(folder, tmp_path / "weights.json")
    before = files[0].stat()
    other = folder / "other"
    other.write_bytes(b"sthgiew")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(files[0])
    assert Ledger(tmp_path / "weights.json").known(folder, files) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version": 99}',
        b'{"version": 1, "checked": []}',
        b'{"version": 1, "checked": {"MODEL": {"marks": 1}}}',
        b'{"version": 1, "checked": {"MODEL": 7}}',
    ],
)
def test_a_file_that_makes_no_sense_counts_as_empty_and_is_replaced(
    folder: Path, tmp_path: Path, content: bytes
) -> None:
    at = tmp_path / "weights.json"
    at.write_bytes(content.replace(b"MODEL", str(folder).encode()))
    assert Ledger(at).known(folder, sorted(folder.iterdir())) is None
    weights, files = remembered(folder, at)
    assert Ledger(at).known(folder, files) == weights


def test_the_oldest_checks_are_forgotten(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "KEPT", 2)
    ledger, files = Ledger(tmp_path / "weights.json"), sorted(folder.iterdir())
    for name in ("x", "y", "z"):
        ledger.remember(Weights(tmp_path / name, 1), ledger.marks(files))
    assert [ledger.checked_at(tmp_path / name) is None for name in "xyz"] == [True, False, False]


def test_a_ledger_that_cannot_be_written_only_costs_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    weights, files = remembered(folder, tmp_path / "file" / "weights.json")
    ledger = Ledger(tmp_path / "file" / "weights.json")
    assert ledger.known(folder, files) is None
    ledger.remember(weights, ledger.marks(files))
    assert ledger.known(folder, files) == weights, "this agent still knows"


def test_the_rate_of_the_last_download_is_kept(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "weights.json").rate is None
    Ledger(tmp_path / "weights.json").rate = 5e7
    assert Ledger(tmp_path / "weights.json").rate == 5e7
