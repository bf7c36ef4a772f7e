"""`apply` and `revert`: a recommendation into the provider's configuration, and back."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from autotunectl.arguments import backups, json_option, run_argument
from autotunectl.client import CALL_S
from autotunectl.output import as_text, make_live, named, warn
from autotunectl.reach import Reach
from autotunectl.text import apply as apply_text

RESTART_S = 180.0
"""Until the job has ended and is back: its grace, and the agent's own tries."""


@click.command()
@run_argument()
@click.option("--dry-run", is_flag=True, help="Print the difference and write nothing.")
@click.option("--allow-partial", is_flag=True, help="Also where not every cell was measured.")
@click.option(
    "--force", is_flag=True, help="Also where RAM, chip or the provider's version differ."
)
@click.option("--restart", is_flag=True, help="Restart the provider's job, so that it is live.")
@json_option()
@click.pass_obj
def apply(
    reach: Reach,
    run: str | None,
    dry_run: bool,
    allow_partial: bool,
    force: bool,
    restart: bool,
    as_json: bool,
) -> None:
    """Write a run's recommendation into the provider's configuration, after a backup.

    Only `model`, `kv_bits`, `max_concurrency_override` and `max_context_override` change. Exit 12
    where it is refused, with the file as it was.

    \b
    Example:
      autotunectl apply --dry-run
    """
    consent = {"dry_run": dry_run, "allow_partial": allow_partial, "force": force}
    with reach.client() as client:
        params = {**named(run), **consent, "restart": restart}
        found = client.request("apply", params, timeout_s=RESTART_S if restart else CALL_S)
    if as_json:
        click.echo(as_text(found))
        return
    warn(found["warnings"])
    if dry_run:
        _show_difference(found)
        return
    click.echo(apply_text.applied(found["recipe"], found))
    make_live(found["hint"])
    if found["restarted"]:
        click.echo("the live provider has been restarted: it is live", err=True)


@click.command()
@click.argument("backup", required=False, shell_complete=backups)
@json_option()
@click.pass_obj
def revert(reach: Reach, backup: str | None, as_json: bool) -> None:
    """Put the newest backup of the configuration back, or the named one; what it replaces is backed up too.

    BACKUP is the name of a file beside the configuration. Exit 12 where there is none such.

    \b
    Example:
      autotunectl revert
    """
    with reach.client() as client:
        found = client.call("revert", **({} if backup is None else {"backup": backup}))
    if as_json:
        click.echo(as_text(found))
        return
    click.echo(apply_text.reverted(found))
    make_live(found["hint"])


def _show_difference(found: dict[str, Any]) -> None:
    if not found["changed"]:
        click.echo(f"{found['config_path']} has this recipe already: nothing to do", err=True)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in found["diff"].splitlines():
        click.echo(click.style(line, fg=apply_text.colour(line)) if coloured else line)
