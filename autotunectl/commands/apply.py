"""`apply` and `revert`: a recommendation into the provider's configuration, and back."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from autotunectl.arguments import APPLY_OPTIONS, json_option, request_options, run_argument
from autotunectl.client import CALL_S
from autotunectl.completion import backups
from autotunectl.output import as_text, given, make_live, warn
from autotunectl.reach import Reach
from autotunectl.text import provider

RESTART_S = 180.0
"""Until the job has ended and is back: its grace, and the agent's own tries."""


@click.command()
@run_argument()
@click.option("--dry-run", is_flag=True, help="Print the difference and write nothing.")
@click.option("--allow-partial", is_flag=True, help="Also where not every cell was measured.")
@click.option(
    "--force", is_flag=True, help="Also where RAM, chip or the provider's version differ."
)
@click.option(
    "--context",
    type=int,
    metavar="TOKENS",
    help="Of a run with several target contexts: which one's recommendation.  [default: the smallest]",
)
@request_options(APPLY_OPTIONS)
@click.option("--restart", is_flag=True, help="Restart the provider's job, so that it is live.")
@json_option()
@click.pass_obj
def apply(
    reach: Reach,
    /,
    run: str | None,
    dry_run: bool,
    restart: bool,
    as_json: bool,
    **consent: bool | None,
) -> None:
    """Write a run's recommendation into what the live server reads, after a backup.

    That is macprovider's configuration, or what [apply] kind of autotuned.toml names. In the former only `model`, `kv_bits`, `max_concurrency_override` and `max_context_override` change, and what
    says who chose them. Exit 12 where it is refused, with the file as it was.

    \b
    Example:
      autotunectl apply --dry-run
    """
    params = given(run_id=run, **consent, dry_run=dry_run, restart=restart)
    with reach.client() as client:
        found = client.request("apply", params, timeout_s=RESTART_S if restart else CALL_S)
    if as_json:
        click.echo(as_text(found))
        return
    warn(found["warnings"])
    if dry_run:
        _show_difference(found)
        return
    click.echo(provider.applied(found["recipe"], found))
    make_live(found["hint"])
    if found["restarted"]:
        seen = "in effect" if found.get("in_effect") else "live"
        seen = "the recipe is not in effect" if found.get("in_effect") is False else f"it is {seen}"
        click.echo(f"the live provider has been restarted: {seen}", err=True)


@click.command()
@click.argument("backup", required=False, shell_complete=backups)
@click.option("--whole", is_flag=True, help="Put the whole file back, not the keys of apply alone.")
@click.option("--restart", is_flag=True, help="Restart the provider's job, so that it is live.")
@json_option()
@click.pass_obj
def revert(reach: Reach, backup: str | None, whole: bool, restart: bool, as_json: bool) -> None:
    """Put the keys of apply back as the newest backup has them, or the named one; what is replaced is backed up too.

    Every other line stays, with what was changed there since. BACKUP is the name of a file beside
    the configuration. Exit 12 where there is none such.

    \b
    Example:
      autotunectl revert
    """
    with reach.client() as client:
        params = given(backup=backup, whole=whole, restart=restart)
        found = client.request("revert", params, timeout_s=RESTART_S if restart else CALL_S)
    if as_json:
        click.echo(as_text(found))
        return
    warn(found["warnings"])
    click.echo(provider.reverted(found))
    make_live(found["hint"])
    if found["restarted"]:
        click.echo("the live provider has been restarted: it is live", err=True)


def _show_difference(found: dict[str, Any]) -> None:
    if not found["changed"]:
        click.echo(provider.already(found), err=True)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in found["diff"].splitlines():
        click.echo(click.style(line, fg=provider.colour(line)) if coloured else line)
