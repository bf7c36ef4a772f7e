"""What the client makes of words: usage errors on one line, help with an example each, completion of run ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from autotunectl import cli
from tests.support.home import Home, Y


def commands() -> list[tuple[str, click.Command]]:
    """Every command with its whole name, groups left out."""
    found: list[tuple[str, click.Command]] = []
    context = click.Context(cli.main)
    for name in cli.COMMANDS:
        command = cli.main.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", sub) for inner, sub in command.commands.items()]
        else:
            found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_has_help_with_an_example_of_itself(
    name: str, command: click.Command
) -> None:
    text = command.get_help(click.Context(command, info_name=name))
    assert "Example" in text
    assert f"autotunectl {name}" in text


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        (["sho"], "No such command 'sho'. Did you mean 'show'?", "autotunectl --help"),
        (["start", "--bogus"], "No such option '--bogus'", "autotunectl start --help"),
        (["start", "--port", "x"], "'x' is not a valid integer", "autotunectl start --help"),
        (["--host", "x", "status"], "--host: 'x' is not ssh://", "autotunectl --help"),
        (["rpc", "status", "["], "PARAMS is not JSON", "autotunectl rpc"),
    ],
)
def test_words_that_cannot_be_parsed_are_one_line_and_a_hint(
    home: Home, words: list[str], message: str, remedy: str
) -> None:
    done = home.ctl("--no-autostart", *words)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("autotunectl: ")
    assert message in first
    assert second.startswith(f"hint: {remedy}")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--max-context-axis", "4000,4500.5"),
        ("--kv-bits-axis", "4,five"),
        ("--tps-tie-epsilon", "nan"),
        ("--max-duration", "inf"),
        ("--target-context", "99999999999999999999"),
    ],
)
def test_a_number_that_json_cannot_carry_or_an_axis_cannot_hold_is_judged_by_the_agent(
    home: Home, flag: str, value: str
) -> None:
    done = home.ctl("start", "--candidate-models", Y, flag, value)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"autotunectl: {flag}: '{value.rsplit(',', maxsplit=1)[-1]}' should be"
    )
    assert home.sql("SELECT exit_reason FROM tune_runs") == [("config_error",)]


def test_the_shell_completes_the_ids_of_runs(home: Home) -> None:
    home.provider({Y: {}})
    run_id = home.tune(Y, stage2_replicates=1)["run_id"]
    home.environ |= {
        "_AUTOTUNECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": "autotunectl show 20",
        "COMP_CWORD": "2",
    }
    assert f"plain,{run_id}" in home.ctl().stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_completion_script(home: Home, shell: str) -> None:
    assert "_AUTOTUNECTL_COMPLETE" in home.ctl("completion", shell).stdout


def test_without_an_agent_and_without_autostart_the_exit_code_is_9(home: Home) -> None:
    done = home.ctl("--no-autostart", "status")
    assert done.returncode == 9
    assert "there is no socket at" in done.stderr
    assert "hint: autotunectl daemon start" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["runs"], ["rpc", "version"], ["schedule", "show"], ["provider", "status"]],
)
def test_the_socket_is_taken_behind_a_command_too(home: Home, words: list[str]) -> None:
    home.start_daemon()
    elsewhere = str(home.path / "elsewhere.sock")
    assert home.ctl(*words, "--socket", str(home.socket)).returncode == 0
    done = home.ctl(*words, "--no-autostart", "--socket", elsewhere)
    assert elsewhere in done.stderr or words[0] == "provider"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("words", [["--help"], ["completion", "bash"]])
def test_an_output_that_is_full_is_one_line(home: Home, words: list[str]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "autotunectl", *words],
            env=home.environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "autotunectl: stdout: No space left on device\n"


def test_a_store_that_cannot_be_opened_is_a_configuration_error_that_names_it(home: Home) -> None:
    home.environ["AUTOTUNED_DB_PATH"] = "/dev/null/tuning.sqlite"
    done = home.ctl("start", "--candidate-models", Y)
    assert done.returncode == 2
    assert "/dev/null/tuning.sqlite" in done.stderr


def test_cancel_tells_programs_what_became_of_the_run(home: Home) -> None:
    home.provider({Y: {"load_s": 20}})
    run_id = home.begin(Y)
    ended = json.loads(home.ctl("cancel", "--json").stdout)
    assert (ended["run_id"], ended["cancelled"]) == (run_id, True)
    assert (ended["state"], ended["exit_reason"]) == ("finished", "interrupted")
    again = json.loads(home.ctl("cancel", run_id, "--json").stdout)
    assert again == {"run_id": run_id, "state": "finished", "cancelled": False}
