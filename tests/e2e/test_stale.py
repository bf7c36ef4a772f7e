"""`check-stale`, `stale` and the line of `status`, asked of a real agent on a machine that changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import tools
from tests.support.home import Home, X, Y

pytestmark = pytest.mark.slow  # each starts an agent of its own


def _stale(home: Home) -> dict[str, Any]:
    document: dict[str, Any] = home.rpc("stale")
    return document


def _said(home: Home) -> tuple[str, int]:
    done = home.ctl("check-stale")
    return done.stdout.strip(), done.returncode


def test_a_machine_is_never_tuned_then_fresh_then_stale_for_each_thing_that_changes(
    home: Home,
) -> None:
    tools.mac(home.bin)
    home.provider({X: {}, Y: {}}, version="1.4.0")
    home.start_daemon()
    assert _stale(home) == {
        "stale": False,
        "never_tuned": True,
        "reasons": [],
        "last_run_id": None,
    }
    assert _said(home) == ("never tuned: autotunectl start", 21)
    run_id = home.begin(X)
    home.rpc("wait", run_id=run_id)
    assert _stale(home) == {
        "stale": False,
        "never_tuned": False,
        "reasons": [],
        "last_run_id": run_id,
    }
    assert _said(home) == (f"fresh: nothing has changed since {run_id}", 0)
    tools.mac(home.bin, version="26.4", build="25E5")
    assert json.loads(home.ctl("check-stale", "--json").stdout) == _stale(home)
    assert _said(home) == ("stale: macOS 26.3 -> 26.4", 20)
    assert "recipe    stale: macOS 26.3 -> 26.4" in home.ctl("status").stdout
    home.provider({X: {}}, version="1.5.0")
    assert _stale(home)["reasons"] == ["macOS 26.3 -> 26.4", "provider 1.4.0 -> 1.5.0"]
    # A run after the updates is fresh again, without a restart of the agent.
    home.tune(X)
    assert _stale(home)["stale"] is False
    tools.mac(home.bin, version="26.4", build="25E6", chip="Apple M5")
    assert _stale(home)["reasons"] == ["macOS 26.4 build 25E5 -> 25E6", "chip Apple M4 -> M5"]


def test_status_sees_that_the_binary_was_replaced_or_is_gone(home: Home) -> None:
    home.provider({X: {}})
    home.tune(X)
    assert home.rpc("status")["stale"]["stale"] is False
    home.provider({X: {}}, version="2.0.0")  # the program's file is written anew
    assert home.rpc("status")["stale"]["reasons"] == ["provider 1.4.0 -> 2.0.0"]
    (home.bin / home.program).unlink()
    assert home.rpc("status")["stale"]["reasons"] == ["provider 1.4.0 -> not found"]


def test_only_good_runs_count_and_a_binary_without_a_version_is_known_by_its_file(
    home: Home,
) -> None:
    home.provider({X: {}}, version="")
    document = home.tune(X)
    assert document["machine"]["binary_version"].startswith("sha256:")
    assert len(document["machine"]["binary_version"]) == len("sha256:") + 64
    home.rpc("start", candidate_models=["acme/absent-7B"], port=home.port)
    home.rpc("wait")
    assert _stale(home)["last_run_id"] == document["run_id"]
    script = home.bin / home.program
    script.write_text(script.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert _stale(home)["reasons"][0].startswith("provider sha256:")
