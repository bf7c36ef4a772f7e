"""The live provider: what is owed to it (`provider`), and its configuration (`apply`, `revert`)."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from autotunectl.arguments import APPLY_OPTIONS, request_options, run_argument
from autotunectl.client import CALL_S, Client, NoAnswer, Unreachable
from autotunectl.completion import backups
from autotunectl.output import answer, as_text, given, make_live, warn
from autotunectl.reach import Reach, command, group
from autotunectl.text import provider as text
from autotuned.shared import wire

RESTART_S = 180.0
"""Until the job has ended and is back: its grace, and the agent's own tries."""
RESTORE_S = 240.0
"""A restore retries and verifies; the agent answers when it has come to an end."""
restart_option = click.option(
    "--restart", is_flag=True, help="Restart the provider's job, so that it is live."
)


@command("autotunectl apply --dry-run")
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
@restart_option
def apply(reach: Reach, /, run: str | None, **consent: bool | None) -> None:
    """Write a run's recommendation into what the live server reads, after a backup.

    That is macprovider's configuration, or what [apply] kind of autotuned.toml names. In the former only `model`, `kv_bits`, `max_concurrency_override` and `max_context_override` change, and what
    says who chose them. Exit 12 where it is refused, with the file as it was.
    """
    found = _written(reach, "apply", given(run_id=run, **consent))
    if reach.as_json:
        return
    if consent["dry_run"]:
        _show_difference(found)
        return
    click.echo(text.applied(found["recipe"], found))
    make_live(found["hint"])
    if found["restarted"]:
        held = found.get("in_effect")
        seen = "the recipe is not in effect" if held is False else "it is in effect"
        _say_restarted(seen if held is not None else "it is live")


@command("autotunectl revert")
@click.argument("backup", required=False, shell_complete=backups)
@click.option("--whole", is_flag=True, help="Put the whole file back, not the keys of apply alone.")
@restart_option
def revert(reach: Reach, backup: str | None, whole: bool, restart: bool) -> None:
    """Put the keys of apply back as the newest backup has them, or the named one; what is replaced is backed up too.

    Every other line stays, with what was changed there since. BACKUP is the name of a file beside
    the configuration. Exit 12 where there is none such.
    """
    found = _written(reach, "revert", given(backup=backup, whole=whole, restart=restart))
    if reach.as_json:
        return
    click.echo(text.reverted(found))
    make_live(found["hint"])
    if found["restarted"]:
        _say_restarted("it is live")


def _written(reach: Reach, method: str, params: dict[str, object]) -> dict[str, Any]:
    """Have the configuration changed; the answer, which is printed where it is wanted as JSON."""
    with reach.client() as client:
        timeout_s = RESTART_S if params["restart"] else CALL_S
        found: dict[str, Any] = client.request(method, params, timeout_s=timeout_s)
    if reach.as_json:
        click.echo(as_text(found))
    else:
        warn(found["warnings"])
    return found


def _say_restarted(seen: str) -> None:
    click.echo(f"the live provider has been restarted: {seen}", err=True)


def _show_difference(found: dict[str, Any]) -> None:
    if not found["changed"]:
        click.echo(text.already(found), err=True)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in found["diff"].splitlines():
        click.echo(click.style(line, fg=text.colour(line)) if coloured else line)


# --- what is owed: without the agent from its journal alone, this is the glass to break -----------------


@group("autotunectl provider status")
def provider(_: Reach) -> None:
    """The live provider, and what is owed to it.

    Exit 0: nothing is owed, 13: a restore is outstanding.
    """


@command("autotunectl provider status", of=provider)
def provider_status(reach: Reach) -> None:
    """The live provider and the lease; works without the agent."""
    found = _ask(reach, "status")
    told = {"live_provider": found["live_provider"], "lease": found["lease"]}
    answer(reach, told, text.lines(found))
    sys.exit(wire.EXIT_RESTORE_OUTSTANDING if text.owed(found) else 0)


@command("autotunectl provider restore", of=provider)
def provider_restore(reach: Reach) -> None:
    """Bring a drained live provider back now; works without the agent and without its database."""
    before = _ask(reach, "restore")
    if before["lease"] is not None and not text.owed(before):
        message = f"run {before['lease']['run_id']} has drained it, and restores it at its end"
        answer(reach, before["lease"], f"{message}: autotunectl cancel")
        sys.exit(wire.EXIT_RESTORE_OUTSTANDING)
    with _client(reach) as client:
        found = client.request("provider.restore", {}, timeout_s=RESTORE_S)
    if reach.as_json:
        click.echo(as_text(found))
    elif found["restored"]:
        click.echo(
            "restored" if before["lease"] else "nothing is owed: no live provider is drained"
        )
    else:
        click.echo(f"NOT RESTORED: {found['lease']['reason'] or found['lease']['state']}", err=True)
        click.echo(
            "hint: mend that; the agent goes on trying. Gone for good: autotunectl provider forget",
            err=True,
        )
    sys.exit(0 if found["restored"] else wire.EXIT_RESTORE_OUTSTANDING)


@command("autotunectl provider forget --yes", of=provider)
@click.option("--yes", is_flag=True, help="Drop it; without this only what a restore would do.")
def provider_forget(reach: Reach, yes: bool) -> None:
    """Drop what is owed to a live provider that cannot be brought back, so that runs can start again."""
    _ask(reach, "forget", *(["--yes"] if yes else []))
    with _client(reach) as client:
        found = client.request("provider.forget", {"yes": yes}, timeout_s=RESTORE_S)
    answer(reach, found, text.forgotten)
    sys.exit(wire.EXIT_RESTORE_OUTSTANDING if found["lease"] else 0)


def _client(reach: Reach) -> Client:
    return reach.client() if reach.hosts else Client(reach.socket, connect_s=0.0)


def _ask(reach: Reach, *words: str) -> dict[str, Any]:
    """The agent's status; where this machine's agent is dead or does not answer, `words` are done without it."""
    try:
        with _client(reach) as client:
            return dict(client.request("status", {}, timeout_s=10.0))
    except (Unreachable, NoAnswer):
        if reach.hosts:
            raise
        _break_glass(*words, *(["--json"] if reach.as_json else []))


def _break_glass(*words: str) -> NoReturn:
    """Do it in a program of its own that needs nothing but the journal."""
    import subprocess

    click.echo("the agent does not answer: asking its journal", err=True)
    sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "autotuned.host.restore.break_glass", *words], check=False
    )
    sys.exit(done.returncode)
