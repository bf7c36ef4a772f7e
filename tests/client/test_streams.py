"""What every command does alike: JSON for programs, streams of any kind, words that the shell completes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete

from autotunectl import cli
from autotunectl.arguments import DURATION, SEARCH_OPTIONS, request_options
from autotunectl.completion import METHODS, PROVIDERS
from autotuned.descriptions import shipped
from autotuned.shared import wire
from tests.client.test_words import commands
from tests.support.home import Home

PLAIN = {"dial-stdio"}
"""It prints what the agent sends, which is JSON."""
FIELDS = {"code", "kind", "message", "data", "hint", "exit_code"}
PROGRAM = [sys.executable, "-m", "autotunectl"]
NARROW = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_that_prints_takes_json(name: str, command: click.Command) -> None:
    options = {word for option in command.params for word in option.opts}
    assert ("--json" in options) is (name not in PLAIN)


@pytest.mark.parametrize("name", [name for name, _ in commands() if name not in PLAIN])
def test_a_refusal_is_one_document_with_json_and_its_sentence_stays_on_stderr(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["autotunectl", *name.split(), "--json", "--no-such-flag"])
    with pytest.raises(SystemExit) as ended:
        cli.main(prog_name="autotunectl")
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert set(error) == FIELDS
    assert (error["exit_code"], error["kind"]) == (2, "config_error")
    assert err.splitlines() == [f"autotunectl: {error['message']}", f"hint: {error['hint']}"]


def test_what_the_agent_refuses_is_a_document_too(home: Home) -> None:
    home.start_daemon()
    done = home.ctl("show", "20260101T000000Z-000000", "--json")
    assert done.returncode == 11
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["exit_code"], error["hint"]) == (
        "not_found",
        11,
        "autotunectl runs",
    )
    assert error["code"] == -32003
    assert json.loads(home.ctl("rpc", "--json", "nonesuch").stdout)["error"]["code"] == -32601


@pytest.mark.parametrize("name", ["status", "runs", "rpc version", "doctor"])
def test_without_an_agent_the_reason_is_a_document(home: Home, name: str) -> None:
    done = home.ctl("--no-autostart", *name.split(), "--json")
    document = json.loads(done.stdout)
    assert name == "doctor" or document["error"]["kind"] == "unreachable"


def run(home: Home, shell: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which `ctl` is the client."""
    line = shell.replace("ctl", " ".join(PROGRAM))
    return subprocess.run(
        ["bash", "-c", line],
        env={**home.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "line",
    [
        "ctl --help | head -0",
        "ctl start --help | head -1",
        "ctl completion bash | true",
        "ctl nonesuch --json | true",
        "ctl --no-autostart status 2>&1 | true",
    ],
)
def test_a_reader_that_has_gone_is_no_traceback(home: Home, line: str) -> None:
    done = run(home, line)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ctl --help >&-", 0),
        ("ctl --help 2>&-", 0),
        ("ctl --help >&- 2>&-", 0),
        ("ctl --no-autostart status >&- 2>&-", 9),
        ("ctl --no-autostart status --json <&- >&-", 9),
    ],
)
def test_closed_streams_change_nothing_but_what_is_seen(home: Home, line: str, code: int) -> None:
    done = run(home, line)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_lacks_a_character_shows_another_one(home: Home, encoding: str) -> None:
    done = run(home, "ctl logs 'läuft…'", **NARROW, PYTHONIOENCODING=encoding)
    assert done.returncode == 11
    assert "there are no provider logs of a run l" in done.stderr


@pytest.mark.parametrize("name", ["", ".", "a/b", "/etc"])
def test_a_folder_that_is_no_runs_has_no_provider_logs(home: Home, name: str) -> None:
    (home.path / "state" / "autotuned" / "runs" / "a" / "b").mkdir(parents=True)
    done = run(home, f"ctl logs '{name}'")
    assert (done.returncode, done.stdout) == (11, "")


def test_the_logs_of_a_run_that_started_no_candidate_say_so(home: Home) -> None:
    (home.path / "state" / "autotuned" / "runs" / "R").mkdir(parents=True)
    done = run(home, "ctl logs R")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no candidate was started in R: autotunectl show R\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_offered_values(home: Home, shell: str) -> None:
    words = "autotunectl start --provider m"
    home.environ |= {"_AUTOTUNECTL_COMPLETE": f"{shell}_complete", "COMP_WORDS": words}
    home.environ["COMP_CWORD"] = "m" if shell == "fish" else "3"
    shown = home.ctl().stdout
    assert "macprovider" in shown
    assert "mlx-lm" in shown
    assert "llama-server" not in shown


