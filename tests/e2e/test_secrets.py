"""One table: after a run with everything that a run can do, no secret is where anybody could read it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.home import Home, RpcError, Y, home, poll
from tests.support.live import Foreground

pytestmark = pytest.mark.slow  # each starts an agent of its own

SECRETS = {
    "provider_token in config.yaml": "cfg-8f2a61c09d7e",
    "the hub's token in the environment": "hub-5b1d90e37a42",
    "a provider's variable": "var-c47e0912fa65",
    "another service's key": "key-10d6be83f97a",
    "the stored hub token": "stored-77e0a41c6b2d",
    "the live process's environment": "env-e905c1d2b846",
    "the live process's arguments": "arg-2f6b7d8013ce",
}
IN_CONFIG, HUB, VARIABLE, KEY, STORED, LIVE_ENV, LIVE_ARG = SECRETS.values()
QUESTIONS: dict[str, dict[str, Any]] = {
    "version": {}, "status": {}, "result": {}, "runs": {}, "report": {}, "stale": {}, "doctor": {},
    "schedule.get": {}, "models": {}, "reload": {}, "compare": {}, "wait": {}, "apply": {"dry_run": True},
    "revert": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def used() -> Iterator[tuple[Home, list[str]]]:
    """A home after a drained, applied, restored run, and all that its agent has ever said."""
    with home() as made:
        yield made, use(made)


def use(made: Home) -> list[str]:
    """Do everything; the answers, events and outputs."""
    made.provider({Y: {"log": [f"fatal error: no luck with {HUB}"], "load_s": 0.3}, "*": {}})
    folder = made.path / ".config" / "macprovider"
    folder.mkdir(parents=True)
    config = folder / "config.yaml"
    config.write_text(f"model: mine\nprovider_token: {IN_CONFIG}\nport: 8099\n", encoding="utf-8")
    config.chmod(0o600)
    stored = made.path / ".cache" / "huggingface" / "token"
    stored.write_text(STORED, encoding="utf-8")
    made.environ |= {
        "HF_TOKEN": HUB, "MACPROVIDER_PROVIDER_TOKEN": VARIABLE, "SOME_API_KEY": KEY,
    }  # fmt: skip
    words = ("--config", str(config), "--token", LIVE_ARG)
    live = Foreground(made, *words, settings='[log]\nlevel = "debug"\n', LIVE_TOKEN=LIVE_ENV)
    made.start_daemon()
    said = []
    with made.connect() as follower, follower.makefile("rb") as lines:
        message = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"since": 0}}
        follower.sendall(json.dumps(message).encode() + b"\n")
        run_id = made.begin(Y, drain=True, restart_foreground=True, apply=True)
        poll(lambda: made.rpc("status")["lease"], "the live provider is drained")
        said.append(json.dumps(made.rpc("status")))
        made.rpc("wait", run_id=run_id, timeout_s=60)
        while b"run.finished" not in (line := lines.readline()):
            said.append(line.decode())
    poll(live.running, "the live provider is back")
    assert made.rpc("result")["applied"] is not None
    for method, params in (*QUESTIONS.items(), ("trials", {"run_id": run_id})):
        try:
            said.append(json.dumps(made.rpc(method, **params)))
        except RpcError as error:
            said.append(f"{error.message} {error.data}")
    archive = made.path / "bug.tar.gz"
    for command in (
        ("bugreport", str(archive)), ("logs",), ("logs", run_id), ("doctor",), ("provider", "status"),
        ("provider", "status", "--json"), ("result",), ("runs",), ("status", "--json"), ("apply", "--dry-run"),
    ):  # fmt: skip
        done = made.ctl(*command)
        said.append(done.stdout + done.stderr)
    with tarfile.open(archive) as packed:
        files = [packed.extractfile(member) for member in packed]
        said += [file.read().decode(errors="replace") for file in files if file is not None]
    archive.unlink()
    return said


def test_the_run_did_everything(used: tuple[Home, list[str]]) -> None:
    made, said = used
    text = "\n".join(said)
    for sign in (
        "drain.done",
        "restore.done",
        "recipe_hash",
        "<html",
        "autotuned.log",
        "no luck with",
    ):
        assert sign in text, sign
    candidates = [call for call in made.calls("started") if "--no-join" in call["argv"]]
    assert candidates


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_no_answer_event_output_or_archive_tells_it(
    used: tuple[Home, list[str]], secret: str
) -> None:
    _, said = used
    assert [text for text in said if secret in text] == []


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_no_candidate_sees_it(used: tuple[Home, list[str]], secret: str) -> None:
    made, _ = used
    candidates = [call for call in made.calls("started") if "--no-join" in call["argv"]]
    assert secret not in json.dumps(candidates)
    for call in candidates:
        names = [name for name in call["environment"] if name.startswith("MACPROVIDER_")]
        assert names in ([], ["MACPROVIDER_CONFIG"]), names


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_no_file_of_ours_holds_it(used: tuple[Home, list[str]], secret: str) -> None:
    made, _ = used
    assert [str(path) for path in ours(made) if secret.encode() in path.read_bytes()] == []


def ours(made: Home) -> Iterator[Path]:
    """Every file of the home but the operator's own and their backups, what the tests put there, and the
    words of the serving programs themselves, which stay on the machine (0600) and are masked where shown.
    """
    words = made.path / "state" / "autotuned" / "runs"
    for path in made.path.rglob("*"):
        theirs = (
            path.name.startswith("config.yaml") or path.parent == made.bin or path.name == "token"
        )
        if path.is_file() and not path.is_symlink() and not theirs and words not in path.parents:
            yield path
