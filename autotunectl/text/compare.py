"""Figures set against each other, as text for people: two runs, runs over time, the machine's own noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotunectl.text.layout import Table, columns, count, local, number, short
from autotuned.shared.knobs import TABLE, cells, shown, words

if TYPE_CHECKING:
    from autotuned.documents.compare import (
        CellDifferenceDocument,
        ComparisonDocument,
        DifferencesDocument,
        FigureDocument,
        HistoryDocument,
        PastDocument,
        ValueDocument,
    )

WORDS = {
    "clear": "the winner stands clear of its runner-up",
    "tie": "a tie: noise explains the difference",
    "runner-up is faster": "the runner-up is the faster one",
    "cannot tell": "too few figures to tell the winner from its runner-up",
}
NAMES = {
    "tps": "tok/s",
    "ttft_ms": "TTFT",
    "decode_tps": "decode tok/s",
    "prefill_tps": "prefill tok/s",
    "load_ms": "load",
}
BRACKETED = "{} ({})"
FLAGS = {knob.published: knob.flag for knob in TABLE}


def comparison(document: ComparisonDocument) -> str:
    """Both runs, their settings, their figures, and what of the difference is more than noise."""
    found = document["differences"]
    lines = ["COMPARISON"]
    for name in ("a", "b"):
        side = document[name]
        lead = side.get("lead")
        said = "" if lead is None else f"  ({WORDS[lead['verdict']]})"
        partial = " (partial)" if side["partial"] else ""
        lines.append(f"  {name}  {side['run_id']}  {side['model']}{partial}{said}")
    if not found["even"]:
        lines += ["", "  not even: the runs differ in"]
        lines += [
            f"    {entry['name']}: {_plain(entry['a'])} -> {_plain(entry['b'])}"
            for entry in found["uneven"]
        ]
    lines += ["", *_indented(_knobs(found["knobs"])), "", *_indented(_figures(found))]
    if len(found["cells"]) > 1:
        lines += ["", "  tok/s, cell by cell", *_indented(_cells(found["cells"]), 4)]
    lines += ["", f"  {_judged(found)}"]
    return "\n".join(lines)


def interval(relative: float, low: float | None, high: float | None, form: str = "{}, {}") -> str:
    """A relative difference in percent, and the bounds that it has where those are known."""
    said = f"{relative:+.1%}"
    bounds_known = low is not None and high is not None
    return form.format(said, f"{low:+.1%} to {high:+.1%}") if bounds_known else said


def _change(figure: FigureDocument) -> str:
    if figure["relative"] is None:
        return "-"
    return interval(figure["relative"], figure["low"], figure["high"], BRACKETED)


def _knobs(knobs: list[ValueDocument]) -> Table:
    rows: Table = [("SETTING", "A", "B", "")]
    for entry in knobs:
        said = "same" if entry["same"] else "changed"
        name = FLAGS.get(entry["name"], entry["name"])
        rows.append((name, shown(entry["a"]), shown(entry["b"]), said))
    return rows


def _figures(found: DifferencesDocument) -> Table:
    level = f"B AGAINST A ({found['confidence']:.0%} INTERVAL)"
    rows: Table = [("FIGURE", "A", "B", level, "VERDICT", "NOISE", "DF")]
    for figure in found["figures"]:
        unit, digits = (" ms", 0) if figure["unit"] == "ms" else ("", 2)
        both = number(figure["a"], unit, digits), number(figure["b"], unit, digits)
        noise = "-" if figure["noise"] is None else f"{figure['noise']:.1%}"
        name, freedom = NAMES.get(figure["name"], figure["name"]), str(figure["degrees_of_freedom"])
        rows.append((name, *both, _change(figure), figure["verdict"], noise, freedom))
    return rows


def _cells(entries: list[CellDifferenceDocument]) -> Table:
    rows: Table = [(*(knob.name.upper() for knob in TABLE), "A", "B", "B AGAINST A", "VERDICT")]
    for cell in entries:
        tps = cell["tps"]
        both = number(tps["a"], "", 2), number(tps["b"], "", 2)
        rows.append((*cells(cell["knobs"]), *both, _change(tps), tps["verdict"]))
    return rows


def _judged(found: DifferencesDocument) -> str:
    smallest, starts = found.get("smallest_difference"), ""
    if smallest is not None:
        starts = f"; so is a difference in tok/s below {smallest:.1%} (autotunectl noise)"
    return (
        f"medians; a tie where the {found['confidence']:.0%} t interval of the difference covers 0, "
        f"by the noise pooled over all cells of both runs{starts}"
    )


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(short(str(entry)) for entry in value)
    return "unknown" if value is None else str(value)


def _indented(table: Table, width: int = 2) -> list[str]:
    return [" " * width + line for line in columns(table).splitlines()]


def history(document: HistoryDocument) -> Table:
    """A row a run, with its verdict in words."""
    heads = ("RUN", "BEGAN", "SYSTEM", "SERVER", "POWER", "MODEL", "SETTINGS", "TOK/S", "TTFT")
    table: Table = [(*heads, "VERDICT")]
    for each in document["history"]:
        system, server = each["os_version"], each["binary_version"]
        tps, ttft = number(each["tps_median"], "", 2), number(each["ttft_p95_ms"], " ms", 0)
        recipe = (short(each["model"]), words(each["knobs"]))
        where = (each["run_id"], local(each["at"]), system, server, each["power_source"] or "-")
        table.append((*where, *recipe, tps, ttft, _outcome(each)))
    return table


def _outcome(each: PastDocument) -> str:
    check = each["check"]
    if check is None:
        return "tuned, applied" if each["applied"] else "tuned"
    if check["difference"] is None:
        return f"check: {check['verdict']}: {check['reason'] or 'nothing to compare'}"
    low, high = check["interval"] or (None, None)
    return f"check: {check['verdict']} {interval(check['difference'], low, high, BRACKETED)}"


def verdict(found: Mapping[str, Any]) -> str | None:
    """Whether the winner stands clear, on one line: by a measurement where there is one, else by the run itself."""
    measured = found.get("measured")
    lead = (measured or found).get("lead")
    if lead is None:
        return None
    basis = "within this run" if measured is None else f"by {count(measured['pairs'], 'pair')}"
    told = interval(lead["relative"], lead["low"], lead["high"])
    return f"{WORDS[lead['verdict']]} ({told}, {basis})"


def check(document: Mapping[str, Any]) -> str:
    """What came of measuring a recipe again, on two lines."""
    verdict, difference = document["verdict"], document["difference"]
    if difference is None:
        return f"fails: {document['reason'] or 'there is nothing to compare'}"
    told = verdict if verdict == "same" else f"{verdict} by {abs(difference):.1%}"
    if document["interval"] is not None:
        told += f" ({interval(difference, *document['interval'])})"
    then, now = (number(document[name], "", 2) for name in ("tps_before", "tps_median"))
    return f"{told}\n  {now} tok/s, {then} in run {document['of_run']}"


def noise(document: Mapping[str, Any]) -> str:
    """The NOISE block of a measurement."""
    order, probes = document["order"], document["probes"]
    table: Table = [("", *(knob.name.upper() for knob in TABLE), "TOK/S")]
    for name, knobs, tps in zip(
        ("winner", "runner-up"), document["knobs"], document["tps"], strict=False
    ):
        table.append((name, *cells(knobs), number(tps, "", 2)))
    smallest = document["smallest_difference"]
    lines = [
        f"NOISE of this machine, by {count(document['pairs'], 'pair')} "
        f"of {document['of_run']}, {document['replicates']} requests a start",
        *(f"  {line}" for line in columns(table).splitlines()),
        "",
        f"  between starts    {_share(document['start_spread'])} of the mean",
        f"  between requests  {_share(document['request_spread'])} of the mean",
    ]
    if smallest is None:
        lines.append("  can tell          nothing yet: more pairs are needed")
    else:
        tps = number(document["smallest_difference_tps"], " tok/s", 2)
        lines.append(
            f"  can tell          {smallest:.1%} ({tps}) and more, at {document['confidence']:.0%}"
        )
        others = ", ".join(
            f"{entry['relative']:.1%} with {entry['replicates']}" for entry in document["tells"]
        )
        lines.append(f"  by replicates     {others}")
    lines += [
        f"  one-shot probes   {_rate(probes, 'false_fit', 'false fits')}, "
        f"{_rate(probes, 'false_reject', 'false rejects')} of {probes['count']}",
        f"  order             {order['mismatching']} of {count(order['pairs'], 'pair')} with another winner in reverse: "
        + ("THE ORDER DECIDES" if order["biased"] else "no bias"),
    ]
    if order["later"] is not None:
        later = interval(order["later"], order["later_low"], order["later_high"])
        lines.append(f"  a later start     {later}")
    said = verdict({"measured": document})
    if said is not None:
        lines += ["", f"  {said}"]
    return "\n".join(lines)


def _rate(probes: Mapping[str, Any], name: str, words: str) -> str:
    rate = probes[f"{name}_rate"]
    return f"{probes[f'{name}s']} {words}" + ("" if rate is None else f" ({rate:.0%})")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"
