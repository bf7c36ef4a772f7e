"""A server's own knobs and a search of them, from the words of a command line to the words of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from autotunectl.arguments import SEARCH_OPTIONS, request_options
from autotunectl.commands.start import _may_be_large
from autotunectl.errors import CallError
from autotunectl.output import in_flags
from autotunectl.text import plan, status
from autotuned.shared import wire
from autotuned.shared.knobs import flags, words

SEARCH: dict[str, Any] = {
    "kind": "tpe",
    "cells": 216,
    "trials": 17,
    "auto": 17,
    "left_out": 0,
    "seed": 1,
}
CELL: dict[str, Any] = {"kv_bits": None, "max_batch": 1, "max_context": 2000}


def planned(document: dict[str, Any]) -> Any:
    """As the answer of a dry run: only what a text is made of."""
    return document


def asked(*line: str) -> dict[str, Any]:
    """The fields of a request that these words come to."""

    @click.command()
    @request_options(SEARCH_OPTIONS)
    def command(**request: Any) -> dict[str, Any]:
        return {name: value for name, value in request.items() if value is not None}

    found: dict[str, Any] = command.main(list(line), standalone_mode=False)
    return found


@pytest.mark.parametrize(
    ("line", "axes"),
    [
        (["--axis", "threads=1,2,unset"], {"threads": [1, 2, None]}),
        (["--axis", "threads"], {"threads": []}),
        (["--axis", "share=0.5, 0.9"], {"share": [0.5, 0.9]}),
        (["--axis", "mmap=true,false"], {"mmap": [True, False]}),
        (
            ["--axis", "attention=on,off", "--axis", "x=a b"],
            {"attention": ["on", "off"], "x": ["a b"]},
        ),
        (["--axis", "threads=1", "--axis", "threads=2"], {"threads": [1, 2]}),
        (["--axis", "draft=/models/a=b.gguf"], {"draft": ["/models/a=b.gguf"]}),
        (["--axis", "x=nan,9007199254740993"], {"x": ["nan", "9007199254740993"]}),
    ],
)
def test_axes_are_names_with_values_as_json_has_them(line: list[str], axes: dict[str, Any]) -> None:
    given = asked(*line)["axes"]
    assert given == axes
    json.dumps(given, allow_nan=False)


def test_a_file_of_an_axis_is_absolute_for_the_agent_works_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "on").touch()
    words = {"x.gguf": "x.gguf", "./y": "y", "models/small": "models/small"}
    for word, path in words.items():
        assert asked("--axis", f"draft={word}")["axes"] == {"draft": [str(tmp_path / path)]}
    for word in ("on", "acme/small", "a b"):
        assert asked("--axis", f"draft={word}")["axes"] == {"draft": [word]}


def test_what_is_wrong_with_axes_is_told_of_the_flag_that_there_is() -> None:
    for field, flag in (("axes", "--axis: "), ("axes.draft", "--axis draft: ")):
        error = CallError(wire.INVALID_PARAMS, f"{field}: no", {"field": field})
        assert in_flags(error) == f"{flag}no"


def test_a_search_and_its_trials_are_fields_of_the_request() -> None:
    assert asked("--search", "auto", "--trials", "9") == {"search": "auto", "trials": 9}
    assert asked() == {}


@pytest.mark.parametrize(
    ("params", "large"),
    [
        ({}, False),
        ({"max_batch_axis": [1, 2, 4, 8]}, False),
        ({"max_batch_axis": list(range(1, 10))}, True),
        ({"axes": {"threads": []}}, True),
    ],
)
def test_only_a_request_that_may_be_large_is_looked_at_first(
    params: dict[str, Any], large: bool
) -> None:
    assert _may_be_large(params) is large


def test_a_large_space_is_told_with_its_time_and_what_a_search_would_take() -> None:
    small: dict[str, Any] = {"search": SEARCH, "cell_s": 60.0, "max_duration_s": 7200.0}
    told = plan.large(planned(small))
    assert told is not None
    assert told.startswith("216 cells: some 3:36:00")
    assert told.endswith("--search auto would measure 17 of them")
    assert "nobody knows" in (plan.large(planned({**small, "cell_s": None})) or "")
    assert plan.large(planned({**small, "search": {**SEARCH, "cells": 24}})) is None
    assert plan.large(planned({**small, "search": None})) is None


def test_a_plan_lists_the_first_cells_and_says_how_many_of_how_many() -> None:
    cells = [{**CELL, "extra": {"threads": n}} for n in range(1, 217)]
    document: dict[str, Any] = {
        "provider": "p",
        "binary_version": "1",
        "binary": ["p"],
        "candidates": [],
        "conflicts": [],
        "fetch_bytes": 0,
        "disk_free_bytes": 1,
        "estimate_s": None,
        "max_duration_s": 7200,
        "cells": cells,
        "search": {**SEARCH, "left_out": 2},
    }
    text = plan.plan(planned(document))
    assert "cells: at most 17 of 216 measured" in text
    assert "  24. --kv-bits unset --max-batch 1 --max-context 2000 --axis threads=24\n" in text
    assert "... and 192 more" in text
    assert "left out: 2 in which a knob would do nothing" in text
    assert "to fetch       nothing" in text
    nobody = {"model": "a/b", "rank": 1, "size_b": None, "cached": False, "weights_bytes": None}
    document["candidates"] = [{**nobody, "fetch_bytes": None, "reason": "nobody answers"}]
    assert "to fetch       unknown" in plan.plan(planned(document))
    assert " and more (time" in plan.plan(
        planned({**document, "fetch_bytes": 10**9, "fetch_s": None})
    )
    whole = plan.plan(planned({**document, "cells": cells[:2], "search": None}))
    assert "\ncells\n  1. --kv-bits unset" in whole


def test_what_happens_is_told_with_how_many_of_how_many() -> None:
    begun = {"type": "run.started", "run_id": "r", "candidates": ["m"], "cells": 17, "space": 216}
    assert status.event(begun) == "run r: 1 candidate, 17 cells at most, out of 216"
    progress = {"stage": 2, "cell": {"index": 3, "total": 17, "space": 216}}
    assert status.place({"progress": progress})[0] == "cell 3 of 17, out of 216"


def test_own_knobs_stand_behind_the_three() -> None:
    knobs = {**CELL, "extra": {"threads": 4, "attention": None, "mmap": True}}
    assert words(knobs) == (
        "kv_bits unset, batch 1, context 2000, threads 4, attention unset, mmap true"
    )
    assert flags(knobs).endswith(
        "--max-context 2000 --axis threads=4 --axis attention=unset --axis mmap=true"
    )