@pytest.mark.parametrize(
    ("words", "begun", "values"),
    [
        ("start --provider", "m", ["macprovider", "mlx-lm", "mlx-openai-server"]),
        ("pull --provider", "l", ["llama-server"]),
        ("start --kv-bits-axis", "unset,", ["unset,4", "unset,8"]),
        ("schedule set --when", "", ["stale", "always"]),
        ("schedule set --days", "mon,t", ["mon,tue", "mon,thu"]),
        ("rpc", "schedule.", ["schedule.get", "schedule.run_now", "schedule.set"]),
        ("revert", "config", ["config.yaml.bak-1700000001-0", "config.yaml.bak-1700000000-0"]),
        ("show", "2026", ["20260301T031500Z-a1b2c3"]),
        ("start --resume", "2026", ["20260301T031500Z-a1b2c3"]),
    ],
)
def test_values_are_completed_without_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, begun: str, values: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / ".config" / "macprovider"
    folder.mkdir(parents=True)
    for second in (0, 1):
        (folder / f"config.yaml.bak-170000000{second}-0").touch()
    (Path(wire.log_folder()) / "runs" / "20260301T031500Z-a1b2c3").mkdir(parents=True)
    shell = BashComplete(cli.main, {}, "autotunectl", "_AUTOTUNECTL_COMPLETE")
    offered = shell.get_completions(words.split(), begun)
    assert [item.value for item in offered if item.type == "plain"] == values


def test_files_are_left_to_the_shell() -> None:
    shell = BashComplete(cli.main, {}, "autotunectl", "_AUTOTUNECTL_COMPLETE")
    for words in (["--socket"], ["show", "--report"], ["metrics", "--output"], ["bugreport"]):
        assert [item.type for item in shell.get_completions(words, "x")] == ["file"]


def test_the_methods_that_the_shell_completes_are_those_of_the_agent(home: Home) -> None:
    home.start_daemon()
    described = home.rpc("rpc.discover")["methods"]
    assert set(METHODS) == {method["name"] for method in described}
    assert set(PROVIDERS) == {"auto", *shipped()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("4h", 14400), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400), ("0.5", 0.5),
     ("-1", -1), ("inf", "inf"), ("nan", "nan")],
)  # fmt: skip
def test_a_duration_is_read_alike_everywhere(text: str, seconds: Any) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "h", "4x", "1h 30", "1h30", "m5"])
def test_what_is_no_duration_says_what_one_is(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration such as 90, 90s, 4h or 1h30m"):
        DURATION.convert(text, None, None)


def test_models_may_be_given_several_times_and_what_exists_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {}

    @click.command()
    @request_options(SEARCH_OPTIONS)
    def command(**request: Any) -> None:
        given.update(request)

    words = [
        "--candidate-models",
        "a/B,here",
        "--candidate-models",
        "./gone",
        "--max-duration",
        "2h",
    ]
    command.main(words, standalone_mode=False)
    expected = ["a/B", str(tmp_path / "here"), str(tmp_path / "gone")]
    assert (given["candidate_models"], given["max_duration"]) == (expected, 7200)


def test_a_home_that_cannot_be_written_names_the_path_and_the_remedy(home: Home) -> None:
    (home.path / "state").write_text("a file where the folder of logs should be", encoding="utf-8")
    done = home.ctl("status", "--json")
    assert done.returncode == 2
    assert f"{home.path}/state" in done.stderr
    assert "make its folder writable" in json.loads(done.stdout)["error"]["message"]


def can_mount() -> bool:
    """Whether this user may have a small disk of its own."""
    unshare = shutil.which("unshare")
    words = [str(unshare), "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        unshare is not None
        and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.slow  # starts agents
@pytest.mark.skipif(not can_mount(), reason="this user may mount nothing")
@pytest.mark.parametrize("room", [None, "48k"])
def test_a_disk_that_is_full_at_the_first_start_is_named(home: Home, room: str | None) -> None:
    fill = "dd if=/dev/zero of=/mnt/fill bs=1k 2>/dev/null;" if room is None else ""
    line = (
        f"mount -t tmpfs -o size={room or '64k'} none /mnt; mkdir /mnt/h; {fill} "
        f"{' '.join(PROGRAM)} status; code=$?; {' '.join(PROGRAM)} --no-autostart daemon stop; exit $code"
    )
    environ = {**home.environ, "HOME": "/mnt/h", "XDG_STATE_HOME": "/mnt/h/state"}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", line],
        env=environ,
        cwd=os.getcwd(),  # noqa: PTH109
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (2, 9), done.stderr
    assert "/mnt/h" in done.stderr
    assert "disk" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_list_of_commands_has_whole_sentences(home: Home) -> None:
    for words in ([], ["schedule"], ["daemon"], ["provider"]):
        listed = home.ctl(*words, "--help").stdout.partition("\nCommands:\n")[2]
        assert listed
        assert "..." not in listed
    assert cli.EXIT_STATUS[0] == "ok"
