"""How far an answer can be trusted, on the page: what was done to be sure of it, and how it has served since."""

from __future__ import annotations

from typing import Any

import pytest

from autotuned.report.page import render
from autotuned.report.sections import over_time, sentences
from tests.report.pages import Reader
from tests.support.documents import stored


def entry(answer: dict[str, Any], day: int, tps: float | None, **fields: Any) -> Any:
    """One of the history, of this recipe."""
    check = {"verdict": "same"} if day > 1 else None
    return {
        "at": f"2026-11-{day:02}T03:30:00Z",
        "model": answer["model"],
        "knobs": answer["knobs"],
        "target_context": answer["target_context"],
        "tps_median": tps,
        "ttft_p95_ms": 100.0,
        "os_version": "macOS 26.3",
        "binary_version": "1.4.0",
        "check": check,
        **fields,
    }


def test_a_recipe_that_was_checked_since_is_a_line_with_what_was_updated() -> None:
    document = stored("v1-ok")
    answer = document["recommendation"]
    other = {**answer, "model": "another"}
    history = [
        entry(answer, 4, 8.0, os_version="macOS 26.4", check={"verdict": "slower"}),
        entry(answer, 3, None, check={"verdict": "fails"}),
        entry(other, 2, 50.0),
        entry(answer, 2, 10.0, os_version="<b>26.4"),
        entry(answer, 1, 10.1),
    ]
    html = render(document, [], past=history)
    page = Reader(html)
    assert "This recipe over time" in html
    assert len(page.all("circle")) >= 3
    assert "system macOS 26.3 -&gt; &lt;b&gt;26.4" in html
    assert "check: slower" in html
    assert "another" not in html.partition("This recipe over time")[2].partition("</section>")[0]
    drawn = over_time(document, history)
    assert drawn is not None
    assert [row[1] for row in drawn["rows"]] == ["tune", "check: same", "check: slower"]
    assert len(drawn["pieces"]) == 2
    assert len(drawn["updates"]) == 2


def test_a_recipe_that_was_measured_once_has_no_line() -> None:
    document = stored("v1-ok")
    assert over_time(document, [entry(document["recommendation"], 1, 10.0)]) is None
    assert over_time(stored("v1-no_feasible"), []) is None
    assert "This recipe over time" not in render(document, [])


@pytest.mark.parametrize(
    ("against", "verdict", "words"),
    [
        (
            "defaults",
            "better",
            "with the defaults, the winner is faster (+10.0\N{NO-BREAK SPACE}%)",
        ),
        (
            "live",
            "tie",
            "with what the live server runs, the winner is no faster (+10.0\N{NO-BREAK SPACE}%)",
        ),
    ],
)
def test_a_confirmation_and_the_guards_verdict_stand_beside_the_answer(
    against: str, verdict: str, words: str
) -> None:
    document = stored("v1-ok")
    knobs = document["recommendation"]["knobs"]
    meeting = {"against": against, "verdict": verdict, "difference": 0.1}
    cell = {"knobs": knobs, "verdict": "broken", "lost": ["needles: red"]}
    known: Any = {**document, "confirmation": meeting, "quality": {"cells": [cell]}}
    first, second = sentences(known)
    assert words in first
    assert second == "Its answers beside those without loss: broken: needles: red lost."
    html = render(known, [])
    assert words in html.replace("&#43;", "+")
    assert html.index(words[:20]) < html.index("Serve it")
    assert sentences(document) == []
