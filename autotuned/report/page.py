"""The report of one run: a single page that asks nobody for anything.

Made of the result document and the documents of its trials, so it says what `show --json` and `trials`
say. Here are its figures and sentences; `page.html.j2` is the page. Whatever a model is called, it stays text.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from autotuned import __version__
from autotuned.core import stats
from autotuned.core.compare import CONFIDENCE
from autotuned.documents.compare import PastDocument
from autotuned.documents.noise import NoiseDocument
from autotuned.documents.result import AnsweredTask, CellDocument, ResultDocument
from autotuned.documents.trial import TrialDocument
from autotuned.report import charts, sections
from autotuned.report.charts import Strip, dots
from autotuned.report.sections import KNOB_NAMES, named
from autotuned.shared.knobs import flat, shown, winner
from autotuned.shared.text import (
    DASH,
    count,
    explained,
    gigabytes,
    printable,
    rate,
    share,
    short,
    signed_share,
    span,
)

MOST = 3000
"""Requests that are shown one by one: a page of more is no longer read, and must pass through the socket."""
OUTCOMES = {
    "ok": "Nothing to recommend",
    "no_feasible": "No candidate is feasible",
    "budget_exhausted_no_model_selected": "The budget ran out before there was an answer",
    "budget_exhausted_with_partial_recommendation": "The budget ran out",
    "interrupted": "Interrupted before there was an answer",
    "provider_conflict": "Another server was in the way",
    "pre_warm_integrity_failure": "The weights are damaged",
    "config_error": "The request could not be run",
    "internal_error": "A bug ended this run",
}
CHECKED = {
    "same": "The recipe serves as it did",
    "faster": "The recipe serves faster than it did",
    "slower": "The recipe serves slower than it did",
    "fails": "The recipe does not serve any more",
}
LEADS = {
    "clear": "The winner stands clear of its runner-up",
    "tie": "The winner and its runner-up are a tie",
    "runner-up is faster": "The runner-up is the faster one",
    "cannot tell": "Whether the winner stands clear of its runner-up is not known",
}


def render(
    document: ResultDocument,
    trials: Sequence[TrialDocument],
    phases: Sequence[tuple[str, str]] = (),
    answers: Sequence[AnsweredTask] = (),
    past: Sequence[PastDocument] = (),
) -> str:
    """The page of a result document, finished or not, and the trials of its run, oldest first.

    `phases` are the phases that the run entered and when, as far as they are known; `answers` what was
    answered to the quality guard, question by question; `past` good tunes and checks, newest first.
    """
    best = _best_index(document)
    knobs = functools.partial(_knobs, varying=_varying(document))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            document=document,
            version=__version__,
            style=Markup(style()),  # noqa: S704 - our own file
            headline=_headline(document),
            best={} if best is None else document["stage2"][best],
            ladder=_ladder(document, trials),
            cells=_cells(document, best) if document["stage2"] else None,
            timeline=charts.timeline(document, trials, phases, knobs),
            calibrations=sections.calibrations(document),
            knob_names=KNOB_NAMES,
            knob_heading=sections.knob_heading(document),
            search=sections.search(document),
            profiles=[sections.profile(each) for each in document.get("profiles", [])],
            answers=[sections.answered(question) for question in answers],
            past=sections.over_time(document, past),
            trust=sections.sentences(document) if document["recommendation"] else [],
            dash=DASH,
        )
    )


@functools.cache
def environment() -> Environment:
    """Escapes every value, and refuses a name that the page does not have."""
    made = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    plain = (explained, flat, gigabytes, rate, share, short, span)
    made.filters |= {function.__name__: function for function in plain}
    made.filters |= {"knob": shown, "count_of": count, "whole_percent": _whole_percent}
    return made


def _whole_percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.005 or part == 0 else "<1%"


def style() -> str:
    """The page's style sheet."""
    return _file("style.css")


def _file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _best_index(document: ResultDocument) -> int | None:
    """The cell that is recommended."""
    cell = winner(document)
    return None if cell is None else document["stage2"].index(cell)


def _headline(document: ResultDocument) -> str:
    if document["recommendation"] is not None:
        return short(document["recommendation"]["model"])
    if document["state"] == "running":
        return "Still running"
    if "check" in document:
        return CHECKED[document["check"]["verdict"]]
    if document["trigger"] == "noise" and document["exit_reason"] == "ok":
        return "How far this machine strays"
    if document["exit_reason"] == "no_feasible" and document["stage2"]:
        return "No setting of the chosen model passes"
    return OUTCOMES.get(document["exit_reason"], str(document["exit_reason"]))


