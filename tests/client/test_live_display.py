"""The live display without an agent: what stays on the screen, what a candidate does, when the run may be over."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autotunectl.text import status
from autotunectl.text.live_display import Frame, _panel
from tests.support.terminal import Screen

WIDTHS = st.integers(20, 140)


def run(**progress: Any) -> dict[str, Any]:
    """A run in its second cell."""
    return {
        "phase": "climbing",
        "best": {
            "tps_median": 31.2,
            "knobs": {"kv_bits": None, "max_batch": 1, "max_context": 4000},
        },
        "progress": {
            "stage": 2,
            "candidate": {"index": 1, "total": 3, "model": "acme/middle-7B"},
            "cell": {"index": 2, "total": 6, "knobs": None},
            "replicate": {"index": 1, "total": 3},
            "prewarm": None,
            "step": "measure",
            "fraction": 0.4,
            "elapsed_s": 60.0,
            "eta_s": 160.0,
            "budget_left_s": 7000.0,
            **progress,
        },
    }


@given(st.lists(WIDTHS, min_size=1, max_size=6), st.booleans())
def test_a_terminal_of_any_and_changing_width_keeps_one_frame_and_every_line(
    widths: list[int], talks: bool
) -> None:
    file, screen, printed = io.StringIO(), Screen(widths[0]), ["before"]
    console = Console(file=file, force_terminal=True, width=widths[0], height=24)
    screen.feed("before\r\n")

    def show() -> None:
        screen.feed(file.getvalue().replace("\n", "\r\n"))
        file.seek(0)
        file.truncate()

    with Frame(console) as frame:
        for number, width in enumerate(widths):
            console.width = screen.columns = width
            if talks:
                printed.append(f"line {number}")
                frame.print(printed[-1], None)
            frame.draw(_panel(run(), {}, width))
            show()
            assert [line for line in screen.lines if line in printed] == printed
            assert sum(line.startswith("elapsed") for line in screen.lines) == 1
            assert sum(line.startswith(("━", "╌")) for line in screen.lines) == 1
    show()
    assert [line for line in screen.lines if line] == printed


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("load", "loading"),
        ("warm", "warming up"),
        ("measure", "asking"),
        ("stop", "stopping"),
        ("prewarm", "checking the weights"),
        (None, "preparing"),
    ],
)
def test_the_display_says_what_the_candidate_does(step: str | None, words: str) -> None:
    shown = [text for text, _ in _panel(run(step=step), {}, 80)]
    assert f"{words}  replicates ●○○" in shown
    assert step is None or f", {words}, replicate 1 of 3" in status.doing(run(step=step))


def test_the_end_is_estimated_from_the_start_and_at_most_the_budget() -> None:
    known = [text for text, _ in _panel(run(), {}, 80)]
    unknown = [text for text, _ in _panel(run(eta_s=None), {}, 80)]
    assert "elapsed 1:00  ETA 2:40  budget left 1:56:40" in known
    assert "elapsed 1:00  ETA at most 1:56:40" in unknown
