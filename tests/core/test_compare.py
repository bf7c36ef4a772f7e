"""Two results set against each other: what counts as a difference, and what makes a comparison uneven."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from autotuned.core import noise
from autotuned.core.compare import comparable, compare
from autotuned.core.model import Replicate, Trial
from autotuned.documents.compare import ComparisonDocument, FigureDocument
from autotuned.shared.knobs import Knobs
from tests.support.documents import stored


def result(*cells: tuple[int | None, list[float]], best: int | None = None) -> dict[str, Any]:
    """A good result whose cells of `kv_bits` have these tokens per second; the first is recommended unless told."""
    document: dict[str, Any] = stored("v1-ok")
    sample = document["stage2"][0]["samples"][0]
    knobs = document["recommendation"]["knobs"]
    document["stage2"] = [
        {
            **document["stage2"][0],
            "knobs": {**knobs, "kv_bits": bits},
            "tps_median": sorted(tps)[len(tps) // 2],
            "load_ms": 1000.0 + index,
            "samples": [{**sample, "tps": value, "ttft_ms": 1000 / value} for value in tps],
        }
        for index, (bits, tps) in enumerate(cells)
    ]
    chosen = next(cell for cell in document["stage2"] if best in (None, cell["knobs"]["kv_bits"]))
    document["recommendation"] |= {"knobs": chosen["knobs"], "tps_median": chosen["tps_median"]}
    return document


def figure(found: ComparisonDocument, name: str) -> FigureDocument:
    return next(entry for entry in found["differences"]["figures"] if entry["name"] == name)


def test_a_difference_beyond_the_noise_is_told_with_its_interval() -> None:
    found = compare(result((None, [99, 100, 101])), result((None, [119, 120, 121])))
    tps, ttft = figure(found, "tps"), figure(found, "ttft_ms")
    assert tps["relative"] == pytest.approx(0.2)
    assert tps["low"] is not None
    assert tps["high"] is not None
    assert 0.15 < tps["low"] < 0.2 < tps["high"] < 0.25
    assert (tps["exceeds_noise"], tps["verdict"], tps["degrees_of_freedom"]) == (
        True,
        "b is better",
        4,
    )
    assert ttft["verdict"] == "b is better"  # of a latency less is better
    assert figure(compare(result((8, [120] * 3)), result((8, [100] * 3))), "tps")["verdict"] == (
        "a is better"
    )


def test_a_difference_within_the_noise_is_a_tie() -> None:
    found = compare(result((None, [95, 100, 105])), result((None, [97, 102, 107])))
    assert figure(found, "tps")["verdict"] == "tie"
    assert figure(found, "tps")["exceeds_noise"] is False


def test_the_noise_is_pooled_over_every_cell_of_both_runs() -> None:
    steady = result((None, [99, 100, 101]), (4, [50, 50, 50]), (8, [70, 70, 70]))
    found = compare(steady, steady)
    assert figure(found, "tps")["degrees_of_freedom"] == 12
    assert figure(found, "tps")["noise"] == pytest.approx(0.01 * (4 / 12) ** 0.5)


def test_single_replicates_cannot_tell() -> None:
    found = compare(result((None, [100])), result((None, [300])))
    tps = figure(found, "tps")
    assert (tps["verdict"], tps["exceeds_noise"], tps["low"], tps["noise"]) == (
        "cannot tell",
        None,
        None,
        None,
    )
    assert tps["relative"] == pytest.approx(2.0)


def test_knobs_stand_side_by_side_and_cells_are_matched_by_them() -> None:
    a = result((None, [99, 100, 101]), (8, [79, 80, 81]))
    b = result((8, [119, 120, 121]), (4, [60, 60, 60]))
    found = compare(a, b)["differences"]
    assert [(entry["name"], entry["a"], entry["b"], entry["same"]) for entry in found["knobs"]] == [
        ("kv_bits", None, 8, False),
        ("max_concurrency_override", 1, 1, True),
        ("max_context_override", 2000, 2000, True),
    ]
    assert [(cell["knobs"]["kv_bits"], cell["tps"]["verdict"]) for cell in found["cells"]] == [
        (8, "b is better")
    ]


def test_like_runs_are_even_and_each_unlike_circumstance_is_named() -> None:
    a = result((None, [99, 100, 101]))
    assert compare(a, a)["differences"]["even"]
    b = copy.deepcopy(a)
    b["machine"]["os_version"] = "macOS 27.0"
    b["machine"]["binary_version"] = "9"
    b["inputs"]["target_context"] = 4000
    b["provider"] = "mlx-lm"
    b["recommendation"]["model"] = "acme/other"
    found = compare(a, b)["differences"]
    assert not found["even"]
    assert [entry["name"] for entry in found["uneven"]] == [
        "machine.os_version",
        "machine.binary_version",
        "provider",
        "inputs.target_context",
        "model",
    ]
    assert found["cells"] == []


def test_failed_samples_and_failed_cells_do_not_count() -> None:
    a = result((None, [99, 100, 101]), (8, [1, 50, 99]))
    a["stage2"][1]["fits"] = False
    a["stage2"][0]["samples"][0] |= {"error": "HTTP 500"}
    tps = figure(compare(a, a), "tps")
    assert (tps["count_a"], tps["degrees_of_freedom"]) == (2, 2)


def test_a_partial_result_compares_and_one_without_a_recommendation_does_not() -> None:
    partial = stored("v1-budget_exhausted_with_partial_recommendation")
    assert compare(partial, stored("v1-ok"))["a"]["partial"]
    with pytest.raises(ValueError, match="no recommendation"):
        compare(stored("v1-no_feasible"), partial)


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = stored("v1-ok")
    later["stage2"][0]["samples"][0]["jitter_ms"] = 3.5
    later["invented"] = {}
    assert compare(later, later)["differences"]["even"]


def test_only_a_result_with_a_recommendation_has_something_to_compare() -> None:
    good = stored("v1-ok")
    assert comparable(good)
    assert not comparable({**good, "recommendation": None})


def test_a_difference_below_what_noise_has_found_the_machine_to_tell_is_a_tie() -> None:
    a, b = result((None, [99, 100, 101])), result((None, [119, 120, 121]))
    start = Trial(2, "m", 1, Knobs(None, 1, 2000), (Replicate(tps=100.0),), None, 100.0, 9.0)
    strayed = [start, replace(start, tps_median=130.0), start, replace(start, tps_median=130.0)]
    which = noise.Measurement("n1", "r1", "2026-01-31T03:30:00Z")
    pair = noise.layout(Knobs(None, 1, 2000), None)
    measured = noise.of_pairs(strayed, pair, 8000, 0.02, which)
    assert measured["smallest_difference"] is not None
    assert measured["smallest_difference"] > 0.2
    a["noise"] = {"measured": measured}
    for one, other in ((a, b), (b, a)):
        found = compare(one, other)
        assert found["differences"]["smallest_difference"] == measured["smallest_difference"]
        assert (figure(found, "tps")["verdict"], figure(found, "tps")["exceeds_noise"]) == (
            "tie",
            False,
        )
        assert found["differences"]["cells"][0]["tps"]["verdict"] == "tie"
        assert figure(found, "ttft_ms")["verdict"] != "tie"
