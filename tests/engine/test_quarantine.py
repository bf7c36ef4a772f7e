"""A configuration that took the machine down: written down before its start, and never started again."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuned.core.quarantine import Configuration
from autotuned.engine.quarantine import Inflight, Quarantine
from autotuned.errors import NotFound
from autotuned.shared.knobs import Knobs
from autotuned.store.database import Database
from tests.e2e.test_load import described
from tests.engine import inside
from tests.support.home import Home, X, Y, far, kill, poll

CELL = Configuration("mlx-lm", "0.31", "acme/Big", Knobs(8, 2, 8000), 4000)
STARTED = {"at": "2026-03-01T03:31:00Z", "run_id": "r1"}


def boot(folder: Path, number: int | str) -> dict[str, str]:
    """The environment of a boot with this identity."""
    path = folder / "boot"
    path.write_text(f"boot-{number}" if isinstance(number, int) else number, encoding="ascii")
    return {"AUTOTUNED_BOOT_ID_FILE": str(path)}


def begun(folder: Path, number: int | str) -> Inflight:
    """The record of an agent that has started the cell in that boot."""
    made = Inflight(folder, boot(folder, number))
    made.begin({**CELL.document(), **STARTED})
    return made


async def test_what_ran_when_the_machine_went_down_becomes_one_entry(tmp_path: Path) -> None:
    begun(tmp_path, 1)
    database = await Database.open(tmp_path / "a.sqlite")
    record = (tmp_path / "inflight.json").read_text(encoding="utf-8")
    made = Quarantine(database, Inflight(tmp_path, boot(tmp_path, 2)))
    await made.adopt()
    assert not (tmp_path / "inflight.json").exists()
    (tmp_path / "inflight.json").write_text(
        record, encoding="utf-8"
    )  # killed before it was removed
    await made.adopt()
    (entry,) = await made.entries()
    assert (entry.configuration, entry.boot_id, entry.next_boot_id) == (CELL, "boot-1", "boot-2")
    assert await made.refusal(CELL) is not None
    with pytest.raises(NotFound, match="no entry 9"):
        await made.clear(9)
    assert await made.clear(entry.id) == [entry.id]
    assert await made.refusal(CELL) is None
    assert await made.clear(None) == []
    await database.close()


@pytest.mark.parametrize(
    ("before", "now"),
    [(1, 1), ("unknown", 2), (1, "unknown")],
    ids=["the same boot", "then unknown", "now unknown"],
)
async def test_a_killed_agent_alone_puts_nothing_into_quarantine(
    tmp_path: Path, before: int | str, now: int | str
) -> None:
    begun(tmp_path, before)
    database = await Database.open(tmp_path / "a.sqlite")
    made = Quarantine(database, Inflight(tmp_path, boot(tmp_path, now)))
    await made.adopt()
    assert await made.entries() == []
    assert not (tmp_path / "inflight.json").exists()
    await database.close()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"boot_id": "boot-1"}', '{"boot_id": "boot-1", "knobs": 7}']
)
async def test_a_record_that_cannot_be_read_stops_no_agent(tmp_path: Path, text: str) -> None:
    (tmp_path / "inflight.json").write_text(text, encoding="utf-8")
    database = await Database.open(tmp_path / "a.sqlite")
    made = Quarantine(database, Inflight(tmp_path, boot(tmp_path, 2)))
    await made.adopt()
    assert await made.entries() == []
    assert not (tmp_path / "inflight.json").exists()
    await database.close()


def test_after_an_orderly_end_nothing_is_written_down_any_more(tmp_path: Path) -> None:
    made = begun(tmp_path, 1)
    assert json.loads((tmp_path / "inflight.json").read_text())["boot_id"] == "boot-1"
    made.close()
    made.begin({**CELL.document(), **STARTED})
    made.end()
    assert not (tmp_path / "inflight.json").exists()
    assert Inflight(tmp_path, boot(tmp_path, 2)).left() is None


async def test_a_quarantined_candidate_is_passed_over_and_a_quarantined_cell_left_out(
    home: Home,
) -> None:
    home.provider({X: {}, Y: {}})
    async with inside.agent(home) as agent:
        version = (await agent._provider(None).locate()).version
        folder = home.path / ".config" / "macprovider" / "run"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cell = Knobs(8, 1, 2000)
        for number, (model, knobs) in enumerate([(X, None), (Y, cell)]):
            down = Configuration("macprovider", version, model, knobs, 2000)
            record = {**down.document(), "at": f"2026-03-0{number + 1}T03:31:00Z", "run_id": "r1"}
            Inflight(folder, boot(home.path, number)).begin(record)
            before = agent.quarantine
            await Quarantine(before._database, Inflight(folder, boot(home.path, 9))).adopt()
        document = await inside.tune(agent, home, X, Y, kv_bits_axis=[None, 8], stage2_replicates=1)
        assert home.starts() == [Y, Y]
        reason = "quarantined: the machine went down while it ran on 2026-03-0"
        assert [each["reason"] for each in document["infeasible"]] == [f"{reason}1"]
        assert [each["reason"] for each in document["stage2"]] == [None, f"{reason}2"]
        assert document["exit_reason"] == "ok"
        once_more = await inside.tune(agent, home, X, stage2_replicates=1, ignore_quarantine=True)
        assert once_more["recommendation"] is not None
        assert once_more["recommendation"]["model"] == X
        assert not (folder / "inflight.json").exists()


async def test_a_point_on_a_server_that_stands_is_written_down_as_that_was_started(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    described(home, at_once="true", limit="min = 1")
    records: list[Mapping[str, Any]] = []
    async with inside.agent(home) as agent:
        inflight = agent.quarantine.inflight
        begin = inflight.begin

        def noted(record: Mapping[str, Any]) -> None:
            records.append(record)
            begin(record)

        monkeypatch.setattr(inflight, "begin", noted)
        fields = {"calibrate_concurrency": True, "concurrency_ceiling": 4, "kv_bits_axis": [None]}
        document = await inside.tune(
            agent, home, Y, max_batch_axis=[1], stage2_replicates=1, **fields
        )
    several = document["calibration"]["concurrency"]
    assert several is not None
    slots = [record["knobs"] and record["knobs"]["max_concurrency_override"] for record in records]
    assert slots == [None, 1, *(4 for _ in several["points"])]


@pytest.mark.slow
def test_a_machine_that_goes_down_does_so_once_over_nights_and_a_resume(home: Home) -> None:
    home.environ |= boot(home.path, 1)
    home.provider({X: {"load_s": 60}, Y: {}})
    run_id = home.begin(X, Y, stage2_replicates=1)
    poll(home.starts, "the candidate is started")
    record = home.path / ".config" / "macprovider" / "run" / "inflight.json"
    assert json.loads(record.read_text())["model"] == X
    assert home.daemon is not None
    home.daemon.send_signal(signal.SIGSTOP)  # nobody ends in order
    for child in psutil.Process(home.daemon.pid).children(recursive=True):
        child.kill()
    kill(home.daemon)
    boot(home.path, 2)
    home.start_daemon()
    (entry,) = home.rpc("status")["quarantine"]
    assert (entry["model"], entry["knobs"], entry["run_id"]) == (X, None, run_id)
    assert "took the machine down" in home.ctl("status").stdout
    assert "quarantine" in home.ctl("doctor").stdout
    assert "big-32B" in home.ctl("quarantine").stdout
    request = {"candidate_models": [X, Y], "port": home.port, "stage2_replicates": 1}
    for _night in range(3):
        home.rpc("schedule.set", at=far(), when="always", request=request)
        scheduled = home.rpc("schedule.run_now")["run_id"]
        home.rpc("wait", run_id=scheduled, timeout_s=30)
        assert home.rpc("result", run_id=scheduled)["recommendation"]["model"] == Y
    home.rpc("start", resume=run_id)
    home.rpc("wait", run_id=run_id, timeout_s=30)
    assert home.rpc("result", run_id=run_id)["recommendation"]["model"] == Y
    assert home.starts().count(X) == 1
    assert home.ctl("quarantine", "clear", "7").returncode == 11
    assert home.ctl("quarantine", "clear").stdout == "cleared: 1 configuration\n"
    assert home.rpc("status")["quarantine"] == []


@pytest.mark.slow
def test_an_orderly_end_leaves_nothing_behind_and_a_guardian_neither(home: Home) -> None:
    home.environ |= boot(home.path, 1)
    home.provider({X: {"load_s": 60}})
    record = home.path / ".config" / "macprovider" / "run" / "inflight.json"
    home.begin(X)
    poll(home.starts, "the candidate is started")
    assert home.daemon is not None
    home.daemon.terminate()
    home.daemon.wait(30)
    assert not record.exists()
    home.start_daemon()
    home.begin(X)
    poll(lambda: len(home.starts()) == 2, "the candidate is started again")
    kill(home.daemon)
    poll(lambda: not record.exists(), "the guardian has ended it and says so")
    boot(home.path, 2)
    home.start_daemon()
    assert home.rpc("status")["quarantine"] == []
