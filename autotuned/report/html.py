"""The report of one run: a single page that asks nobody for anything.

Made of the result document and the documents of its trials, so it says what `show --json` and `trials`
say. No script, no font, no picture from elsewhere; a policy in the page forbids the browser to ask.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

from autotuned import __version__
from autotuned.report import cells, timeline
from autotuned.report.figures import DASH, NAMES, knob, memory, rate, share, short, span
from autotuned.report.markup import NOTHING, Markup, lines, tag

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
LONG_NAME = 20
"""Letters of a model's name above which the headline is set smaller."""
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


def render(
    document: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    phases: Sequence[tuple[str, str]] = (),
) -> str:
    """The page of a result document, finished or not, and the trials of its run, oldest first.

    `phases` are the phases that the run entered and when, as far as they are known.
    """
    varying = cells.varying_knobs(document["stage2"])
    title = f"{_headline(document)} \N{MIDDLE DOT} autotuned"
    head = tag(
        "head",
        "\n",
        lines(
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("meta", name="generator", content=f"autotuned {__version__}"),
            tag("link", rel="icon", href="data:,"),
            tag("title", title),
            tag("style", Markup(_style())),
        ),
        "\n",
    )
    main = tag(
        "main",
        "\n",
        lines(
            _answer(document),
            _doubts(document),
            _ladder(document, trials),
            cells.section(document, varying),
            timeline.section(document, trials, phases, varying),
            _circumstances(document),
        ),
        "\n",
    )
    body = tag("body", "\n", lines(_top(document), main, _foot(document)), "\n")
    page = tag("html", "\n", lines(head, body), "\n", lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _style() -> str:
    return importlib.resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


def _headline(document: Mapping[str, Any]) -> str:
    if document["recommendation"] is not None:
        return short(document["recommendation"]["model"])
    if document["state"] == "running":
        return "Still running"
    if document["trigger"] == "noise" and document["exit_reason"] == "ok":
        return "How far this machine strays"
    if document["exit_reason"] == "no_feasible" and document["stage2"]:
        return "No setting of the chosen model passes"
    return OUTCOMES.get(document["exit_reason"], str(document["exit_reason"]))


def _top(document: Mapping[str, Any]) -> Markup:
    when = tag("time", _day(document["started_at"]), datetime=document["started_at"])
    return tag(
        "header",
        tag("p", tag("b", "autotuned"), " measured this machine on ", when, class_="brand"),
    )


# --- the answer --------------------------------------------------------------------------------------


def _answer(document: Mapping[str, Any]) -> Markup:
    answer = document["recommendation"]
    if answer is None:
        return _no_answer(document)
    machine = document["machine"]
    partial = answer.get("partial") is True
    badge = tag("span", "PARTIAL", class_="badge") if partial else NOTHING
    cell = _recommended(document)
    name = short(answer["model"])
    peak = cell.get("peak_rss_bytes")
    tiles = [
        (
            "tok/s",
            rate(answer["tps_median"]),
            f"median of {_count(answer['replicates'], 'request')}",
        ),
        ("to the first token", span(answer["ttft_p95_ms"]), "p95"),
        *([("of memory", memory(peak), f"at its peak, of {machine['ram_gb']} GB")] if peak else []),
        ("to load", span(cell.get("load_ms")), "start, readiness, first request"),
    ]
    settings = [(NAMES[name], knob(value)) for name, value in answer["knobs"].items()]
    return tag(
        "section",
        tag(
            "p",
            f"{_first_of(len(document['inputs']['candidate_models']))} that this machine usefully serves at "
            f"{answer['target_context']:,} tokens",
            class_="eyebrow",
        ),
        tag("h1", name, badge, class_="long" if len(name) > LONG_NAME else None),
        tag("p", answer["model"], class_="id") if name != answer["model"] else "",
        tag("p", _why_partial(document), class_="said") if partial else "",
        tag("ul", *(_tile(*tile) for tile in tiles), class_="tiles"),
        tag(
            "ul",
            *(tag("li", tag("span", name), tag("b", value)) for name, value in settings),
            class_="knobs",
            aria_label="recommended settings",
        ),
        tag("h2", "Serve it", class_="small"),
        tag("pre", tag("code", answer["serve_command"]), tabindex="0"),
        _alternates(document),
        class_="answer",
    )


def _first_of(count: int) -> str:
    return "The one candidate" if count == 1 else f"Of {count} candidates, the first"


def _tile(unit: str, value: str, note: str) -> Markup:
    return tag("li", tag("b", value), tag("span", unit), tag("small", note))


def _why_partial(document: Mapping[str, Any]) -> str:
    error = document["error"]
    return error["message"] if error else "not every cell was measured"


def _alternates(document: Mapping[str, Any]) -> Markup:
    others = document["alternates"]
    if not others:
        return NOTHING
    names = ", ".join(short(model) for model in others)
    return tag("p", tag("b", "Never tried, and smaller: "), names, class_="alternates")


def _no_answer(document: Mapping[str, Any]) -> Markup:
    error = document["error"] or {}
    detail = error.get("detail") or []
    running = document["state"] == "running"
    return tag(
        "section",
        tag("p", _eyebrow(document), class_="eyebrow"),
        tag("h1", _headline(document)),
        tag("p", error["message"], class_="said") if error.get("message") else "",
        tag("ul", *(tag("li", line) for line in detail), class_="detail")
        if len(detail) > 1
        else "",
        tag("p", tag("code", document["exit_reason"]), class_="id") if not running else "",
        class_="answer" if running else "answer none",
    )


def _eyebrow(document: Mapping[str, Any]) -> str:
    if document["state"] == "running":
        return "What is known so far"
    return "A measurement of noise" if document["trigger"] == "noise" else "No recommendation"


def _doubts(document: Mapping[str, Any]) -> Markup:
    if not document["warnings"]:
        return NOTHING
    return tag(
        "section",
        tag("h2", "Doubts", class_="small"),
        tag("ul", *(tag("li", warning) for warning in document["warnings"])),
        class_="doubts",
    )


# --- the candidates ------------------------------------------------------------------------------------


def _ladder(document: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Markup:
    models = document["inputs"]["candidate_models"]
    if not models:
        return NOTHING
    reasons = {entry["model"]: entry["reason"] for entry in document["infeasible"]}
    probes = {trial["model"]: trial for trial in trials if trial["stage"] == 1}
    steps = [
        _step(rank, model, _standing(document, model, reasons, probes), probes.get(model))
        for rank, model in enumerate(models, start=1)
    ]
    return tag(
        "section",
        tag("h2", "The candidates, in their order"),
        tag("p", "The first that passes is the answer, however fast a smaller one may be."),
        tag("ol", lines(*steps), class_="ladder"),
    )


def _standing(
    document: Mapping[str, Any],
    model: str,
    reasons: Mapping[str, str],
    probes: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str, str]:
    """A candidate's style, its state in words, and what there is to say."""
    answer = document["recommendation"]
    if model in reasons:
        return "failed", "failed", reasons[model]
    if answer is not None and model == answer["model"]:
        return "chosen", "chosen", ""
    if model in probes:
        return "passed", "passed its probe", ""
    if answer is not None:
        return "untried", "not tried", "a larger one had passed"
    return "untried", "not reached", ""


def _step(
    rank: int, model: str, standing: tuple[str, str, str], probe: Mapping[str, Any] | None
) -> Markup:
    style, state, said = standing
    whole = tag("span", model, class_="id") if short(model) != model else NOTHING
    figures = NOTHING
    if probe is not None and probe["tps_median"] is not None:
        parts = [
            f"probe: {rate(probe['tps_median'])} tok/s",
            f"first token after {span(probe['ttft_p95_ms'])}",
            f"loaded in {span(probe['load_ms'])}",
            f"{memory(probe['peak_rss_bytes'])} of memory",
        ]
        figures = tag("p", ", ".join(part for part in parts if DASH not in part), class_="probe")
    return tag(
        "li",
        tag("span", str(rank), class_="rank", aria_hidden="true"),
        tag("div", tag("b", short(model)), " ", tag("span", state, class_="state"), whole),
        tag("p", said, class_="reason") if said else "",
        figures,
        class_=style,
    )


# --- what the figures are valid for ---------------------------------------------------------------------


def _circumstances(document: Mapping[str, Any]) -> Markup:
    machine, inputs = document["machine"], document["inputs"]
    first = {
        "memory": f"{machine['ram_gb']} GB",
        "chip": machine["chip"],
        "system": machine["os_version"],
        "server": document["provider"] or "unknown",
        "its version": machine["binary_version"],
    }
    second = {
        "target context": f"{inputs['target_context']:,} tokens",
        "gate": f"first token within {span(inputs['gate_ttft_ms'])}, every request complete",
        "replicates": f"{inputs['stage1_replicates']} a candidate, {inputs['stage2_replicates']} a cell",
        "a tie within": f"{share(inputs['tps_tie_epsilon'])} of tok/s: the lower time to first token wins",
        "asked for": document["trigger"],
    }
    return tag(
        "section",
        tag("h2", "What these figures are valid for"),
        tag("div", _facts("Machine", first), _facts("Request", second), class_="pair"),
    )


def _facts(title: str, facts: Mapping[str, Any]) -> Markup:
    pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    return tag("div", tag("h3", title), tag("dl", lines(*pairs)))


def _foot(document: Mapping[str, Any]) -> Markup:
    ended = document["ended_at"]
    pairs = [
        ("run", document["run_id"]),
        ("began", document["started_at"]),
        ("ended", ended or DASH),
        (
            "ended as",
            document["exit_reason"] if document["state"] == "finished" else "still running",
        ),
        ("recipe", document["recipe_hash"] or "none"),
        ("format", document["spec_version"]),
    ]
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("footer", tag("dl", lines(*rows)))


def _recommended(document: Mapping[str, Any]) -> Mapping[str, Any]:
    index = cells.best_index(document)
    return {} if index is None else document["stage2"][index]


def _day(moment: str) -> str:
    return f"{moment[:10]} at {moment[11:16]} UTC"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
