"""Who is in the way: a live provider in either form, or a stranger on the port; and what a candidate never sees."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import psutil
import pytest

from tests.support.home import Home, RpcError, Y, free_port, poll, port_is_free


def test_a_stranger_on_the_port_is_named_and_never_touched(home: Home) -> None:
    home.provider({Y: {}})
    script = (
        f"import socket,time; s=socket.create_server(('127.0.0.1',{home.port})); time.sleep(60)"
    )
    stranger = subprocess.Popen([sys.executable, "-c", script])
    try:
        poll(lambda: not port_is_free(home.port))
        with pytest.raises(RpcError) as refused:
            home.begin(Y)
        assert refused.value.code == -32002
        assert refused.value.data["exit_reason"] == "provider_conflict"
        assert refused.value.data["conflicts"] == [
            f"port-held-by {_name(stranger.pid)} pid {stranger.pid}"
        ]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_foreground_provider_is_refused_with_its_pid_and_the_remedy(home: Home) -> None:
    home.settings(home.private_program())
    home.provider({Y: {}})
    live = subprocess.Popen(
        [str(home.bin / home.program), "serve", "--port", str(free_port())], env=home.environ
    )
    try:
        poll(lambda: home.starts() == [None])
        home.start_daemon()
        done = home.ctl(
            "start", "--wait", "--json", "--candidate-models", Y, "--port", str(home.port)
        )
        assert done.returncode == 7
        assert f"foreground-PID-{live.pid}" in done.stderr
        assert "--drain" in done.stderr
        assert json.loads(done.stdout)["exit_reason"] == "provider_conflict"
        assert home.sql("SELECT exit_reason, ended_at_utc IS NOT NULL FROM tune_runs") == [
            ("provider_conflict", 1)
        ]
        assert live.poll() is None
    finally:
        live.kill()
        live.wait()


def test_a_run_refused_for_what_is_in_the_way_says_what_it_would_have_tried(home: Home) -> None:
    home.provider({Y: {}}, version="9.9.9")
    home.start_daemon()
    with socket.create_server(("127.0.0.1", home.port)), pytest.raises(RpcError) as refused:
        home.rpc("start", port=home.port, max_model_size="3B")
    document = home.rpc("result", run_id=refused.value.data["run_id"])
    assert document["exit_reason"] == "provider_conflict"
    assert document["provider"] == "macprovider"
    assert document["machine"]["binary_version"] == "9.9.9"
    assert document["inputs"]["candidate_models"] == [
        "mlx-community/Llama-3.2-3B-Instruct-4bit",
        "mlx-community/Llama-3.2-1B-Instruct-4bit",
    ]


def test_a_job_of_launchd_is_named_as_such(home: Home) -> None:
    home.provider({Y: {}})
    launchctl = home.bin / "launchctl"
    launchctl.write_text(
        '#!/bin/sh\ncase "$2" in gui/*/live.malibu.provider) exit 0;; esac\nexit 113\n',
        encoding="utf-8",
    )
    launchctl.chmod(0o755)
    with pytest.raises(RpcError, match="launchd-managed") as refused:
        home.begin(Y)
    assert refused.value.data["exit_reason"] == "provider_conflict"
    assert home.starts() == []


def test_a_candidate_sees_neither_the_operators_configuration_nor_its_variables(
    home: Home,
) -> None:
    home.provider({Y: {}})
    secret = "hf_" + "nobody-may-see-this"
    config = home.path / ".config" / "macprovider" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"model: mine\nkv_bits: 4\nprovider_token: {secret}\n", encoding="utf-8")
    home.environ |= {
        "MACPROVIDER_KV_BITS": "4",
        "MACPROVIDER_CONFIG": str(config),
        "HF_TOKEN": secret,
    }
    home.tune(Y)
    starts = home.calls("started")
    assert len(starts) == 2
    for entry in starts:
        assert not [name for name in entry["environment"] if name.startswith("MACPROVIDER_")]
        assert entry["environment"]["HF_HUB_OFFLINE"] == "1"
        assert secret not in json.dumps(entry)
        assert entry["config_mode"] == "0o600"
        assert str(config) not in entry["argv"]
    everything = [
        path
        for path in home.path.rglob("*")
        if path.is_file() and path not in (config, home.bin / "calls.jsonl")
    ]
    assert not [path for path in everything if secret.encode() in path.read_bytes()]


def _name(pid: int) -> str:
    import psutil

    return psutil.Process(pid).name()


def test_a_run_that_is_still_being_looked_at_is_nobody_s_yet(home: Home) -> None:
    home.provider({Y: {}}, version_s=1.0)
    home.start_daemon()
    begun = home.ctl_begin("start", "--candidate-models", Y, "--port", str(home.port))
    poll(lambda: any(map(asks_for_the_version, home.processes())), "the binary is asked")
    assert home.rpc("status")["run"] is None
    assert home.rpc("cancel") == {"run_id": None, "state": "finished", "cancelled": False}
    out, err = begun.communicate(timeout=30)
    assert begun.returncode == 0, err
    assert home.rpc("status")["run"]["run_id"] == out.strip()


def asks_for_the_version(process: psutil.Process) -> bool:
    try:
        return "--version" in process.cmdline()
    except psutil.Error:
        return False
