"""`models` and `pull`: the weights on this machine, and bringing more of them in ahead of a run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from autotunectl.arguments import PROVIDER_OPTION, json_option
from autotunectl.arguments import model as model_or_path
from autotunectl.client import Client
from autotunectl.output import as_text, complain, fail, given, show_answer
from autotunectl.reach import Reach
from autotunectl.text import layout
from autotunectl.text import weights as text
from autotuned.shared import failures, wire

if TYPE_CHECKING:
    from autotuned.documents.weights import PullDocument

STEP_S = 1.0


@click.command()
@json_option()
@click.pass_obj
def models(reach: Reach, as_json: bool) -> None:
    """The models in the local cache: size, whole or not, and whether this memory holds them.

    \b
    Example:
      autotunectl models --json
    """
    found = reach.call("models")
    click.echo(as_text(found) if as_json else text.models(found, layout.width()))


@click.command()
@click.argument("model", required=False)
@click.option("--verify", is_flag=True, help="Read all again, whatever was checked before.")
@click.option(
    "--no-fit-check", is_flag=True, help="Fetch also what is larger than this machine's memory."
)
@PROVIDER_OPTION
@click.option("--no-wait", is_flag=True, help="Return at once; the agent goes on.")
@click.option("--cancel", is_flag=True, help="End the pull in progress.")
@json_option()
@click.pass_obj
def pull(
    reach: Reach,
    model: str | None,
    verify: bool,
    no_fit_check: bool,
    provider: str | None,
    no_wait: bool,
    cancel: bool,
    as_json: bool,
) -> None:
    """Bring MODEL's weights into the cache and check them, before a run needs them.

    Goes on when this terminal is closed; the same command joins it again. Ctrl-C ends it, and what is
    here already is used by the next pull. GGUF models as REPO or REPO:QUANT.

    \b
    Exits 0 when the weights are here and whole, 3 when they cannot be had or do not fit, 8 when they
    are not what the hub says.

    \b
    Example:
      autotunectl pull mlx-community/Llama-3.2-1B-Instruct-4bit
    """
    with reach.client() as client:
        if cancel:
            _end(client.call("pull.cancel"), as_json=as_json)
        if not model:
            fail("no MODEL is named", 2, "autotunectl pull --help")
        begun = client.call(
            "pull",
            model=model_or_path(model),
            verify=verify,
            static_fit_check=not no_fit_check,
            **given(provider=provider),
        )
        if no_wait:
            show_answer(begun, begun["pull_id"], as_json=as_json)
            return
        try:
            ended = _follow(client, begun)
        except KeyboardInterrupt:
            click.echo("cancelling", err=True)
            with reach.client() as other:  # the first one is in the middle of an answer
                other.call("pull.cancel", pull_id=begun["pull_id"])
            sys.exit(wire.EXIT_INTERRUPTED_HERE)
    _end(ended, as_json=as_json)


def _follow(client: Client, pull: PullDocument) -> PullDocument:
    """Show the progress until the pull has ended: in place on a terminal, else a line each ten percent."""
    live, shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb", -1
    while pull["state"] == "running":
        pull = client.call("pull.wait", pull_id=pull["pull_id"], timeout_s=STEP_S)
        line, progress = layout.transfer(pull["progress"]), pull["progress"]
        if line is None or progress is None:
            continue
        tenth = 10 * progress["bytes"] // max(1, progress["total"])
        if live:
            room = (layout.width(sys.stderr) or len(line) + 1) - 1
            click.echo(f"\r\x1b[K{line[:room]}", err=True, nl=False)
        elif tenth != shown:
            shown = tenth
            click.echo(line, err=True)
    if live:
        click.echo("\r\x1b[K", err=True, nl=False)
    return pull


def _end(pull: PullDocument, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(as_text(pull))
    elif pull["outcome"] == "ok":
        click.echo(
            f"{pull['model']}: {layout.size(pull['weights_bytes'])}, checked, at {pull['path']}"
        )
    if pull["outcome"] == "ok":
        sys.exit(0)
    failure = failures.find("pull", {"reason": pull["outcome"]})
    reason, hint = str(pull["reason"]), failure.hint.replace("MODEL", pull["model"])
    if pull["outcome"] == "transient":
        reason = reason.partition(f"{pull['model']}: ")[2] or reason
        hint = hint if pull["progress"] else ""  # else there is nothing to go on with
    complain(f"{pull['model']}: {reason}", hint or None)
    sys.exit(failure.exit_code)
