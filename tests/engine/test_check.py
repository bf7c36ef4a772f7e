"""`check`: the applied recipe is started once, judged, and counts for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from autotunectl.text.compare import history
from autotuned import settings
from autotuned.engine.compare import past
from autotuned.engine.schedule.staleness import Staleness
from autotuned.engine.settings import Configuration
from autotuned.errors import ConfigError, NotFound
from autotuned.host.machine import Machine
from autotuned.store.runs import Which
from tests.engine import inside
from tests.support.home import Home, Y

OLDER = "UPDATE tune_runs SET machine_os_version = 'macOS 26.3' WHERE run_id = ?"
FAST, SLOW = {"tps": 20.0, "ttft_ms": 20}, {"tps": 10.0, "ttft_ms": 20}


async def test_a_recipe_that_has_become_slower_is_told_and_nothing_else_changes(home: Home) -> None:
    home.provider({Y: {"replicates": [FAST]}})
    async with inside.agent(home) as agent:
        with pytest.raises(NotFound, match="no good run"):
            await agent.check({})
        tuned = await inside.tune(agent, home, Y, kv_bits_axis=[8], stage2_replicates=2)
        home.provider({Y: {"replicates": [SLOW]}})
        begun = await agent.check({"port": home.port})
        await agent.wait(begun["run_id"], 60)
        document = await agent.result(begun["run_id"])
        assert (document["trigger"], document["exit_reason"]) == ("check", "ok")
        assert document["recommendation"] is None
        checked = document["check"]
        assert (checked["verdict"], checked["of_run"]) == ("slower", tuned["run_id"])
        assert len(document["stage2"]) == 1
        assert len(document["stage2"][0]["samples"]) == 2
        assert len(home.starts()) == 3
        latest = await agent._records.latest(Which.SEARCHED)
        assert latest is not None
        assert latest.run_id == tuned["run_id"]
        check, tune = (await past(agent._records, 9))["history"]
        assert (check["kind"], check["run_id"]) == ("check", begun["run_id"])
        assert check["check"] == checked
        assert (tune["kind"], tune["run_id"]) == ("tune", tuned["run_id"])
        assert (tune["check"], check["knobs"]) == (None, tune["knobs"])
        assert check["tps_median"] == checked["tps_median"]
        rows = history({"history": [check, tune]})
        assert rows[1][-1].startswith("check: slower -")
        assert rows[2][-1] == "tuned"
        machine, chosen = Machine(), settings.load(home.environ)
        staleness = Staleness(agent, agent._records, machine, Configuration(chosen, lambda: chosen))
        await agent._records.database.ask(lambda db: db.execute(OLDER, (tuned["run_id"],)))
        changed = await staleness.look()
        assert (changed.os_changed, changed.checkable) == (True, True)
        await staleness.confirm(begun["run_id"])
        assert (await staleness.look()).fresh
        with pytest.raises(ConfigError, match="belongs to the method check"):
            await agent.start({"candidate_models": [Y], "trigger": "check", "port": home.port})


async def test_a_calibrated_recipe_is_asked_as_its_point_was(home: Home) -> None:
    home.provider({Y: {"shares": {"prefill_tps": 80_000, "decode_tps": 4000, "most_slots": 4}}})
    async with inside.agent(home) as agent:
        asked = {
            "calibrate_context": True,
            "calibrate_concurrency": True,
            "context_ceiling": 4000,
            "concurrency_ceiling": 4,
            "stage2_replicates": 1,
            "min_gain": 0.01,
        }
        tuned: dict[str, Any] = dict(await inside.tune(agent, home, Y, **asked))
        knobs = tuned["recommendation"]["knobs"]
        streams = tuned["calibration"]["concurrency"]["recommended"]
        assert (knobs["max_context_override"], streams) == (4000, knobs["max_concurrency_override"])
        assert streams > 1
        begun = await agent.check({"port": home.port})
        await agent.wait(begun["run_id"], 60)
        document: dict[str, Any] = dict(await agent.result(begun["run_id"]))
        (cell,) = document["stage2"]
        assert cell["knobs"] == knobs
        assert document["inputs"]["concurrency"] == len(cell["samples"]) == streams
        assert min(sample["prompt_tokens"] for sample in cell["samples"]) > 3800
        points = tuned["calibration"]["concurrency"]["points"]
        (point,) = (each for each in points if each["concurrency"] == streams)
        assert document["check"]["tps_before"] == point["tps"]
