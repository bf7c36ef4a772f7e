"""The example programs of docs/examples do what they say against a real agent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.home import Home, Y

pytestmark = pytest.mark.slow  # each starts an agent of its own

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run(home: Home, *command: str) -> str:
    """What a program of the examples prints."""
    done = subprocess.run(
        command, env=home.environ, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


@pytest.fixture
def tuned(home: Home) -> Home:
    home.provider({Y: {}})
    home.tune(Y, stage2_replicates=1)
    return home


def test_the_python_examples_follow_a_run_and_draw_a_menu(tuned: Home) -> None:
    followed = run(tuned, sys.executable, str(EXAMPLES / "watch.py"))
    assert followed.splitlines()[-1].split()[1] == "run.finished"
    menu = run(tuned, sys.executable, str(EXAMPLES / "menubar.py")).splitlines()
    assert menu[:2] == ["middle-7B", "---"]
    assert "tok/s at 2000 tokens" in menu[2]


@pytest.mark.parametrize(
    ("program", "script"), [("node", "status.mjs"), ("swift", "status.swift"), ("sh", "status.sh")]
)
def test_an_example_in_another_language_names_the_run(
    tuned: Home, program: str, script: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    beside = Path(sys.executable).parent  # the client that the shell's example calls
    tuned.environ["PATH"] = f"{beside}:{tuned.environ['PATH']}"
    assert tuned.rpc("status")["run"]["run_id"] in run(tuned, program, str(EXAMPLES / script))
