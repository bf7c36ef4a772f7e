"""`quarantine`: configurations that took the machine down, and are not started again."""

from __future__ import annotations

from typing import Any

import click

from autotunectl.arguments import json_option
from autotunectl.output import as_text
from autotunectl.reach import Reach
from autotunectl.text import layout
from autotunectl.text.layout import count, local, short
from autotuned.shared import knobs


@click.group(invoke_without_command=True)
@json_option()
@click.pass_context
def quarantine(ctx: click.Context, as_json: bool) -> None:
    """Configurations that took the machine down; they are not started again.

    A smaller context of the same settings is still tried, and another version of the server lifts an entry.
    `start --ignore-quarantine` tries all of them once more.

    \b
    Example:
      autotunectl quarantine
    """
    if ctx.invoked_subcommand is not None:
        return
    reach: Reach = ctx.obj
    with reach.client() as client:
        found = client.call("quarantine")
    if as_json:
        click.echo(as_text(found))
    elif not found["entries"]:
        click.echo("no configuration has taken the machine down")
    else:
        click.echo(layout.columns(_table(found["entries"]), layout.width()))


@quarantine.command("clear")
@click.argument("entry", type=int, required=False)
@json_option()
@click.pass_obj
def clear(reach: Reach, entry: int | None, as_json: bool) -> None:
    """Let ENTRY be started again; all of them without one.

    \b
    Example:
      autotunectl quarantine clear 2
    """
    with reach.client() as client:
        found = client.call("quarantine.clear", **({} if entry is None else {"entry": entry}))
    if as_json:
        click.echo(as_text(found))
    else:
        click.echo(f"cleared: {count(len(found['cleared']), 'configuration')}")


def _table(entries: list[dict[str, Any]]) -> layout.Table:
    table: layout.Table = [("ENTRY", "WENT DOWN", "MODEL", "SETTINGS", "CONTEXT", "SERVER")]
    for entry in entries:
        settings = "defaults" if entry["knobs"] is None else knobs.words(entry["knobs"])
        server = f"{entry['provider']} {entry['binary_version']}"
        context, at = str(entry["target_context"]), local(entry["at"])
        table.append((str(entry["entry"]), at, short(entry["model"]), settings, context, server))
    return table
