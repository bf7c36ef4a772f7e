"""A server's own knobs as axes: which cells they span, in which order, and what cannot be asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from autotuned.core.model import STAGE_CLIMB, Trial
from autotuned.core.pipeline import Evaluate, Finish, next_step, with_kept
from autotuned.core.plan import Plan, plan
from autotuned.core.request import TuneRequest, parse
from autotuned.core.result import recipe_hash, search_document, untried
from autotuned.documents.result import ExitReason
from autotuned.errors import ConfigError
from autotuned.server_spec import ServerSpec
from autotuned.shared.knobs import Knobs
from tests.core.worlds import MISSED, probe

SERVER = ServerSpec.model_validate(
    {
        "command": ["serve", "{model}"],
        "knobs": {
            "max_batch": {"flag": ["-np", "{value}"]},
            "threads": {"flag": ["-t", "{value}"], "min": 1, "max": 64, "default_axis": [1, 2, 4]},
            "attention": {"values": {"on": ["-fa", "on"], "off": ["-fa", "off"]}},
            "share": {"flag": ["--share", "{value}"], "type": "float", "min": 0.1, "max": 0.9},
            "cache": {
                "values": {"q8": ["-ctk", "q8"], "q4": ["-ctk", "q4"]},
                "needs": {"attention": "on"},
            },
        },
    }
)


def planned(**fields: Any) -> Plan:
    """The plan of a request to that server."""
    request = parse({"candidate_models": ["m"], "kv_bits_axis": [None], **fields})
    return plan(request, (), max_tokens=48, seed=5, server=SERVER)


def extras(made: Plan) -> list[dict[str, object]]:
    return [dict(cell.extra) for cell in made.cells]


def test_the_axes_follow_the_contract_three_in_the_order_given() -> None:
    made = planned(axes={"threads": [2, 1], "attention": ["unset", "on"]}, max_batch_axis=[1, 4])
    assert [cell.max_batch for cell in made.cells] == [1] * 4 + [4] * 4
    assert extras(made)[:4] == [
        {"threads": 2, "attention": None},
        {"threads": 2, "attention": "on"},
        {"threads": 1, "attention": None},
        {"threads": 1, "attention": "on"},
    ]


def test_a_request_without_axes_is_what_it_was() -> None:
    made = planned()
    assert made.cells == (Knobs(None, 1, 2000), Knobs(None, 2, 2000))
    assert made.plain
    assert made.most == 2
    assert "extra" not in made.cells[0].published()


def test_an_axis_without_values_takes_the_usual_ones_of_its_knob() -> None:
    assert [cell["threads"] for cell in extras(planned(axes={"threads": []}))] == [1, 2, 4, 1, 2, 4]


def test_an_axis_of_a_knob_with_named_values_takes_all_of_them() -> None:
    assert [
        cell["attention"] for cell in extras(planned(axes={"attention": []}, max_batch_axis=[1]))
    ] == [
        "on",
        "off",
    ]


def test_cells_whose_knob_would_do_nothing_are_left_out_and_counted() -> None:
    made = planned(
        axes={"attention": ["off", "on"], "cache": ["unset", "q8", "q4"]}, max_batch_axis=[1]
    )
    assert made.left_out == 2
    assert extras(made) == [
        {"attention": "off", "cache": None},
        {"attention": "on", "cache": None},
        {"attention": "on", "cache": "q8"},
        {"attention": "on", "cache": "q4"},
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"thread": [1]},
            "axes.thread: [1] is no knob of this server; there are threads, attention, share, cache; "
            "did you mean threads?",
        ),
        ({"max_batch": [1]}, "axes.max_batch: [1] is an axis of every server: --max-batch-axis"),
        ({"threads": [0]}, "axes.threads: 0 is below 1"),
        ({"threads": ["two"]}, "axes.threads: 'two' is no int"),
        ({"threads": [True]}, "axes.threads: true is no int"),
        ({"share": [0.95]}, "axes.share: 0.95 is above 0.9"),
        ({"attention": ["maybe"]}, "axes.attention: 'maybe' is none of on, off"),
        ({"threads": [1, 1]}, "axes.threads: 1 is given twice"),
        ({"threads": ["unset", None]}, "axes.threads: 'unset' is given twice"),
        (
            {"share": []},
            "axes.share: [] needs values, as in --axis share=V1,V2: it has no usual ones",
        ),
        (
            {"cache": ["q8"]},
            "axes: ['cache'] leave no cell: cache does nothing without attention on",
        ),
        (
            {"threads": list(range(1, 65)), "share": [n / 100 for n in range(11, 90)]},
            "axes: ['threads', 'share'] span 10112 cells, more than 5000: leave out some values",
        ),
    ],
)
def test_an_axis_that_cannot_be_names_knob_value_and_rule(
    axes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(axes=axes)
    assert refused.value.message == message


def test_a_server_without_knobs_of_its_own_says_so() -> None:
    with pytest.raises(ConfigError, match="it has none of its own"):
        plan(parse({"candidate_models": ["m"], "axes": {"threads": [1]}}), (), 48, 1)


def test_auto_measures_every_cell_of_a_small_space_and_searches_a_large_one() -> None:
    small = planned(search="auto", axes={"threads": []})
    assert (small.trials, small.most) == (None, 6)
    axes = {"threads": list(range(1, 65)), "attention": ["unset", "on"]}
    large = planned(search="auto", axes=axes)
    assert (large.trials, large.most, len(large.cells)) == (21, 21, 257)
    assert planned(search="tpe", trials=7, axes=axes).most == 7
    assert planned(search="grid", axes=axes).most == 256


def test_a_search_begins_with_the_defaults_even_where_the_axes_leave_them_out() -> None:
    made = planned(search="tpe", axes={"threads": []}, max_batch_axis=[1, 2])
    assert made.cells[0] == Knobs(None, 1, 2000, (("threads", None),))
    assert len(made.cells) == 7
    within = planned(search="tpe", axes={"threads": [1, "unset"]}, max_batch_axis=[1, 2])
    assert extras(within) == [{"threads": n} for n in (None, 1, 1, None)]


def test_a_search_adapts_its_replicates_unless_told_how_many() -> None:
    assert planned(search="tpe", axes={"threads": []}).request.replicates == "auto"
    fixed = planned(search="tpe", replicates="fixed", axes={"threads": []})
    assert fixed.request.replicates == "fixed"


def test_a_search_keeps_its_seed_and_says_that_it_decides_the_order() -> None:
    made = planned(search="tpe", axes={"threads": []}, cell_order="random")
    assert made.seed == 5
    assert made.warnings == ("cell_order is ignored: the search decides the order",)
    assert planned(search="tpe", axes={"threads": []}, seed=77).seed == 77


def climbed(made: Plan, cut: int | None = None) -> tuple[Finish, list[Trial]]:
    """The run of a plan to its end, begun anew from what was stored after `cut` trials."""
    history = [probe(made, 1)]
    while True:
        step = next_step(made, history)
        if isinstance(step, Finish):
            return step, history
        assert isinstance(step, Evaluate)
        assert step.index == len(history) - 1
        extra = dict(step.knobs.extra)
        threads = int(extra["threads"] or 1)
        failure = MISSED if threads == 7 else None
        trial = Trial(STAGE_CLIMB, "m", 1, step.knobs, (), failure, 10.0 + threads, 100.0)
        history.append(with_kept(made, history, trial))
        if len(history) == cut:
            stored = json.loads(json.dumps(made.request.model_dump(mode="json")))
            request = TuneRequest.model_validate({**stored, "seed": made.seed})
            made = plan(request, (), 48, seed=999, server=SERVER)


@pytest.mark.parametrize("cut", [1, 2, 5, 9])
def test_a_search_that_is_resumed_from_the_store_takes_the_same_steps(cut: int) -> None:
    made = planned(search="tpe", axes={"threads": list(range(1, 33))})
    whole, again = climbed(made), climbed(made, cut)
    assert again == whole
    finish, history = whole
    assert finish.exit_reason is ExitReason.OK
    assert finish.best is not None
    assert finish.best.knobs in made.cells
    assert len({trial.knobs for trial in history}) == len(history)
    assert len(untried(made, history)) == len(made.cells) - len(history) + 1


def test_the_document_of_a_search_says_how_many_of_how_many() -> None:
    made = planned(search="tpe", axes={"threads": list(range(1, 65))}, trials=9)
    assert search_document(made) == {
        "kind": "tpe",
        "cells": 129,
        "trials": 9,
        "auto": 16,
        "left_out": 0,
        "seed": 5,
    }
    assert search_document(planned(axes={"threads": []}))["kind"] == "grid"


def test_a_server_s_own_knobs_are_part_of_the_recipe_only_where_there_are_any() -> None:
    from tests.core.test_recommendation import FACTS

    def hashed(knobs: Knobs) -> str:
        return recipe_hash(FACTS, "1", ["m"], 2000, "m", knobs)

    plain, with_threads = Knobs(None, 1, 2000), Knobs(None, 1, 2000, (("threads", 2),))
    assert hashed(plain) != hashed(with_threads)
    assert hashed(with_threads) == hashed(with_threads)


def test_a_run_that_searches_nothing_loads_neither_the_sampler_nor_its_numbers() -> None:
    code = (
        "import sys, autotuned.daemon\n"
        "from tests.core.worlds import planned, probe\n"
        "from autotuned.core.pipeline import next_step\n"
        "made = planned('m')\n"
        "next_step(made, [probe(made, 1)])\n"
        "print([name for name in ('optuna', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
