"""Where power comes from, as `pmset` or Linux's files tell it; and the zone of this machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from autotuned.host.clock import LocalZone
from autotuned.host.power import linux_on_ac, on_ac
from tests.support import tools


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("Now drawing from 'AC Power'\n -InternalBattery-0\t100%; charged", True),
        ("Now drawing from 'Battery Power'\n -InternalBattery-0\t80%; discharging", False),
        ("Now drawing from 'UPS Power'", False),
        ("", None),
    ],
)
def test_pmset_tells_where_power_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, expected: bool | None
) -> None:
    tools.install(tmp_path, "pmset", {"-g batt": says})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert on_ac() is expected


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, True),
        ({"AC": {"type": "Mains", "online": "1"}}, True),
        ({"AC": {"type": "Mains", "online": "0"}, "BAT0": {"type": "Battery"}}, False),
        ({"AC": {"type": "Mains", "online": "1"}, "BAT0": {"type": "Battery"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Full"}}, None),
        ({"mouse": {"type": "Battery", "scope": "Device", "status": "Discharging"}}, True),
    ],
)
def test_linux_files_tell_where_power_comes_from(
    tmp_path: Path, supplies: dict[str, dict[str, str]], expected: bool | None
) -> None:
    for name, files in supplies.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(f"{content}\n", encoding="utf-8")
    assert linux_on_ac(tmp_path) is expected
    assert linux_on_ac(tmp_path / "absent") is True


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_the_local_zone_is_the_one_of_the_machine_in_every_fold_and_gap(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TZ", name)
    ours, theirs = LocalZone(), ZoneInfo(name)
    ours.reread()
    try:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        while moment.year == 2026:
            here, there = moment.astimezone(ours), moment.astimezone(theirs)
            assert (here.isoformat(), here.fold) == (there.isoformat(), there.fold)
            for fold in (0, 1):
                bare = moment.replace(tzinfo=None, fold=fold)
                expected = bare.replace(tzinfo=theirs).astimezone(UTC)
                assert bare.replace(tzinfo=ours).astimezone(UTC) == expected
            moment += timedelta(minutes=47)
    finally:
        monkeypatch.undo()
        time.tzset()