# --- the candidates ------------------------------------------------------------------------------------


def _ladder(document: ResultDocument, trials: Sequence[TrialDocument]) -> list[dict[str, str]]:
    """Every candidate: its style, its state in words, why, and what its probe measured."""
    reasons = {entry["model"]: entry["reason"] for entry in document["infeasible"]}
    probes = {trial["model"]: trial for trial in trials if trial["stage"] == 1}
    answer, steps = document["recommendation"], []
    for model in document["inputs"]["candidate_models"]:
        if model in reasons:
            standing = ("failed", "failed", reasons[model])
        elif answer is not None and model == answer["model"]:
            standing = ("chosen", "chosen", "")
        elif model in probes:
            standing = ("passed", "passed its probe", "")
        elif answer is not None:
            standing = ("untried", "not tried", "a larger one had passed")
        else:
            standing = ("untried", "not reached", "")
        named = dict(zip(("style", "state", "reason"), standing, strict=True))
        steps.append({"model": model, "probe": _probe(probes.get(model)), **named})
    return steps


def _probe(trial: TrialDocument | None) -> str:
    if trial is None or trial["tps_median"] is None:
        return ""
    parts = [
        (trial["tps_median"], f"probe: {rate(trial['tps_median'])} tok/s"),
        (trial["ttft_p95_ms"], f"first token after {span(trial['ttft_p95_ms'])}"),
        (trial["load_ms"], f"loaded in {span(trial['load_ms'])}"),
        (trial["peak_rss_bytes"], f"{gigabytes(trial['peak_rss_bytes'])} of memory"),
    ]
    return ", ".join(words for value, words in parts if value is not None)


# --- the cells -----------------------------------------------------------------------------------------


