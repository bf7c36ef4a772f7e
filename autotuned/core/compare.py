"""Two results set against each other: knob by knob, figure by figure, and what of it is more than noise.

Takes two result documents that have a recommendation; `a` is the earlier side, and every difference
is `b` relative to `a`. How it is judged stands on top of `core/stats.py`. Pure; knows no store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, cast

from autotuned.core import stats
from autotuned.core.doubts import same_length
from autotuned.documents.compare import (
    CellDifferenceDocument,
    ComparisonDocument,
    FigureDocument,
    SideDocument,
    ValueDocument,
    Verdict,
)
from autotuned.documents.result import CellDocument, InputsDocument, MachineDocument, ResultDocument
from autotuned.documents.trial import SampleDocument
from autotuned.shared.knobs import flat, winner

CONFIDENCE = 0.95


def comparable(document: Mapping[str, object]) -> bool:
    """True for a result that has something to compare: a recommendation, whole or partial."""
    return document.get("recommendation") is not None


def compare(a: Mapping[str, object], b: Mapping[str, object]) -> ComparisonDocument:
    """Set two comparable result documents against each other. Raises ValueError for one that is none."""
    first, second = _Run(a), _Run(b)
    uneven = [value for value in _circumstances(first, second) if not value["same"]]
    one, other = flat(first.answer["knobs"]), flat(second.answer["knobs"])
    smallest = second.smallest if second.smallest is not None else first.smallest
    return {
        "a": first.side(),
        "b": second.side(),
        "differences": {
            "confidence": CONFIDENCE,
            "even": not uneven,
            "uneven": uneven,
            "knobs": _values(one | other, one, other),
            "figures": [
                *(_seen(_sampled(figure, first, second), smallest) for figure in SAMPLED),
                _load(first, second),
            ],
            "cells": _cells(first, second, smallest),
            "smallest_difference": smallest,
        },
    }


Figure = tuple[str, str, Literal["higher", "lower"]]
"""Name of a figure, its unit, and what is better."""
TPS: Figure = ("tps", "tok/s", "higher")
SAMPLED: tuple[Figure, ...] = (
    TPS,
    ("ttft_ms", "ms", "lower"),
    ("decode_tps", "tok/s", "higher"),
    ("prefill_tps", "tok/s", "higher"),
)
"""The figures that every replicate has, by the name of the sample's field."""


class _Run:
    """A result that has a recommendation, and the cell that it came from."""

    def __init__(self, document: Mapping[str, object]) -> None:
        self.result = cast("ResultDocument", document)
        if self.result["recommendation"] is None:
            message = f"run {self.result['run_id']} has no recommendation"
            raise ValueError(message)
        self.answer = self.result["recommendation"]
        self.cells = [cell for cell in self.result["stage2"] if cell["fits"]]
        self.best: CellDocument | None = winner(document)
        counts = [] if self.best is None else _reader("completion_tokens")(self.best["samples"])
        self.answer_tokens = stats.median(counts) if counts else None
        self.measured = self.result["noise"].get("measured")
        self.smallest = None if self.measured is None else self.measured["smallest_difference"]

    def side(self) -> SideDocument:
        answer, noise = self.answer, self.result["noise"]
        return {
            "run_id": self.result["run_id"],
            "started_at": self.result["started_at"],
            "model": answer["model"],
            "knobs": answer["knobs"],
            "tps_median": answer["tps_median"],
            "ttft_p95_ms": answer["ttft_p95_ms"],
            "replicates": answer["replicates"],
            "partial": answer.get("partial") is True,
            "recipe_hash": self.result["recipe_hash"],
            "lead": noise.get("lead") if self.measured is None else self.measured["lead"],
        }


def _circumstances(a: _Run, b: _Run) -> list[ValueDocument]:
    """What both runs should share for their figures to mean the same."""
    one, other, tokens = a.result, b.result, (a.answer_tokens, b.answer_tokens)
    machine, inputs = MachineDocument.__annotations__, InputsDocument.__annotations__
    return [
        *_values(machine, one["machine"], other["machine"], "machine."),
        *_values(["provider"], one, other),
        *_values(inputs, one["inputs"], other["inputs"], "inputs."),
        *_values(["model"], a.answer, b.answer),
        {"name": "answer_tokens", "a": tokens[0], "b": tokens[1], "same": same_length(*tokens)},
    ]


