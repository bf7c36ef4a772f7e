"""Weights from outside: the real agent, the real client of the hub, a hub on loopback."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_hub import FakeHub, fake_hub, model_files
from tests.support.home import DEADLINE_S, Home, X, Y, poll
from tests.support.models import write_gguf, write_mlx

pytestmark = pytest.mark.slow  # each starts an agent of its own

MIB = 2**20


@pytest.fixture
def hub(home: Home) -> Iterator[FakeHub]:
    """A hub that this home's agent asks."""
    with fake_hub() as made:
        del home.environ["HF_HUB_OFFLINE"]
        home.environ |= {"HF_ENDPOINT": made.url, "NO_PROXY": "*"}
        yield made


def test_a_transient_failure_leaves_a_row_and_the_next_candidate_is_fetched_and_wins(
    home: Home, hub: FakeHub
) -> None:
    home.provider({Y: {}}, cached=False)
    small, large = model_files()
    hub.add(X, small, large=large)
    hub.fault(f"/api/models/{X}/revision/main", status=403, code="GatedRepo")
    hub.add(Y, small, large=large)
    document = home.tune(X, Y)
    assert document["exit_reason"] == "ok"
    assert document["recommendation"]["model"] == Y
    assert document["infeasible"][0]["reason"].startswith("pre-warm transient: ")
    assert "gated" in document["infeasible"][0]["reason"]
    assert home.starts()[0] == Y, "weights come before the first start"
    offline = [entry["environment"].get("HF_HUB_OFFLINE") for entry in home.calls("environment")]
    assert set(offline) == {"1"}, "a candidate cannot fetch behind our back"
    kinds = [kind for (kind,) in home.sql("SELECT type FROM events ORDER BY seq")]
    assert "prewarm.progress" in kinds
    assert kinds.index("prewarm.progress") < kinds.index("provider.starting")


def test_an_integrity_failure_aborts_the_whole_run_and_names_the_candidate(
    home: Home, hub: FakeHub
) -> None:
    home.provider({X: {}, Y: {}}, cached=False)
    small, large = model_files()
    hub.add(X, small, large=large)
    hub.add(Y, small, large=large)
    hub.fault(f"cdn/{X}/model.safetensors", body=b"x" * len(large["model.safetensors"]))
    done = home.ctl("start", "--candidate-models", f"{X},{Y}", "--port", str(home.port), "--wait")
    assert done.returncode == 8
    assert X in done.stderr
    assert "pre-warm integrity" in done.stderr
    assert home.starts() == []
    rows = home.sql("SELECT model, fits, notes FROM tune_trials")
    assert [(model, fits) for model, fits, _ in rows] == [(X, 0)]
    assert home.sql("SELECT exit_reason FROM tune_runs") == [("pre_warm_integrity_failure",)]


def test_fr_d_a_cancel_in_the_middle_of_a_download_ends_it_at_once(
    home: Home, hub: FakeHub
) -> None:
    home.provider({X: {}}, cached=False)
    small, large = model_files(4 * MIB)
    hub.add(X, small, large=large)
    hub.fault(f"cdn/{X}/model.safetensors", drip=0.005)
    run_id = home.begin(X)
    poll(lambda: hub.sent_of("model.safetensors") > 20_000)
    moving = poll(lambda: home.rpc("status")["run"]["progress"]["prewarm"])
    assert home.rpc("status")["run"]["phase"] == "prewarming"
    assert moving["total"] > 4 * MIB
    assert home.ctl("pull", Y).returncode == 10, "no download beside a run"
    home.rpc("cancel", run_id=run_id)
    home.rpc("wait", run_id=run_id, timeout_s=DEADLINE_S)
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "interrupted"
    poll(lambda: len(home.processes()) == 1, "only the agent is left")


def test_fr_d_the_agent_killed_in_the_middle_of_a_download_leaves_no_process_and_a_usable_cache(
    home: Home, hub: FakeHub
) -> None:
    home.provider({X: {}}, cached=False)
    small, large = model_files(MIB)
    hub.add(X, small, large=large)
    hub.fault(f"cdn/{X}/model.safetensors", drip=0.005)
    home.begin(X)
    poll(lambda: hub.sent_of("model.safetensors") > 20_000)
    assert home.daemon is not None
    home.daemon.kill()
    home.daemon.wait()
    poll(lambda: not home.processes(), "the download went with the agent")
    hub.faults.clear()
    hub.sent.clear()
    home.start_daemon()
    assert home.tune(X)["exit_reason"] == "ok"
    assert 0 < hub.sent_of("model.safetensors") < len(large["model.safetensors"])


def test_pull_shows_its_progress_and_models_lists_what_came(home: Home, hub: FakeHub) -> None:
    home.provider({}, cached=False)
    small, large = model_files(MIB)
    hub.add(X, small, large=large)
    hub.fault(f"cdn/{X}/model.safetensors", drip=0.002)
    done = home.ctl("pull", X)
    assert done.returncode == 0, done.stderr
    assert "fetching" in done.stderr
    assert X in done.stdout
    listed = json.loads(home.ctl("models", "--json").stdout)["models"]
    assert [(m["model"], m["complete"], m["fits"]) for m in listed] == [(X, True, True)]
    assert listed[0]["size_b"] == 32.0
    assert listed[0]["weights_bytes"] == len(large["model.safetensors"])
    assert "checked" in home.ctl("models").stdout
    hub.asked.clear()
    assert home.ctl("pull", X, "--verify").returncode == 0
    assert hub.asked == []


