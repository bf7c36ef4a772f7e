"""What the operator is told when a run ends, and that nothing of it can harm the run."""

from __future__ import annotations

import json

import pytest

from tests.support import tools
from tests.support.home import Home, X, kill, poll

pytestmark = pytest.mark.slow  # each starts an agent of its own


def test_a_run_that_ends_is_shown_on_the_desktop_and_handed_to_on_finish(home: Home) -> None:
    hook = home.bin / "after tuning"
    tools.install(home.bin, hook.name, {"*": "thanks", "reads_stdin": True})
    tools.install(home.bin, "osascript", {"*": ""})
    home.settings(
        f'[notify]\ndesktop = true\non_finish = ["{hook}", "$(touch pwned)", "two words"]\n'
    )
    home.environ |= {"HF_TOKEN": "hf_" + "x" * 20, "MACPROVIDER_CONFIG": "/x", "KEPT": "yes"}
    home.provider({X: {}})
    document = home.tune(X)
    poll(lambda: tools.calls(home.bin, hook.name), "on_finish is called")
    (called,) = tools.calls(home.bin, hook.name)
    assert called["argv"] == ["$(touch pwned)", "two words"]
    assert json.loads(called["stdin"]) == document
    assert called["environment"]["KEPT"] == "yes"
    assert "HF_TOKEN" not in called["environment"]
    assert "MACPROVIDER_CONFIG" not in called["environment"]
    poll(lambda: tools.calls(home.bin, "osascript"), "the desktop is told")
    (shown,) = tools.calls(home.bin, "osascript")
    assert shown["argv"][-2] == "autotuned"
    assert shown["argv"][-1].startswith("big-32B, ")
    assert "big-32B" not in " ".join(shown["argv"][:-1]), "a name never becomes part of the script"


def test_hooks_that_fail_hang_or_are_missing_harm_no_run(home: Home) -> None:
    hook = home.bin / "hook"
    hook.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    hook.chmod(0o755)
    home.settings(f'[notify]\ndesktop = true\non_finish = ["{hook}"]\n')
    tools.install(home.bin, "osascript", {"*": "", "code": 3})
    home.provider({X: {}})
    assert home.tune(X)["exit_reason"] == "ok"
    hook.unlink()
    assert home.tune(X)["exit_reason"] == "ok"
    log = home.path / "state" / "autotuned" / "autotuned.log"
    poll(lambda: "no such program" in log.read_text(encoding="utf-8"), "the log says so")
    assert '"code": 3' in log.read_text(encoding="utf-8")
    # Leaving the home stops the agent, and the hanging hook with it.


def test_an_end_that_a_killed_agent_could_not_tell_is_told_by_the_next_one(home: Home) -> None:
    tools.install(home.bin, "hook", {"*": "", "reads_stdin": True})
    home.settings('[notify]\non_finish = ["hook"]\n')
    home.provider({X: {"load_s": 60}})
    run_id = home.begin(X)
    poll(home.starts, "a candidate loads")
    assert home.daemon is not None
    kill(home.daemon)
    home.start_daemon()
    poll(lambda: tools.calls(home.bin, "hook"), "on_finish is called")
    told = json.loads(tools.calls(home.bin, "hook")[0]["stdin"])
    assert (told["run_id"], told["exit_reason"]) == (run_id, "interrupted")


def test_bad_settings_name_the_file_the_key_and_the_rule(home: Home) -> None:
    home.settings('[notify]\non_finish = "mail me"\n')
    done = home.ctl("daemon", "start")
    assert done.returncode != 0
    output = done.stderr + done.stdout
    assert "notify.on_finish" in output
