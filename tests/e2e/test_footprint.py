"""What an idle agent takes. How quickly it answers is measured by benchmarks/footprint.py, not judged here."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from tests.support.home import Home, Y

pytestmark = pytest.mark.slow  # each starts an agent of its own

IDLE_MB = 60


def test_p_3_an_idle_agent_takes_less_than_60_mb_before_and_after_runs(home: Home) -> None:
    home.provider({Y: {}})
    agent = psutil.Process(home.start_daemon().pid)
    home.rpc("status")
    assert agent.memory_info().rss / 2**20 < IDLE_MB
    assert home.tune(Y, stage2_replicates=1, target_context=256)["exit_reason"] == "ok"
    home.rpc("status")
    assert agent.memory_info().rss / 2**20 < IDLE_MB


def test_an_agent_loads_nothing_that_draws_and_no_schedule_or_hub_that_it_does_not_use() -> None:
    code = (
        "import sys, autotuned.__main__ as agent\n"
        "for name in agent.NOT_DRAWN: sys.modules.setdefault(name, None)\n"
        "import autotuned.daemon\n"
        "unwanted = ('rich.console', 'click', 'pygments', 'apscheduler', 'huggingface_hub')\n"
        "print([name for name in unwanted if sys.modules.get(name)])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
