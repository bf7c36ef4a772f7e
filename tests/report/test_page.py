"""The report as HTML: whole, self-contained, readable without seeing it, and never fooled by a name."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.report.page import environment, render
from autotuned.report.page import style as _style
from autotuned.shared.wire import MAX_UNSENT_BYTES
from tests.report.pages import HOSTILE, Reader, calibrated, hostile, long, pages, trials
from tests.support.documents import stored
from tests.support.generated import DOCS, files

PAGES = pages()
MEANT = ("prewarm", "load", "warm", "measure", "stop", "drain", "restore")


@pytest.mark.parametrize("name", PAGES)
def test_every_ending_is_a_whole_page_that_asks_nobody_for_anything(name: str) -> None:
    page = Reader(PAGES[name])
    assert PAGES[name].startswith("<!DOCTYPE html>\n<html")
    assert page.all("html") == [{"lang": "en"}]
    assert not page.all("script", "img", "iframe", "object", "embed", "base", "form", "a", "use")
    for element, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            assert key not in ("src", "srcset", "style", "xlink:href")
            assert key != "href" or (element, value) == ("link", "data:,")
    assert not re.search(r"url\(|@import|https?:", _style())
    [policy] = [meta for meta in page.all("meta") if meta.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none'; ")


@pytest.mark.parametrize("name", PAGES)
def test_headings_are_in_order_and_each_chart_says_what_it_shows_beside_a_table(name: str) -> None:
    page = Reader(PAGES[name])
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for chart in page.all("svg"):
        assert chart["role"] == "img"
        assert set((chart["aria-labelledby"] or "").split()) <= set(ids)
    if page.all("svg"):
        assert len(page.all("table")) >= 1
        assert len(page.all("caption")) == len(page.all("table"))
    sections = PAGES[name].split("<section")[1:]
    assert all("<table" in section for section in sections if "<svg" in section)


def test_a_hostile_name_stays_text_wherever_it_stands() -> None:
    page = Reader(PAGES["hostile"])
    assert not page.all("script", "img")
    said = "".join(data for _, data in page.texts)
    assert "onerror=alert(1)" in said
    assert "\u202e" not in PAGES["hostile"]
    assert "\x00" not in PAGES["hostile"]
    assert HOSTILE not in PAGES["hostile"]
    assert "</svg>{{ 7 * 7 }}{% raw %}" in said
    assert render(hostile(), trials(hostile())).encode("utf-8")


@given(st.text(alphabet=st.characters(codec=None), max_size=40))
def test_any_text_comes_back_as_that_text_and_nothing_else(value: str) -> None:
    template = environment().from_string('<p><b title="{{ value }}">{{ value }}</b></p>')
    page = Reader(template.render(value=value))
    assert [name for name, _ in page.elements] == ["p", "b"]
    assert template.render(value=value).encode("utf-8")


def test_an_agent_that_makes_no_page_loads_nothing_for_it() -> None:
    loaded = "import sys, autotuned.daemon; print({'jinja2', 'markupsafe'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_the_answer_stands_on_top_with_what_it_takes_to_use_it() -> None:
    page = Reader(PAGES["v1-ok"])
    document = stored("v1-ok")
    assert page.words("h1") == ["middle-7B"]
    assert page.words("code") == [document["recommendation"]["serve_command"]]
    assert {"199.8", "28 ms"} <= set(page.words("b"))
    assert document["recipe_hash"] in page.words("dd")
    assert "Apple M4" in page.words("dd")
    assert document["db_path"] not in PAGES["v1-ok"]
    order = [PAGES["v1-ok"].index(word) for word in ("<h1", "big-32B", "The settings", "Where the")]
    assert order == sorted(order)


def test_every_replicate_is_a_dot_in_both_charts_and_a_row_of_the_table() -> None:
    page, count = Reader(PAGES["v1-ok"]), 6
    assert len(page.all("circle")) == 2 * count
    assert f"Every request ({count})" in page.words("summary")


@pytest.mark.slow
def test_a_page_of_very_many_requests_passes_through_the_socket_and_says_what_it_leaves_out() -> (
    None
):
    document = long()
    for cell in document["stage2"]:
        cell["samples"] = cell["samples"][:3] * 300
    page = render(document, trials(document))
    assert len(page.encode()) < MAX_UNSENT_BYTES / 2
    [said] = Reader(page).words("summary")
    assert said == "The first 187 requests of each cell, 2992 of 14400"


def test_calibrations_are_charts_with_a_ceiling_and_a_table_of_every_point() -> None:
    page = Reader(PAGES["calibrated"])
    assert {"How long a context", "How many at once"} <= set(page.words("h2"))
    assert "The largest useful context is 8,000 tokens." in page.words("p")
    assert "2 at once have nearly the best throughput; at most 4 pass." in page.words("p")
    ceilings = [line for line in page.all("line") if line.get("class") == "ceiling"]
    assert len(ceilings) == 2
    assert len(page.all("circle")) == 2 * 6 + 2 + 3 + 3
    assert page.words("td").count("no token within 4000 ms") == 2
    assert "199.8" in page.words("b")  # the figures of the cell that was calibrated
    nothing = calibrated()
    nothing["calibration"]["context"].update(answer=None, points=[])
    nothing["calibration"]["concurrency"].update(largest=None, recommended=None)
    for point in nothing["calibration"]["concurrency"]["points"]:
        point.update(ttft_p95_ms=None, tps=None)
    words = Reader(render(nothing, trials(nothing))).words("p")
    assert "No number of requests at once passes." in words


def test_candidates_stand_in_their_order_with_their_reasons() -> None:
    page = Reader(PAGES["v1-ok"])
    styles = [li["class"] for li in page.all("li") if li.get("class")]
    assert styles == ["failed", "chosen", "untried"]
    assert "HTTP 500: no such luck" in page.words("p")


def test_a_run_that_goes_on_shows_what_it_has_so_far() -> None:
    page = Reader(PAGES["running, with cells"])
    assert page.words("h1") == ["Still running"]
    assert len(page.all("svg")) == 3
    assert page.words("text").count("failed") == 2
    assert "1 of 3 requests failed: HTTP 500" in page.words("li")


def test_the_live_servers_drain_and_restore_are_part_of_the_timeline_where_there_was_one() -> None:
    document = stored("v1-ok")
    moments = ["54:34.522", "54:34.600", "54:35.000", "54:36.500", "54:37.200"]
    names = ["draining", "selecting", "climbing", "restoring", "finished"]
    phases = [(name, f"2026-11-24T20:{at}Z") for name, at in zip(names, moments, strict=True)]
    page = render(document, trials(document), phases)
    assert "drain: 78 ms" in Reader(page).words("title")
    assert "restore: 700 ms" in Reader(page).words("title")
    assert page.index("the live server stops") < page.index("probe of big-32B")
    assert {"the live server stops", "the live server comes back"} <= set(Reader(page).words("th"))
    undisturbed = render(document, trials(document), phases[1:])
    assert undisturbed == render(document, trials(document))


def test_moments_without_a_zone_draw_no_timeline() -> None:
    document = stored("v1-ok")
    entries: Any = [
        {**trial, "started_at": "", "ended_at": "2026-01-01 00:00:00"} for trial in trials(document)
    ]
    assert "Where the time went" in render(document, entries)
    document["started_at"] = "2026-01-01 00:00:00"
    assert "Where the time went" not in render(document, entries)


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("v1-no_feasible", "No candidate is feasible"),
        ("v1-interrupted", "Interrupted before there was an answer"),
        ("v1-running", "Still running"),
        ("v1-config_error", "The request could not be run"),
        ("v1-internal_error", "A bug ended this run"),
    ],
)
def test_a_run_without_an_answer_says_so_and_why(name: str, headline: str) -> None:
    page = Reader(PAGES[name])
    assert page.words("h1") == [headline]
    error = stored(name)["error"]
    assert error is None or error["message"] in page.words("p")
    assert not page.all("pre")


def test_a_check_says_on_top_what_became_of_the_recipe() -> None:
    document = stored("v1-ok")
    checked: Any = {**document, "trigger": "check", "recommendation": None}
    for verdict, words in (
        ("same", "serves as it did"),
        ("slower", "slower"),
        ("fails", "not serve"),
    ):
        checked["check"] = {"verdict": verdict}
        page = Reader(render(checked, []))
        assert words in page.words("h1")[0]
        assert "A check of a recipe" in page.words("p")


def test_a_partial_answer_says_partial_and_why() -> None:
    name = "v1-budget_exhausted_with_partial_recommendation"
    page = Reader(PAGES[name])
    assert "PARTIAL" in page.words("span")
    assert stored(name)["error"]["message"] in page.words("p")


def test_the_published_demo_report_is_the_one_that_is_made_now() -> None:
    path = DOCS / "report-demo.html"
    page = path.read_text(encoding="utf-8")
    assert page == files()[path], "run: make docs"
    assert Reader(page).words("h1") == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    # A short remark on answers is explained where people read it.
    assert "degenerate answer: answers ended by repeating themselves" in page


def test_a_long_run_names_its_hours_in_round_steps() -> None:
    document: Any = {
        **long(),
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T01:50:00Z",
    }
    ticks = re.findall(r'class="tick[^"]*">([^<]+)<', render(document, trials(document)))
    assert ticks[-4:] == ["0", "30 min", "1 h", "1 h 30 min"]


def test_text_and_marks_stand_out_from_what_they_stand_on() -> None:
    """WCAG 2: 4.5 to 1 for text, 3 to 1 for what must be seen in a chart; light, dark and print."""
    palettes = re.findall(r":root \{(.*?)\}", _style(), re.DOTALL)
    assert len(palettes) == 3
    text = [(ink, on) for ink in ("ink", "muted", "accent", "bad") for on in ("paper", "card")]
    text += [("accent", "soft"), ("warn", "warn-soft")]
    marks = [(kind, "trough") for kind in MEANT]
    marks += [("dot", "paper"), ("accent", "paper")]
    for palette in palettes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", palette))
        for pairs, least in ((text, 4.5), (marks, 3.0)):
            for ink, on in pairs:
                found = _contrast(colours[ink], colours[on])
                assert found >= least, f"{ink} on {on}: {found:.2f}"


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_a_search_shows_what_each_knob_did_its_order_and_what_was_never_tried() -> None:
    document = stored("v1-ok")
    cells = document["stage2"]
    for threads, cell in enumerate(cells, start=1):
        cell["knobs"]["extra"] = {"threads": threads, "mmap": None}
    document["recommendation"]["knobs"]["extra"] = {"threads": 1, "mmap": None}
    untried = {**cells[0]["knobs"], "extra": {"threads": 99, "mmap": False}}
    document["search"] = {
        "kind": "tpe",
        "cells": 216,
        "trials": 17,
        "auto": 17,
        "left_out": 3,
        "seed": 1,
        "untried": [untried],
    }
    page = Reader(render(document, trials(document)))
    assert "What each knob did" in page.words("h3")
    assert f"{len(cells)} of 216 cells tried, 3 left out." in " ".join(page.words("p"))
    assert "1 cell never tried" in page.words("summary")
    assert any(words.endswith("/ 99 / false") for words in page.words("li"))
    assert "threads" in page.words("th")