def _cells(document: ResultDocument, best: int | None) -> dict[str, object]:
    """Charts, tables and sentences on the cells: every request, and which cells really differ."""
    cells = document["stage2"]
    most, requests = max(20, MOST // len(cells)), sum(len(cell["samples"]) for cell in cells)
    rows = [row for cell in cells for row in _requests(cell, most)]
    whole = len(rows) == requests
    part = f"The first {most} requests of each cell, {len(rows)} of {requests}"
    spread = stats.pooled_spread(_values(cell, "tps") for cell in cells if cell["fits"])
    varying = _varying(document)
    rates = _strips(cells, "tps", rate, best, varying)
    times = _strips(cells, "ttft_ms", span, best, varying)
    charts = [
        dots("tps", "Tokens per second", "cell", rates, rate, "more is better"),
        dots("ttft-ms", "Time to first token", "cell", times, span, "less is better"),
    ]
    return {
        "introduction": _introduction(document, varying),
        "charts": [chart for chart in charts if chart is not None],
        "rows": [
            [
                named(cell["knobs"]),
                "failed" if not cell["fits"] else "best" if index == best else "passed",
                rate(cell["tps_median"]),
                _against(cell, None if best is None or best == index else cells[best], spread),
                span(cell["ttft_p95_ms"]),
                rate(cell["decode_tps"]),
                rate(cell["prefill_tps"]),
                span(cell["load_ms"]),
                gigabytes(cell.get("peak_rss_bytes")),
            ]
            for index, cell in enumerate(cells)
        ],
        "best": best,
        "failures": [(named(cell["knobs"]), cell["reason"]) for cell in cells if cell["reason"]],
        "requests": rows,
        "requests_summary": f"Every request ({requests})" if whole else part,
        "requests_caption": "Every request with its figures" if whole else part,
        "noise": _noise(spread),
        "lead": _lead(document.get("noise", {})),
    }


def _introduction(document: ResultDocument, varying: Mapping[str, bool]) -> str:
    cells = document["stage2"]
    fixed = _knobs(cells[0]["knobs"], {name: not varies for name, varies in varying.items()})
    number = "One cell" if len(cells) == 1 else f"{len(cells)} cells"
    shared = f" {'All with ' if len(cells) > 1 else ''}{fixed}." if fixed else ""
    return (
        f"{number} of the chosen model, up to {document['inputs']['stage2_replicates']} requests each.{shared} "
        "A dot is one request, the upright stroke the median."
    )


def _strips(
    cells: Sequence[CellDocument],
    field: Literal["tps", "ttft_ms"],
    show: Callable[[float | None], str],
    best: int | None,
    varying: Mapping[str, bool],
) -> list[Strip]:
    """One row of dots a cell."""
    strips = []
    for index, cell in enumerate(cells):
        values, fits = _values(cell, field), cell["fits"]
        median = stats.median(values) if values and fits else None
        label = _knobs(cell["knobs"], varying) or _knobs(cell["knobs"])
        label += sections.STAR if index == best else ""
        shown_values = _thinned(values, max(20, MOST // len(cells)))
        value = show(median) if fits else "failed"
        strips.append(Strip(label, shown_values, value, index == best, not fits, median))
    return strips


def _tokens(count: int | None) -> str:
    return DASH if count is None else str(count)


def _requests(cell: CellDocument, most: int) -> list[list[str]]:
    return [
        [
            named(cell["knobs"]),
            str(number),
            rate(sample["tps"]),
            span(sample["ttft_ms"]),
            rate(sample["decode_tps"]),
            _tokens(sample["prompt_tokens"]),
            _tokens(sample["completion_tokens"]),
            sample["error"] or "; ".join(sample["remarks"]),
        ]
        for number, sample in enumerate(cell["samples"][:most], start=1)
    ]


def _against(cell: CellDocument, best: CellDocument | None, spread: stats.Spread) -> str:
    """A cell's median against the best's, with its interval; `tie` where that covers no difference."""
    values, reference = _values(cell, "tps"), [] if best is None else _values(best, "tps")
    if not reference or not values or not cell["fits"]:
        return DASH
    found = stats.ratio(reference, values, spread, CONFIDENCE)
    words = signed_share(found.relative)
    if found.interval is not None:
        low, high = found.interval
        words += f" ({signed_share(low)} to {signed_share(high)})"
    return f"{words}, tie" if found.differs is False else words


def _lead(noise: NoiseDocument) -> str:
    """Whether the winner stands clear, by a measurement of the noise where there is one."""
    measured = noise.get("measured")
    lead = (measured or noise).get("lead")
    if lead is None:
        return ""
    words = f"{LEADS[lead['verdict']]}: {signed_share(lead['relative'])}"
    if lead["low"] is not None and lead["high"] is not None:
        words += f" ({signed_share(lead['low'])} to {signed_share(lead['high'])} at 90%)"
    if measured is None:
        return f"{words}, by the requests of this run."
    return (
        f"{words}, by {measured['pairs']} pairs of further starts; starts of one cell stray by "
        f"{share(measured['start_spread'] or 0.0)}."
    )


def _noise(spread: stats.Spread) -> str:
    if not spread.freedom:
        return "One request a cell: how much the figures stray is not known, so no two cells can be told apart."
    return (
        f"Noise: one request strays by {share(spread.relative)} within a cell, pooled over all cells "
        f"({count(spread.freedom, 'degree')} of freedom). Intervals are at {CONFIDENCE:.0%}, by Student's t; a tie is "
        "a difference that the noise explains."
    )


def _values(cell: CellDocument, field: Literal["tps", "ttft_ms"]) -> list[float]:
    """The figures of the complete requests."""
    values = [sample[field] for sample in cell["samples"] if sample["error"] is None]
    return [value for value in values if value is not None and value > 0]


def _thinned(values: Sequence[float], most: int) -> Sequence[float]:
    """Evenly fewer values, the smallest and the largest still among them."""
    if len(values) <= most:
        return values
    return [*values[:: math.ceil(len(values) / most)], min(values), max(values)]


def _varying(document: ResultDocument) -> dict[str, bool]:
    """Which knobs take more than one value: the others need not be said again at each cell."""
    cells = document["stage2"]
    names = flat(cells[0]["knobs"]) if cells else ()
    return {name: len({flat(cell["knobs"])[name] for cell in cells}) > 1 for name in names}


def _knobs(chosen: Mapping[str, object], varying: Mapping[str, bool] | None = None) -> str:
    """Knobs in one line; only those that vary, where told which."""
    return " \N{MIDDLE DOT} ".join(
        f"{KNOB_NAMES.get(name, name)} {shown(value)}"
        for name, value in flat(chosen).items()
        if varying is None or varying.get(name)
    )
