"""A trial during which the machine slept says nothing: it is repeated, and leaves a warning instead of a row."""

from __future__ import annotations

import pytest

from tests.engine import inside
from tests.support.home import Home, Y


class Nap(inside.FakeSleep):
    """Sleeps for a while once so many replicates have been asked for."""

    def __init__(self, home: Home, after: int, seconds: float) -> None:
        super().__init__()
        self._home, self._after, self._seconds = home, after, seconds

    def slept_s(self) -> float:
        asked = [entry for entry in self._home.calls("request") if entry["request"] == "replicate"]
        if self.total_s == 0 and len(asked) >= self._after:
            self.sleep(self._seconds)
        return super().slept_s()


async def test_a_trial_in_which_the_machine_slept_is_repeated_and_leaves_no_row(home: Home) -> None:
    home.provider({Y: {}})
    async with inside.agent(home, sleep=Nap(home, after=3, seconds=61)) as agent:
        document = await inside.tune(agent, home, Y, stage2_replicates=3)
    assert document["exit_reason"] == "ok"
    assert home.starts() == [Y, Y, Y]
    rows = home.sql("SELECT stage, replicates_n, n_err FROM tune_trials ORDER BY id")
    assert rows == [(1, 1, 0), (2, 3, 0)]
    assert [warning for warning in document["warnings"] if "slept for 61 s" in warning]
    told = home.sql("SELECT fields_json FROM events WHERE type = 'log'")
    assert any("the machine slept for 61 s meanwhile; it is repeated" in row[0] for row in told)


@pytest.mark.slow
async def test_a_moment_of_drift_between_the_clocks_is_no_sleep(home: Home) -> None:
    home.provider({Y: {}})
    async with inside.agent(home, sleep=Nap(home, after=2, seconds=0.9)) as agent:
        document = await inside.tune(agent, home, Y)
    assert home.starts() == [Y, Y]
    assert document["warnings"] == []


@pytest.mark.slow
async def test_a_failure_that_a_sleep_explains_is_not_held_against_the_candidate(
    home: Home,
) -> None:
    home.provider({Y: {"replicates": [{"status": 500}, {}]}})
    async with inside.agent(home, sleep=Nap(home, after=1, seconds=600)) as agent:
        document = await inside.tune(agent, home, Y)
    # The candidate keeps no memory of requests over its restart: it fails again, and now it counts.
    assert document["exit_reason"] == "no_feasible"
    assert home.starts() == [Y, Y]
    assert len(home.sql("SELECT id FROM tune_trials")) == 1


@pytest.mark.slow
async def test_a_budget_counts_the_time_asleep(home: Home) -> None:
    home.provider({Y: {}})
    async with inside.agent(home, sleep=Nap(home, after=2, seconds=8000)) as agent:
        document = await inside.tune(agent, home, Y, max_duration=7200.0, stage2_replicates=50)
    assert document["exit_reason"] == "budget_exhausted_no_model_selected"
