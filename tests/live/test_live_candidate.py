"""The candidate `live`, an update that is waited for, and a live provider that runs another program."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.home import Home, RpcError, Y, poll, whole_model
from tests.support.live import Foreground, LaunchdJob


def bound(home: Home, job: LaunchdJob) -> Path:
    """Bind the job's configuration to an artifact; its folder."""
    folder = home.path / "artifacts" / "llama-3.2-3b"
    folder.mkdir(parents=True)
    for name, content in whole_model().items():
        (folder / name).write_bytes(content)
    job.config.write_text(
        f"model: meta-llama/llama-3.2-3b-instruct\nport: {job.port}\nmodel_artifact_path: {folder}\n"
        f"model_artifact_sha256: {'0' * 64}\n",
        encoding="utf-8",
    )
    return folder


@pytest.mark.slow
def test_live_is_the_artifact_of_a_bound_configuration_and_the_document_says_so(home: Home) -> None:
    home.provider({"*": {}}, cached=False)
    job = LaunchdJob(home)
    folder = bound(home, job)
    document = home.tune("live", drain=True)
    assert document["exit_reason"] == "ok", document["error"]
    assert document["live_model"] == str(folder)
    assert document["inputs"]["candidate_models"] == [str(folder)]
    assert document["recommendation"]["model"] == str(folder)
    assert str(folder) in home.starts()
    assert "live" not in home.starts()
    assert job.back()


@pytest.mark.slow
def test_live_with_apply_tunes_the_knobs_of_a_bound_model_and_leaves_the_model_alone(
    home: Home,
) -> None:
    home.provider({"*": {}}, cached=False)
    job = LaunchdJob(home)
    bound(home, job)
    document = home.tune("live", drain=True, apply=True, max_batch_axis=[1, 2])
    assert document["exit_reason"] == "ok", document["error"]
    assert document["applied"] is not None, document["warnings"]
    text = job.config.read_text(encoding="utf-8")
    assert "model: meta-llama/llama-3.2-3b-instruct\n" in text
    assert "max_concurrency_override: " in text
    assert job.back()


@pytest.mark.parametrize("words", [("--model", Y), (f"--model={Y}",), ("--config", "{config}")])
def test_live_is_what_the_command_line_or_its_configuration_names(
    home: Home, words: tuple[str, ...]
) -> None:
    home.provider({Y: {}})
    config = home.path / "mine.yaml"
    config.write_text(f"model: '{Y}'\n", encoding="utf-8")
    Foreground(home, *(word.format(config=config) for word in words))
    home.start_daemon()
    asked: dict[str, Any] = {"candidate_models": ["live"], "port": home.port, "drain": True}
    plan = home.rpc("start", dry_run=True, **asked)["plan"]
    assert [candidate["model"] for candidate in plan["candidates"]] == [Y]


def test_live_is_refused_in_one_sentence_where_nothing_serves(home: Home) -> None:
    home.provider({Y: {}})
    home.private_program()
    home.start_daemon()
    refused = home.ctl("start", "--candidate-models", "live", "--port", str(home.port))
    assert refused.returncode == 2
    error = refused.stderr.splitlines()[0]
    assert "--candidate-models: 'live' stands for what the live provider serves now" in error
    assert "no live provider runs" in error


@pytest.mark.slow
@pytest.mark.parametrize("sign", ["pending.json", "maintenance"])
def test_an_update_in_progress_is_waited_for_and_then_refused_with_nothing_stopped(
    home: Home, sign: str
) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    folder = home.path / ".local" / "share" / "macprovider" / "autoupdate"
    folder.mkdir(parents=True)
    update = (folder if sign == "pending.json" else home.bin) / sign
    update.write_text("{}", encoding="utf-8")
    pid = job.pid()
    document = home.tune(Y, drain=True, drain_grace=1.0)
    assert document["exit_reason"] == "provider_conflict"
    assert f"{job.target} is being updated" in document["error"]["message"]
    assert "start again once it has ended" in document["error"]["message"]
    assert (job.pid(), job.calls("bootout")) == (pid, [])
    assert home.rpc("status")["lease"] is None

    run_id = home.begin(Y, drain=True, drain_grace=25.0)
    poll(lambda: home.rpc("status")["run"]["phase"] == "draining")
    time.sleep(0.5)
    assert job.calls("bootout") == []
    threading.Timer(0.5, update.unlink).start()
    home.rpc("wait", run_id=run_id, timeout_s=30)
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "ok"
    assert job.back()


def test_candidates_of_another_program_than_the_live_one_are_told(home: Home) -> None:
    home.provider({Y: {}})
    live = Foreground(home)
    other = home.path / "other"
    other.mkdir()
    for name in (home.program, "plan.json"):
        shutil.copy(home.bin / name, other / name)
    home.settings(f'[provider]\nkind = "macprovider"\nbinary = "{other / home.program}"\n')
    home.start_daemon()
    asked: dict[str, Any] = {"candidate_models": [Y], "port": home.port, "drain": True}
    warnings = home.rpc("start", dry_run=True, **asked)["plan"]["warnings"]
    (told,) = [each for each in warnings if "the live provider runs" in each]
    assert str(other / home.program) in told
    assert str(home.bin / home.program) in told
    assert live.alive()
    with pytest.raises(RpcError, match="--drain"):
        home.begin(Y)
