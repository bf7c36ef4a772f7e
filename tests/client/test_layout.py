"""Text on terminals of any width: nothing is lost, nothing is wider than it must be, commands stay whole."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotunectl.text import layout, result
from autotunectl.text import status as status_text
from autotuned.documents.run import StatusDocument
from autotuned.shared import knobs
from tests.support.documents import stored

WORDS = st.text("abcdefgh/-", min_size=1, max_size=30)
LINES = st.lists(WORDS, min_size=1, max_size=20).map(" ".join)
WIDTHS = st.integers(layout.NARROWEST, 120)


@given(LINES, WIDTHS, st.sampled_from(["", "  ", "best      ", "    1. "]))
def test_folding_loses_no_word_and_only_a_long_word_is_too_wide(
    text: str, room: int, label: str
) -> None:
    folded = layout.fold(label + text, room)
    assert folded.split() == (label + text).split()
    for line in folded.split("\n"):
        assert len(line) <= room or len(line.split()) == 1 or line.startswith(label)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5), WIDTHS)
def test_a_table_shows_every_cell_at_every_width(rows: list[tuple[str, ...]], room: int) -> None:
    table: layout.Table = [("ONE", "TWO", "THREE"), *rows]
    shown = layout.columns(table, room)
    for row in rows:
        for cell in row:
            assert cell in shown or not cell.strip("-")
    assert layout.columns(table) == layout.columns(table, 1000)


def test_what_goes_into_a_pipe_is_left_alone() -> None:
    assert layout.fold("a " * 200, None) == "a " * 200


@pytest.mark.parametrize("room", [40, 80, 200])
def test_a_recommendation_stays_readable_and_its_commands_whole(room: int) -> None:
    document = stored("v1-ok")
    long = "/Users/operator/models/" + "a-very-long-name-" * 4
    document["recommendation"]["serve_command"] = f"macprovider-cli serve --model {long} --port 1"
    text = layout.fold(result.recommendation(document, room), room)
    assert document["recommendation"]["serve_command"] in text
    assert f"autotunectl apply {document['run_id']}" in text
    wide = [line for line in text.split("\n") if len(line) > room]
    assert all(
        "autotunectl" in line or "serve" in line or "sha256" in line or len(line.split()) <= 2
        for line in wide
    ), wide


def test_a_recommendation_tells_the_rates_apart_and_fits_eighty_columns() -> None:
    document = stored("v1-ok")
    for cell in document["stage2"]:
        cell |= {"peak_rss_bytes": 117 * 2**30, "load_ms": 48_000.0, "ttft_p95_ms": 12_345.6}
    text = layout.fold(result.recommendation(document, 80), 80)
    lines = text.split("\n")
    assert "  tok/s           end to end, prompt included: tokens over the whole request" in lines
    assert "  decode          220.5 tok/s, after the first token" in lines
    assert "  prefill         78,475 tok/s, the prompt up to the first token" in lines
    [chosen] = [line for line in lines if line.endswith("  chosen")]
    assert {"199.8", "220.5", "78,475", "12.3", "48", "117.00"} <= set(chosen.split())
    assert "    1. acme/big-32B: HTTP 500: no such luck" in lines
    wide = [line for line in lines if len(line) > 80]
    assert all(document["recommendation"]["serve_command"] in line for line in wide)


def test_what_was_applied_is_told_with_the_backup_that_undoes_it() -> None:
    applied = {
        "type": "applied",
        "config_path": "/c.yaml",
        "backup_path": "/c.yaml.bak-1-0",
        "changed": {"model": {}},
    }
    assert status_text.event(applied) == "applied to /c.yaml, backup at /c.yaml.bak-1-0"
    assert status_text.event({**applied, "backup_path": None}) == "applied to /c.yaml"
    nothing = {**applied, "backup_path": None, "changed": {}}
    assert status_text.event(nothing) == "nothing to write to /c.yaml: it is so already"


def screen(**changed: Any) -> str:
    run = {
        "run_id": "R", "state": "finished", "exit_reason": "ok", "ended_at": "2026-01-31T03:30:00.000Z",
        "candidates": 2, "target_context": 4000, "best": None, "infeasible": [], "warnings": [],
        "applied": False, "provider": "macprovider", "phase": "finished", "progress": None,
    }  # fmt: skip
    agent = {"version": "1", "pid": 2, "started_at": "2026-01-31T03:30:00.000Z"}
    document: dict[str, Any] = {"daemon": agent, "run": {**run, **changed.pop("run", {})}}
    return status_text.status(cast("StatusDocument", {**document, **changed}))


BEST = {
    "model": "acme/middle-7B",
    "knobs": {"kv_bits": None, "max_concurrency_override": 1, "max_context_override": 4000},
    "tps_median": 31.2,
    "ttft_p95_ms": 1234.5,
}
LEASE = {
    "run_id": "R", "outstanding": True, "kind": "launchd", "domain": "gui/501", "label": "live.x", "state": "DRAINED",
    "reason": "exit 5", "attempts": 3, "updated_at": "2026-01-31T03:30:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"run": {"best": BEST}}, ["ok", "31.20 tok/s", "1,234 ms", "next      autotunectl show, autotunectl apply"]),
        ({"run": {"best": BEST, "applied": True}}, ["next      autotunectl show"]),
        ({"run": {"best": BEST, "warnings": ["rolled back: it did not start"]}}, ["next      autotunectl show\n"]),
        ({"run": {"exit_reason": "no_feasible", "infeasible": [{"model": "a/b", "reason": "too big"}]}}, ["no_feasible", "failed    b: too big", "autotunectl show R"]),
        ({"run": {"exit_reason": "interrupted"}}, ["autotunectl start --resume R --wait"]),
        ({"run": {"infeasible": [{"model": f"a/{n}", "reason": "no"} for n in range(9)]}}, ["failed    4 more"]),
        ({"lease": LEASE}, ["NOT RESTORED: gui/501/live.x", "exit 5", "autotunectl provider restore"]),
        ({"lease": LEASE, "run": {"state": "running", "phase": "climbing", "cancelling": True}}, ["lease     run R has stopped it", "cancelling", "autotunectl cancel"]),
        ({"stale": {"never_tuned": False, "stale": True, "reasons": ["macOS 1 -> 2"]}}, ["recipe    stale: macOS 1 -> 2"]),
        ({"schedule": {"enabled": True, "paused": None, "at": "03:30", "next_run_at": None}}, ["schedule  nightly at 03:30"]),
    ],
)  # fmt: skip
def test_status_says_what_is_the_case_and_what_comes_next(
    changed: dict[str, Any], shown: list[str]
) -> None:
    text = screen(**changed)
    for words in shown:
        assert words in f"{text}\n", text
    assert len(text.split("\n")) <= 20


def test_status_with_nothing_yet_says_how_to_begin() -> None:
    agent = {"version": "1", "pid": 2, "started_at": "2026-01-31T03:30:00.000Z"}
    text = status_text.status(cast("StatusDocument", {"daemon": agent, "run": None}))
    assert "live      no live provider runs" in text
    assert text.endswith("run       none yet\nnext      autotunectl start --wait")


@pytest.mark.parametrize(
    ("context", "concurrency", "line"),
    [
        (None, None, None),
        ({"answer": None, "ceiling_ms": 900}, None, None),
        (
            {"answer": 24_000, "ceiling_ms": 8000},
            None,
            "serves up to 24,000 tokens with its first token within 8,000 ms",
        ),
        (
            {"answer": 6000, "ceiling_ms": 8000},
            {"largest": 9, "recommended": 4},
            "serves 4 at once at 6,000 tokens (largest 9; beyond 4 nothing is gained)",
        ),
        (
            None,
            {"largest": 4, "recommended": 4},
            "serves 4 at once at 2,000 tokens (no more pass)",
        ),
        (
            None,
            {"largest": 1, "recommended": 1, "reason": "this server answers one request at a time"},
            "serves 1 at once at 2,000 tokens (this server answers one request at a time)",
        ),
        (None, {"largest": None, "recommended": None}, None),
    ],
)
def test_what_was_calibrated_is_one_line(context: Any, concurrency: Any, line: str | None) -> None:
    document = stored("v1-ok")
    document["calibration"] = {"context": context, "concurrency": concurrency}
    assert result.load_line(document) == line
    shown = result.recommendation(document)
    assert (line or "serves") in shown if line else "  load  " not in shown


def test_the_rates_are_of_the_cell_whose_figures_are_shown_also_where_a_calibration_changed_its_knobs() -> (
    None
):
    document = stored("v1-ok")
    answer = document["recommendation"]
    best = next(cell for cell in document["stage2"] if cell["tps_median"] == answer["tps_median"])
    other = next(cell for cell in document["stage2"] if cell["fits"] and cell is not best)
    answer["knobs"] = other["knobs"]  # more at once: the knobs are those of a slower cell now
    best["decode_tps"], other["decode_tps"] = 333.0, 111.0
    lines = result.recommendation(document).split("\n")
    assert "  decode          333.0 tok/s, after the first token" in lines
    [chosen] = [line for line in lines if line.endswith("  chosen")]
    assert "333.0" in chosen
    document["recommendation"] = None
    assert knobs.winner(document) is None


def test_a_calibration_shows_between_what_it_is_and_each_point_as_it_comes() -> None:
    progress = {"stage": 3, "candidate": {"model": "m"}}
    assert status_text.place({"progress": progress}) == ("calibrating", "m")
    known = {"calibrates": "context", "points": 3, "passes": 24_000, "fails": 32_000}
    assert status_text.place({"progress": {**progress, "calibration": known}}) == (
        "context: 24,000 passes, 32,000 does not",
        "m",
    )
    assert status_text.bracket({**known, "passes": None}) == "context: 32,000 does not"
    point = {"type": "trial", "fits": True, "kept": False, "tps_median": 40.0, "context": 6000}
    several = {**point, "calibrates": "concurrency", "concurrency": 4}
    assert status_text.event(several) == "feasible 4 at once at 6,000 tokens: 40.00 tok/s"
    long = {**point, "calibrates": "context", "fits": False, "reason": "no token"}
    assert status_text.event(long) == "rejected 6,000 tokens: no token"
    told = {**long, "calibration": {**known, "passes": 5000, "fails": 6000}}
    assert status_text.event(told) == (
        "rejected 6,000 tokens: no token (context: 5,000 passes, 6,000 does not)"
    )
