"""The client in front of a person: a real pseudo-terminal, watched, resized, interrupted, and its agent killed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.fake_hub import fake_hub, model_files
from tests.support.home import Home, X, Y, kill, poll
from tests.support.terminal import CTRL_C, Screen, Terminal

pytestmark = pytest.mark.slow

LONG = "acme/a-very-long-name-of-a-model-that-no-terminal-of-eighty-columns-has-room-for-32B"
DEAD = {
    "exit_code": 137,
    "log": ["Fatal error: metal::malloc failed to allocate 21474836480 bytes"],
}
STEADY: dict[str, Any] = {"load_s": 0.3, "replicates": [{"ttft_ms": 50, "total_ms": 300}]}
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])m")


def serve(home: Home, models: dict[str, Any]) -> None:
    """A scripted provider of this home's own name: what runs beside it is not its live provider."""
    home.settings(home.private_program())
    home.provider(models)


def start(home: Home, *models: str) -> list[str]:
    """The words of a small run that is waited for."""
    flags = ["--candidate-models", ",".join(models), "--port", str(home.port)]
    return ["start", "--wait", "--max-batch-axis", "1", "--kv-bits-axis", "unset,4", *flags]


@pytest.mark.parametrize("columns", [40, 80])
def test_a_run_is_readable_on_a_terminal_of_any_width(home: Home, columns: int) -> None:
    serve(home, {LONG: DEAD, Y: STEADY})
    with Terminal(home, *start(home, LONG, Y), columns=columns) as terminal:
        assert terminal.end() == 0
        shown = terminal.plain
    assert "rejecteda-very-long-name" in "".join(shown.split())
    assert "climbing: cell" in shown
    assert "finished: ok" in shown
    block = shown[shown.index("RECOMMENDATION") :]
    assert f"  model           {Y}" in block
    lines = [line for line in block.split("\n") if not line.startswith("warning: ")]
    figures = [line for line in lines if len(line) > columns]
    assert all(
        "serve" in line or "autotunectl" in line or len(line.split()) <= 2 for line in figures
    ), figures
    frames = [line for line in shown.split("\n") if line.startswith(("elapsed", "best", "━", "╌"))]
    assert frames
    assert max(map(len, frames)) <= columns


def test_the_display_takes_a_resize_in_its_middle(home: Home) -> None:
    serve(home, {Y: {**STEADY, "replicates": [{"ttft_ms": 50, "total_ms": 700}]}})
    with Terminal(home, *start(home, Y), columns=120) as terminal:
        terminal.until("climbing: cell 1")
        wide = len(terminal.shown)
        terminal.resize(50)
        terminal.until("climbing: cell 2")
        assert terminal.end() == 0
        assert "RECOMMENDATION" in terminal.plain
    screen = Screen(120)
    screen.feed(terminal.shown[:wide])
    screen.columns = 50
    screen.feed(terminal.shown[wide:])
    assert not [line for line in screen.lines if line.startswith(("elapsed", "━", "╌", "climbing"))]


def test_ctrl_c_cancels_the_run_and_says_what_comes_next(home: Home) -> None:
    serve(home, {Y: {"load_s": 30}})
    with Terminal(home, *start(home, Y)) as terminal:
        terminal.until("selecting: candidate 1")
        terminal.type(CTRL_C)
        terminal.until("cancelling; Ctrl-C again leaves that to the agent")
        assert terminal.end() == 130
        assert "hint: autotunectl start --resume" in terminal.plain
        assert "Traceback" not in terminal.plain
    assert home.ctl("show", "--json").returncode == 0


def test_a_second_ctrl_c_leaves_at_once_and_the_agent_goes_on_cancelling(home: Home) -> None:
    home.settings(home.private_program() + "stop_grace_s = 3.0\n")
    home.provider({Y: {"load_s": 30, "ignores_sigterm": True}})
    with Terminal(home, *start(home, Y)) as terminal:
        terminal.until("selecting: candidate 1")
        poll(home.starts, "the candidate loads")
        terminal.type(CTRL_C)
        terminal.until("cancelling;")
        terminal.type(CTRL_C)
        terminal.until("left: the agent goes on cancelling")
        assert terminal.end() == 130
    assert home.ctl("status").stdout.count("cancelling") >= 1
    poll(lambda: '"interrupted"' in home.ctl("status", "--json").stdout)


def test_a_second_terminal_watches_and_detaches_and_the_run_goes_on(home: Home) -> None:
    serve(home, {Y: {"load_s": 4}})
    run_id = home.begin(Y)
    with Terminal(home, "watch") as first, Terminal(home, "status", "--watch") as second:
        first.until("selecting: candidate 1")
        second.until("selecting: candidate 1")
        first.type(CTRL_C)
        first.until("detached: the run goes on; autotunectl watch")
        assert first.end() == 0
        assert home.rpc("status")["run"]["state"] == "running"
        assert second.end() == 0
        assert "finished: ok" in second.plain
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "ok"


def test_the_display_outlives_the_agent_and_loses_no_line(home: Home) -> None:
    serve(home, {X: DEAD, Y: {"load_s": 30}})
    home.start_daemon()
    with Terminal(home, "--no-autostart", *start(home, X, Y)) as terminal:
        terminal.until("selecting: candidate 2")
        assert home.daemon is not None
        kill(home.daemon)
        home.start_daemon()
        assert terminal.end() == 6
        assert terminal.plain.count("rejected big-32B") == 1
        assert terminal.plain.count("finished: interrupted") == 1


@pytest.mark.parametrize(
    ("environ", "escapes", "colours"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, False, False)],
)
def test_colours_and_movements_are_for_terminals_that_have_them(
    home: Home, environ: dict[str, str], escapes: bool, colours: bool
) -> None:
    serve(home, {X: DEAD, Y: STEADY})
    with Terminal(home, *start(home, X, Y), environ=environ) as terminal:
        assert terminal.end() == 0
        assert ("\x1b" in terminal.shown) is escapes
        assert bool(COLOUR.search(terminal.shown)) is colours


def test_what_is_piped_holds_no_control_character_and_whole_lines(home: Home) -> None:
    serve(home, {LONG: DEAD, Y: STEADY})
    done = home.ctl(*start(home, LONG, Y))
    assert done.returncode == 0
    for text in (done.stdout, done.stderr):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert f"1. {LONG}: killed during load (code 137)" in done.stdout
    assert f"rejected {LONG.partition('/')[2]}: killed during load" in done.stderr


def test_a_download_shows_its_bar_in_bytes_on_a_narrow_terminal(home: Home) -> None:
    serve(home, {})
    small, large = model_files(2**20)
    with fake_hub() as hub:
        del home.environ["HF_HUB_OFFLINE"]
        home.environ |= {"HF_ENDPOINT": hub.url, "NO_PROXY": "*"}
        hub.add(Y, small, large=large)
        hub.fault("model.safetensors", drip=0.02)
        with Terminal(home, *start(home, Y), columns=40) as terminal:
            terminal.until("prewarming: candidate 1 of 1")
            terminal.until("of 1.0 MB, ")
            terminal.type(CTRL_C)
            assert terminal.end() == 130
    frames = [line for line in terminal.plain.split("\n") if "of 1.0 MB" in line]
    assert max(map(len, frames)) <= 40
