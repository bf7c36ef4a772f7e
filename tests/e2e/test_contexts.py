"""Several target contexts from outside: one run, one document, a recipe for each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.home import Home, X, Y, Z, kill, poll
from tests.support.live import LaunchdJob

BRIEF: dict[str, Any] = {"ttft_ms": 5, "total_ms": 20}


def three(home: Home) -> None:
    """Models of which the large one serves 1,000 tokens and no more, the next 2,000."""
    home.provider(
        {X: {**BRIEF, "refuses_beyond": 1050}, Y: {**BRIEF, "refuses_beyond": 2100}, Z: BRIEF}
    )


def test_each_context_has_its_own_answer_and_apply_takes_the_one_that_is_named(home: Home) -> None:
    three(home)
    job = LaunchdJob(home)
    flags = ["--target-context", "2000", "--target-context", "1000", "--target-context", "4000"]
    begun = [*flags, "--candidate-models", f"{X},{Y},{Z}", "--kv-bits-axis", "unset"]
    begun += ["--max-batch-axis", "1", "--port", str(home.port), "--stage2-replicates", "1"]
    home.start_daemon()
    planned = home.ctl("start", "--dry-run", *begun)
    assert "--max-context 4000" in planned.stdout, planned.stderr
    done = home.ctl("start", "--wait", "--drain", *begun)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("every target context") :].splitlines()[1:5]
    assert [line.split()[:2] for line in table] == [
        ["CONTEXT", "MODEL"],
        ["1,000", "big-32B"],
        ["2,000", "middle-7B"],
        ["4,000", "small-1B"],
    ], (table, home.rpc("result")["profiles"][-1])
    document = home.rpc("result")
    assert document["recommendation"]["model"] == X
    profiles = document["profiles"]
    assert profiles[0]["recommendation"] == document["recommendation"]
    assert profiles[0]["recipe_hash"] == document["recipe_hash"]
    assert len({each["recipe_hash"] for each in profiles}) == 3
    assert [cell["knobs"]["max_context_override"] for cell in document["stage2"]] == [1000]
    # What could not serve 1,000 is not tried with more: each walk begins at the last one's choice.
    assert [model for model in home.starts() if model] == [X, X, X, Y, Y, Y, Z, Z]
    columns = home.sql("SELECT DISTINCT target_context FROM tune_trials ORDER BY 1")
    assert columns == [(1000,), (2000,), (4000,)]
    assert "4,000" in home.rpc("report")["html"]
    applied = home.ctl("apply", "--context", "4000", "--restart")
    assert applied.returncode == 0, applied.stderr
    assert f"model: {Z}" in job.config.read_text()
    assert "max_context_override: 4000" in job.config.read_text()
    checked = home.ctl("check", "--drain", "--json", "--port", str(home.port))
    assert json.loads(checked.stdout)["inputs"]["target_context"] == 4000, checked.stderr
    assert home.starts()[-2] == Z
    missing = home.ctl("apply", "--context", "5000")
    assert missing.returncode == 12
    assert "nothing for 5000 tokens (was not asked for): it has 1000, 2000, 4000" in missing.stderr


def test_a_context_that_nothing_serves_has_a_reason_and_the_smaller_ones_stand(home: Home) -> None:
    home.provider({Y: {**BRIEF, "refuses_beyond": 4200}})
    done = home.tune(Y, target_context=[2000, 8000, 16000], stage2_replicates=1)
    assert done["exit_reason"] == "ok"
    assert done["recommendation"]["target_context"] == 2000
    small, large = done["profiles"]
    assert (small["target_context"], large["target_context"]) == (2000, 8000)
    assert large["recommendation"] is None
    assert "8000 tokens" in large["reason"]
    assert "8,000" in home.ctl("show").stdout


@pytest.mark.slow
def test_a_run_that_is_killed_between_two_contexts_goes_on_with_the_second(home: Home) -> None:
    three(home)
    run_id = home.begin(X, Y, target_context=[1000, 2000], stage2_replicates=2)
    poll(lambda: home.starts().count(Y) == 1, "it is at the second context")
    assert home.daemon is not None
    kill(home.daemon)
    poll(lambda: not home.processes(), "the candidate is gone")
    home.start_daemon()
    before = home.starts().count(X)
    assert home.rpc("start", resume="latest", target_context=[1000, 2000])["run_id"] == run_id
    poll(lambda: home.rpc("result", run_id=run_id)["state"] == "finished", "it ends")
    done = home.rpc("result", run_id=run_id)
    assert [each["recommendation"]["model"] for each in done["profiles"]] == [X, Y]
    assert home.starts().count(X) == before