def test_pull_exits_by_what_became_of_it(home: Home, hub: FakeHub) -> None:
    home.provider({}, cached=False)
    small, large = model_files()
    hub.add(X, small, large=large | {"model.safetensors": b"no header"})
    hub.add(Y, small, large={}, declared={"model.safetensors": 10**15, "tokenizer.json": 9})
    damaged = home.ctl("pull", X)
    assert (damaged.returncode, damaged.stdout) == (8, "")
    assert "pre-warm integrity" in damaged.stderr
    large_one = home.ctl("pull", Y)
    assert large_one.returncode == 3
    assert "static: weights" in large_one.stderr
    absent = home.ctl("pull", "acme/none")
    assert absent.returncode == 3
    assert absent.stderr.count("acme/none") == 1
    assert "look its name up on the hub" in absent.stderr
    assert "goes on where" not in absent.stderr
    malformed = home.ctl("pull", "a/b/c d")
    assert malformed.returncode == 3
    assert malformed.stderr.count("a/b/c d") == 1
    assert "OWNER/NAME" in malformed.stderr
    nowhere = home.ctl("pull", "./none")
    assert (nowhere.returncode, nowhere.stderr[:21]) == (2, "autotunectl: --model:")
    assert home.ctl("pull", "").returncode == 2
    assert home.ctl("pull", X, "--provider", "nobody").returncode == 2
    assert home.ctl("pull", X).returncode == 8  # what was refused is not in progress


def test_ctrl_c_ends_a_pull_and_no_run_begins_beside_one(home: Home, hub: FakeHub) -> None:
    home.provider({Y: {}})
    small, large = model_files(4 * MIB)
    hub.add(X, small, large=large)
    hub.fault(f"cdn/{X}/model.safetensors", drip=0.005)
    home.start_daemon()
    client = home.ctl_begin("pull", X)
    poll(lambda: hub.sent_of("model.safetensors") > 20_000)
    assert f"pull      {X}: " in home.ctl("status").stdout
    assert home.rpc("status")["pull"]["model"] == X
    busy = home.ctl("start", "--candidate-models", Y, "--port", str(home.port))
    assert busy.returncode == 10
    assert "autotunectl pull --cancel" in busy.stderr
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 130
    assert home.rpc("pull.wait", timeout_s=DEADLINE_S)["outcome"] == "interrupted"
    poll(lambda: len(home.processes()) == 1, "only the agent is left")
    assert home.tune(Y)["exit_reason"] == "ok"


def test_fr_d_start_verify_reads_again_what_was_checked_before(home: Home, hub: FakeHub) -> None:
    home.provider({X: {}}, cached=False)
    small, large = model_files()
    hub.add(X, small, large=large)
    assert home.tune(X)["exit_reason"] == "ok"
    (weights,) = (path for path in home.path.rglob("model.safetensors") if path.is_symlink())
    before = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert home.tune(X)["exit_reason"] == "ok", "size and time are what is remembered"
    words = ["--candidate-models", X, "--port", str(home.port)]
    found = home.ctl("start", "--verify", "--wait", *words)
    assert found.returncode == 8, found.stderr
    assert "SHA-256" in found.stderr


def test_start_dry_run_says_what_would_be_fetched(home: Home, hub: FakeHub) -> None:
    home.provider({Y: {}})
    small, large = model_files()
    hub.add(X, small, large=large)
    words = ["start", "--candidate-models", f"{X},{Y}", "--dry-run"]
    plan: dict[str, Any] = json.loads(home.ctl(*words, "--json").stdout)
    assert [entry["cached"] for entry in plan["candidates"]] == [False, True]
    assert plan["fetch_bytes"] == plan["candidates"][0]["fetch_bytes"] > 4096
    assert plan["fetch_s"] is None
    text = home.ctl(*words).stdout
    assert "no download has been measured yet" in text
    assert all("/resolve/" not in asked for asked in hub.asked)


@pytest.mark.parametrize(
    ("kind", "model"), [("mlx-lm", "acme/tiny-1M"), ("llama-server", "acme/tiny-1M-GGUF:Q8_0")]
)
def test_fr_d_what_was_fetched_is_what_a_real_server_serves(
    home: Home, hub: FakeHub, tmp_path: Path, kind: str, model: str
) -> None:
    if kind == "mlx-lm":
        folder = write_mlx(tmp_path / "tiny")
        content = {path.name: path.read_bytes() for path in folder.iterdir()}
        large = {name: content.pop(name) for name in ("model.safetensors", "tokenizer.json")}
    else:
        content = {}
        large = {"tiny-Q8_0.gguf": write_gguf(tmp_path / "tiny.gguf").read_bytes()}
    hub.add(model.partition(":")[0], content, large=large)
    home.environ["PATH"] = f"{Path(sys.executable).parent}:{home.environ['PATH']}"
    document = home.tune(model, provider=kind, target_context=256, timeout=90)
    assert document["exit_reason"] == "ok", document
    assert document["recommendation"]["model"] == model
    assert all(asked.split()[1].count(model.partition(":")[0]) for asked in hub.asked)
