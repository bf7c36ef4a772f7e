"""Documents of the agent as text for people: plain strings, no terminal control, no decisions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autotunectl.text import compare
from autotunectl.text.layout import Table, columns, count, local, number, rate, short
from autotuned.shared import knobs
from autotuned.shared.text import printable, span

if TYPE_CHECKING:
    from autotuned.documents.schedule import StaleResult


def recommendation(document: Mapping[str, Any], room: int | None = None) -> str:
    """The RECOMMENDATION block of a result document that has one; its table fits into `room` columns."""
    answer = document["recommendation"]
    chosen = answer["knobs"]
    lines = ["RECOMMENDATION"]
    if answer.get("partial"):
        error = document.get("error") or {}
        lines.append(f"  PARTIAL: {error.get('message', 'not every cell was measured')}")
    figures = f"{answer['tps_median']:.2f} tok/s median, TTFT p95 {answer['ttft_p95_ms']:,.0f} ms"
    told = {
        "model": answer["model"],
        **{knob.flag: knobs.shown(value) for knob, value in knobs.listed(chosen)},
        **{name: knobs.shown(value) for name, value in knobs.own(chosen).items()},
        "target context": f"{answer['target_context']} tokens",
        "load": load_line(document),
        "measured": f"{figures} ({count(answer['replicates'], 'replicate')})",
        "tok/s": "end to end, prompt included: tokens over the whole request",
        **_rates(document),
        "noise": compare.verdict(document.get("noise", {})),
        "quality": _quality(document) if "quality" in document else None,
        "confirmed": _confirmed(document["confirmation"]) if "confirmation" in document else None,
    }
    lines += [*_labelled(told), *_tables(document, room), ""]
    told = {"alternates": ", ".join(document["alternates"]) or "none"}
    if document["alternates"]:
        words = ["autotunectl", "start", "--candidate-models", document["alternates"][0]]
        told["try one"] = f"{shlex.join(words)} --target-context {answer['target_context']}"
    lines += [*_labelled(told), ""]
    partial = ["--allow-partial"] if answer.get("partial") else []
    stopped = document.get("left_stopped")
    told = {
        "serve": answer["serve_command"],
        "": answer.get("serve_note") or None,
        "apply": shlex.join(["autotunectl", "apply", document["run_id"], *partial]),
        "stopped": f"your server stays so; start it: {stopped}" if stopped else None,
    }
    lines += _labelled(told)
    if document["infeasible"]:
        failed = document["infeasible"]
        lines += ["", "  failed candidates"]
        lines += [f"    {each['rank']}. {each['model']}: {each['reason']}" for each in failed]
    if document.get("recipe_hash"):
        lines += ["", f"  run {document['run_id']}, recipe {document['recipe_hash']}"]
    return "\n".join(lines)


def _labelled(told: Mapping[str, str | None]) -> list[str]:
    """A line for each that is known."""
    return [f"  {name:<15} {text}" for name, text in told.items() if text is not None]


def _quality(document: Mapping[str, Any]) -> str:
    """How the answers of the recommended settings compare: `same: 15 of 19 tasks solved, as without loss`."""
    found, winner = document["quality"], knobs.winner(document) or document["recommendation"]
    if found["reason"] is not None:
        return f"not judged: {found['reason']}"
    base = found["baseline"]
    without = f"{base['solved']} of {found['tasks']} tasks solved"
    for cell in found["cells"]:
        if cell["knobs"] == winner["knobs"]:
            lost = f"; lost: {', '.join(cell['lost'])}" if cell["lost"] else ""
            return f"{cell['verdict']}: {cell['solved']} of {found['tasks']} tasks solved, {base['solved']} without loss{lost}"
    broken = [cell for cell in found["cells"] if cell["verdict"] == "broken"]
    out = "".join(f"; broken: {knobs.words(cell['knobs'])}" for cell in broken)
    return f"the reference itself: {without}{out}"


def answers(document: Mapping[str, Any]) -> str:
    """Each question of the quality guard with the answers to it."""
    lines: list[str] = []
    for question in document["tasks"]:
        lines += [question["task"], *(f"  | {line}" for line in question["prompt"].splitlines())]
        for answer in question["answers"]:
            again = f", round {answer['round']}" if answer["round"] > 1 else ""
            solved = f"{sum(answer['solved'])}/{len(answer['solved'])}"
            lines.append(f"  {knobs.words(answer['knobs'])}{again}: {solved}")
            text = "(the request failed)" if answer["text"] is None else answer["text"]
            lines += [f"    {printable(line)}" for line in text.splitlines() or ["(empty)"]]
        lines.append("")
    return "\n".join(lines).rstrip() or "no answers were compared in this run: start --quality warn"


def failure(document: Mapping[str, Any]) -> list[str]:
    """Why a run made no recommendation, smallest candidate first; one line each."""
    ended = document.get("exit_reason")
    error = document.get("error") or {"message": f"ended as {ended}"}
    detail = error.get("detail") or []
    return [f"{ended}: {error['message']}", *(f"  {reason}" for reason in detail[1:])]


def staleness(document: StaleResult) -> str:
    """Whether the last good recipe still holds, on one line."""
    if document["never_tuned"]:
        return "never tuned: autotunectl start"
    if document["stale"]:
        return f"stale: {'; '.join(document['reasons'])}"
    return f"fresh: nothing has changed since {document['last_run_id']}"


def stale_row(document: StaleResult) -> Table:
    """The same below its heading, for a table of machines."""
    return [("RECIPE",), (staleness(document),)]


def runs(document: Mapping[str, Any]) -> Table:
    """The table of runs, its heading first."""
    table: Table = [("RUN", "STARTED", "CONTEXT", "MODEL", "TOK/S", "ENDED")]
    for run in document["runs"]:
        began, context = local(run["started_at"]), str(run["target_context"])
        model, tps = short(run.get("model") or "-"), number(run.get("tps_median"), "", 2)
        ended = run.get("exit_reason") or "running"
        table.append((run["run_id"], began, context, model, tps, ended))
    return table


def _tables(document: Mapping[str, Any], room: int | None) -> list[str]:
    """The cells, and where there are several the answers for each target context."""
    cells, profiles = document.get("stage2", []), document.get("profiles")
    lines = []
    if cells:
        table = _cells(document)
        search = document.get("search")
        said = "cells" if search is None else f"{len(cells)} of {search['cells']} cells tried"
        heading = f"  {said} (medians; TTFT is p95, MEMORY in GB)"
        lines += ["", heading, *_indented(table, room)]
    if profiles:
        lines += ["", "  every target context", *_indented(_profiles(profiles), room)]
    return lines


def _profiles(profiles: Iterable[Mapping[str, Any]]) -> Table:
    """What is recommended for each target context, in a run with several."""
    table: Table = [("CONTEXT", "MODEL", "KNOBS", "TOK/S", "TTFT")]
    for each in profiles:
        tokens, answer = f"{each['target_context']:,}", each["recommendation"]
        if answer is None:
            table.append((tokens, "-", "-", "-", each["reason"] or "-"))
            continue
        settings, ttft = knobs.flags(answer["knobs"]), span(answer["ttft_p95_ms"])
        table.append((tokens, short(answer["model"]), settings, rate(answer["tps_median"]), ttft))
    return table


def _rates(document: Mapping[str, Any]) -> dict[str, str]:
    """The two parts of a request, each with its own rate, of the cell that was chosen."""
    cell = knobs.winner(document)
    if cell is None or cell["decode_tps"] is None or cell["prefill_tps"] is None:
        return {}
    return {
        "decode": f"{rate(cell['decode_tps'])} tok/s, after the first token",
        "prefill": f"{rate(cell['prefill_tps'])} tok/s, the prompt up to the first token",
    }


def _cells(document: Mapping[str, Any]) -> Table:
    names = [name.upper() for name in knobs.own(document["recommendation"]["knobs"])]
    figures = ("TOK/S", "DECODE", "PREFILL", "TTFT", "LOAD", "MEMORY")
    best = knobs.winner(document)
    table: Table = [("KV", "BATCH", "CONTEXT", *names, *figures, "")]
    for cell in document["stage2"]:
        memory = cell.get("peak_rss_bytes")
        rates = (rate(cell[name]) for name in ("tps_median", "decode_tps", "prefill_tps"))
        times = span(cell["ttft_p95_ms"]), span(cell["load_ms"])
        used = number(memory and memory / 2**30, "", 2)
        remark = cell["reason"] or ("chosen" if cell is best else "")
        table.append((*knobs.cells(cell["knobs"]), *rates, *times, used, remark))
    return table


def _confirmed(meeting: Mapping[str, Any]) -> str:
    """What came of starting the winner again, in turns with what it was set against."""
    who = "the defaults" if meeting["against"] == "defaults" else "the live settings"
    outcome = {
        "better": f"faster than {who}",
        "tie": f"a tie with {who}, which are recommended",
        "worse": f"slower than {who}, which are recommended",
    }[meeting["verdict"]]
    low, high = meeting["interval"] or (None, None)
    return f"the winner is {outcome} ({compare.interval(meeting['difference'], low, high)})"


def _indented(table: Table, room: int | None) -> list[str]:
    return [f"  {line}" for line in columns(table, None if room is None else room - 2).splitlines()]


def load_line(document: Mapping[str, Any]) -> str | None:
    """What was calibrated: `serves 4 at once at 6,000 tokens (largest 9; beyond 4 nothing is gained)`."""
    found = document.get("calibration") or {}
    context, several = found.get("context") or {}, found.get("concurrency") or {}
    tokens = context.get("answer") or document["inputs"]["target_context"]
    best, largest = several.get("recommended"), several.get("largest")
    if best is None:
        if context.get("answer") is None:
            return None
        return f"serves up to {tokens:,} tokens with its first token within {context['ceiling_ms']:,} ms"
    more = several.get("reason") or (
        "no more pass" if best == largest else f"largest {largest}; beyond {best} nothing is gained"
    )
    return f"serves {best} at once at {tokens:,} tokens ({more})"
