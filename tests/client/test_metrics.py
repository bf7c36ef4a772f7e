"""What `metrics` prints, judged by Prometheus' own parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.home import Home, Y

pytestmark = pytest.mark.slow  # each starts an agent of its own


def values(text: str) -> dict[str, float]:
    """Samples by name; labels are left out."""
    families = list(text_string_to_metric_families(text))
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_metrics_tell_of_the_last_run_the_recipe_and_what_is_owed(home: Home) -> None:
    home.provider({Y: {"replicates": [{"tps": 100, "ttft_ms": 20}]}})
    document = home.tune(Y)
    text = home.ctl("metrics").stdout
    found = values(text)
    assert found["autotuned_up"] == 1
    assert found["autotuned_last_run_ok"] == 1
    answer = document["recommendation"]
    assert found["autotuned_recommendation_tokens_per_second"] == answer["tps_median"]
    assert found["autotuned_recommendation_ttft_p95_seconds"] == answer["ttft_p95_ms"] / 1000
    assert found["autotuned_stale"] == 0
    assert found["autotuned_restore_outstanding"] == 0
    assert found["autotuned_schedule_enabled"] == 0
    assert f'model="{Y}"' in text


def test_without_an_agent_the_metrics_say_so_and_start_none(home: Home) -> None:
    done = home.ctl("metrics")
    assert done.returncode == 0
    assert values(done.stdout) == {"autotuned_up": 0.0}
    assert home.processes() == []


def test_metrics_go_whole_into_a_file_or_are_refused_by_its_name(home: Home) -> None:
    home.start_daemon()
    target = home.path / "autotuned.prom"
    assert home.ctl("metrics", "--output", str(target)).returncode == 0
    assert values(target.read_text(encoding="utf-8"))["autotuned_up"] == 1
    refused = home.ctl("metrics", "--output", str(home.path / "absent" / "x.prom"))
    assert refused.returncode == 2
    assert "absent" in refused.stderr
