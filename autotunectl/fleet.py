"""Several machines at once: one call to each, side by side, and one table or document of their answers.

For a handful of machines; a fleet with an inventory is better served by its own tools.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from autotunectl.client import CallError, ClientError
from autotunectl.output import as_text, complain, refusal
from autotunectl.reach import Reach
from autotunectl.text import layout, result
from autotuned.shared import failures

Rows = list[dict[str, str]]
"""Cells by the name of their column; every row of a table has the same columns."""


def show(
    reach: Reach,
    method: str,
    params: Mapping[str, Any],
    rows: Callable[[Any], Rows],
    *,
    as_json: bool,
) -> None:
    """Call `method` on every host and print what came; exits with the highest code of those that failed."""
    answers = reach.everywhere(lambda client: client.request(method, params))
    if as_json:
        click.echo(as_text({host: _document(answer) for host, answer in answers}))
    else:
        table = [
            (host, row)
            for host, answer in answers
            if not isinstance(answer, ClientError)
            for row in rows(answer)
        ]
        if table:
            heading = ("HOST", *table[0][1])
            rows_shown = [heading, *((host, *row.values()) for host, row in table)]
            click.echo(layout.columns(rows_shown, layout.width()))
    codes = [0]
    for host, answer in answers:
        if isinstance(answer, ClientError):
            remedy = answer.remedy
            if isinstance(answer, CallError):
                remedy = failures.hint(answer.kind, answer.data, method)
            complain(_named(host, answer), remedy)
            codes.append(answer.exit_code)
    sys.exit(max(codes))


def status_row(found: Mapping[str, Any]) -> Rows:
    """What a machine does, on one line."""
    run = found["run"]
    best = (run or {}).get("best") or {}
    ended = "-" if run is None else run.get("exit_reason") or run["phase"]
    return [
        {
            "RUN": "-" if run is None else run["run_id"],
            "STATE": ended,
            "MODEL": layout.short(best.get("model") or "-"),
            "TOK/S": layout.number(best.get("tps_median"), "", 2),
        }
    ]


def run_rows(found: Mapping[str, Any]) -> Rows:
    """The table of runs of one machine."""
    heading, *rows = result.runs(found["runs"])
    return [dict(zip(heading, row, strict=True)) for row in rows]


def started_row(found: Mapping[str, Any]) -> Rows:
    """The run that a machine has begun."""
    return [{"RUN": found["run_id"], "STATE": found["state"]}]


def _named(host: str, error: ClientError) -> str:
    """What went wrong, and where; ssh's own troubles name the host already."""
    return str(error) if str(error).startswith(host) else f"{host}: {error}"


def _document(answer: Any) -> Any:
    return {"error": refusal(answer)} if isinstance(answer, ClientError) else answer
