"""The quality guard from outside: a server that garbles its answers at four bits, and one that does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autotuned.core.quality import battery
from tests.support.battery import by_prompt
from tests.support.home import Home, Y, kill, poll

HOSTILE = "\x1b[2J<script>alert(1)</script>"


def behaviour(*, garbled: str = "needles", text: str | None = None) -> dict[str, Any]:
    """A model whose four bits are much faster, and lose what `garbled` names."""
    faster: dict[str, Any] = {"answers": by_prompt(garbled), "replicates": [{"total_ms": 40}]}
    if text is not None:
        faster["answers"] = dict.fromkeys(by_prompt(), text)
    return {
        "answers": by_prompt(),
        "replicates": [{"total_ms": 300}],
        "cells": {"4/1/2000": faster},
    }


def guarded(home: Home, quality: str, **fields: Any) -> dict[str, Any]:
    return home.tune(Y, quality=quality, kv_bits_axis=[4, None], stage2_replicates=2, **fields)


def asked(home: Home) -> int:
    return len([each for each in home.calls("request") if each["request"] == "question"])


def test_answers_that_are_garbled_at_four_bits_cannot_win_and_are_shown_beside_the_others(
    home: Home,
) -> None:
    home.provider({Y: behaviour(text=HOSTILE)})
    done = guarded(home, "veto")
    assert done["recommendation"]["knobs"]["kv_bits"] is None
    [broken] = [cell for cell in done["stage2"] if cell["knobs"]["kv_bits"] == 4]
    assert (broken["fits"], broken["kept"]) == (True, False)
    assert broken["reason"].startswith("quality: ")
    [verdict] = done["quality"]["cells"]
    assert (verdict["verdict"], verdict["needles"], verdict["solved"]) == ("broken", 0, 0)
    assert done["quality"]["baseline"]["solved"] == done["quality"]["tasks"]
    assert asked(home) == 3 * len(battery())
    assert home.sql("SELECT notes, kept FROM tune_trials WHERE kv_bits = 4") == [
        (broken["reason"], 0)
    ]
    shown = home.ctl("show", "--answers")
    assert "kv_bits 4, batch 1, context 2000: 0/3" in shown.stdout, shown.stderr
    assert "\x1b" not in shown.stdout
    assert len(json.loads(home.ctl("show", "--answers", "--json").stdout)["tasks"]) == 17
    html = home.rpc("report")["html"]
    assert "<script>alert" not in html
    assert "of the quality guard, with every answer" in html
    block = home.ctl("show").stdout
    assert "quality         the reference itself: 19 of 19 tasks solved; broken: kv_bits 4" in block


def test_with_warn_a_broken_winner_is_recommended_with_what_it_has_lost(home: Home) -> None:
    home.provider({Y: behaviour()})
    done = guarded(home, "warn")
    assert done["recommendation"]["knobs"]["kv_bits"] == 4
    assert any("quality: 3 of 3 needles lost" in warning for warning in done["warnings"])
    assert not any("not compared" in warning for warning in done["warnings"])
    assert "broken: 16 of 19 tasks solved, 19 without loss" in home.ctl("show").stdout


def test_a_healthy_faster_cell_wins_under_veto_and_without_the_guard_nobody_is_asked(
    home: Home,
) -> None:
    home.provider({Y: behaviour(garbled="nothing")})
    done = guarded(home, "veto")
    assert done["recommendation"]["knobs"]["kv_bits"] == 4
    assert done["quality"]["cells"][0]["verdict"] == "same"
    before = asked(home)
    off = guarded(home, "off")
    assert asked(home) == before
    assert "quality" not in off
    assert any("start --quality veto" in warning for warning in off["warnings"])


def test_a_server_that_dies_in_the_battery_has_not_solved_the_rest(home: Home) -> None:
    broken = behaviour()
    broken["cells"]["4/1/2000"]["answers"] |= {battery()[3].prompt.strip(): ""}
    home.provider({Y: broken})
    done = guarded(home, "veto")
    assert done["exit_reason"] == "ok"
    assert done["recommendation"]["knobs"]["kv_bits"] is None
    assert done["quality"]["cells"][0]["solved"] == 3


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_battery_asks_that_cell_again_and_comes_to_the_same(
    home: Home,
) -> None:
    home.provider({Y: behaviour()})
    run_id = home.begin(Y, quality="veto", kv_bits_axis=[4, None], stage2_replicates=2)
    poll(lambda: asked(home) >= len(battery()) + 3, "it is in its second round")
    assert home.daemon is not None
    kill(home.daemon)
    poll(lambda: not home.processes(), "the candidate is gone")
    home.start_daemon()
    assert home.rpc("start", resume="latest")["run_id"] == run_id
    poll(lambda: home.rpc("result", run_id=run_id)["state"] == "finished", "it ends")
    done = home.rpc("result", run_id=run_id)
    assert done["recommendation"]["knobs"]["kv_bits"] is None
    assert [cell["reason"] for cell in done["stage2"]] == [None, "quality: 3 of 3 needles lost"]
