"""`show` and `runs`: what runs have found."""

from __future__ import annotations

import click

from autotunectl import render
from autotunectl.arguments import json_option, run_argument
from autotunectl.output import as_text, named, present
from autotunectl.reach import Reach


@click.command()
@run_argument()
@json_option("The whole document (FR-F.2).")
@click.pass_obj
def show(reach: Reach, run: str | None, as_json: bool) -> None:
    """The recommendation of a run again.

    \b
    Example:
      autotunectl show --json
    """
    with reach.client() as client:
        document = client.call("result", **named(run))
    present(document, as_json=as_json)


@click.command()
@click.option("--limit", type=int, default=20, show_default=True)
@json_option()
@click.pass_obj
def runs(reach: Reach, limit: int, as_json: bool) -> None:
    """A table of runs, newest first.

    \b
    Example:
      autotunectl runs --limit 5
    """
    if len(reach.hosts) > 1:
        from autotunectl import fleet

        fleet.show(reach, "runs", {"limit": limit}, fleet.run_rows, as_json=as_json)
        return
    with reach.client() as client:
        found = client.call("runs", limit=limit)
    click.echo(as_text(found) if as_json else render.columns(render.runs(found["runs"])))
