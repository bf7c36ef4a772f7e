"""The machine's noise as text for people: plain strings, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotunectl.text.layout import Table, columns, count, number
from autotuned.shared.knobs import TABLE, cells

WORDS = {
    "clear": "the winner stands clear of its runner-up",
    "tie": "a tie: noise explains the difference",
    "runner-up is faster": "the runner-up is the faster one",
    "cannot tell": "too few figures to tell the winner from its runner-up",
}


def verdict(noise: Mapping[str, Any]) -> str | None:
    """Whether the winner stands clear, on one line: by a measurement where there is one, else by the run itself."""
    measured = noise.get("measured")
    lead = (measured or noise).get("lead")
    if lead is None:
        return None
    basis = "within this run" if measured is None else f"by {count(measured['pairs'], 'pair')}"
    return f"{WORDS[lead['verdict']]} ({_interval(lead)}, {basis})"


def checked(document: Mapping[str, Any]) -> str:
    """What came of measuring a recipe again, on two lines."""
    verdict, difference = document["verdict"], document["difference"]
    if difference is None:
        return f"fails: {document['reason'] or 'there is nothing to compare'}"
    told = verdict if verdict == "same" else f"{verdict} by {abs(difference):.1%}"
    if document["interval"] is not None:
        low, high = document["interval"]
        told += f" ({difference:+.1%}, {low:+.1%} to {high:+.1%})"
    then, now = (number(document[name], "", 2) for name in ("tps_before", "tps_median"))
    return f"{told}\n  {now} tok/s, {then} in run {document['of_run']}"


def measured(document: Mapping[str, Any]) -> str:
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
        later = {"relative": order["later"], "low": order["later_low"], "high": order["later_high"]}
        lines.append(f"  a later start     {_interval(later)}")
    said = verdict({"measured": document})
    if said is not None:
        lines += ["", f"  {said}"]
    return "\n".join(lines)


def _interval(part: Mapping[str, Any]) -> str:
    said = f"{part['relative']:+.1%}"
    return said if part["low"] is None else f"{said}, {part['low']:+.1%} to {part['high']:+.1%}"


def _rate(probes: Mapping[str, Any], name: str, words: str) -> str:
    rate = probes[f"{name}_rate"]
    return f"{probes[f'{name}s']} {words}" + ("" if rate is None else f" ({rate:.0%})")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"