def _values(
    names: Iterable[str], a: Mapping[str, object], b: Mapping[str, object], prefix: str = ""
) -> list[ValueDocument]:
    """Those of either side that this version knows: an earlier one may not have had them all."""
    return [
        {
            "name": prefix + name,
            "a": a.get(name),
            "b": b.get(name),
            "same": a.get(name) == b.get(name),
        }
        for name in names
    ]


def _sampled(figure: Figure, a: _Run, b: _Run) -> FigureDocument:
    """A figure of the recommended cells, judged by the spread within every cell of both runs."""
    read = _reader(figure[0])
    groups = [read(cell["samples"]) for run in (a, b) for cell in run.cells]
    values = [read(run.best["samples"]) if run.best is not None else [] for run in (a, b)]
    return _figure(figure, values[0], values[1], stats.pooled_spread(groups))


def _load(a: _Run, b: _Run) -> FigureDocument:
    """The time to load, over all cells of a run: a cell loads once only, and knobs hardly change it."""
    groups = [[cell["load_ms"] for cell in run.cells if cell["load_ms"]] for run in (a, b)]
    figure: Figure = ("load_ms", "ms", "lower")
    return _figure(figure, groups[0], groups[1], stats.pooled_spread(groups))


def _seen(figure: FigureDocument, smallest: float | None) -> FigureDocument:
    """Requests of one start cannot tell how far starts stray: below what `noise` found, it is a tie."""
    small = smallest is not None and abs(figure["relative"] or 0.0) <= smallest
    if not small or figure["name"] != "tps" or not figure["exceeds_noise"]:
        return figure
    return {**figure, "exceeds_noise": False, "verdict": "tie"}


def _cells(a: _Run, b: _Run, smallest: float | None) -> list[CellDifferenceDocument]:
    if a.answer["model"] != b.answer["model"]:
        return []
    read = _reader("tps")
    spread = stats.pooled_spread(read(cell["samples"]) for run in (a, b) for cell in run.cells)
    found: list[CellDifferenceDocument] = []
    for cell in a.cells:
        other = next((entry for entry in b.cells if entry["knobs"] == cell["knobs"]), None)
        if other is not None:
            tps = _figure(TPS, read(cell["samples"]), read(other["samples"]), spread)
            found.append({"knobs": cell["knobs"], "tps": _seen(tps, smallest)})
    return found


def _reader(name: str) -> Callable[[Sequence[SampleDocument]], list[float]]:
    """Reads a field of the complete samples; only positive values can be set in relation."""

    def read(samples: Sequence[SampleDocument]) -> list[float]:
        values = [
            cast("float | None", sample.get(name)) for sample in samples if not sample["error"]
        ]
        return [value for value in values if value is not None and value > 0]

    return read


def _figure(
    figure: Figure, a: Sequence[float], b: Sequence[float], spread: stats.Spread
) -> FigureDocument:
    name, unit, better = figure
    found = stats.ratio(a, b, spread, CONFIDENCE) if a and b else None
    low, high = (found and found.interval) or (None, None)
    verdict: Verdict = "cannot tell"
    if found is not None and found.differs is not None:
        gains = (found.relative > 0) == (better == "higher")
        verdict = "tie" if not found.differs else "b is better" if gains else "a is better"
    return {
        "name": name,
        "unit": unit,
        "better": better,
        "a": stats.median(a) if a else None,
        "b": stats.median(b) if b else None,
        "count_a": len(a),
        "count_b": len(b),
        "relative": found.relative if found is not None else None,
        "low": low,
        "high": high,
        "noise": spread.relative if spread.freedom else None,
        "degrees_of_freedom": spread.freedom,
        "exceeds_noise": found.differs if found is not None else None,
        "verdict": verdict,
    }
