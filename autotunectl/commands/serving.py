"""What can be served here: weights (`models`, `pull`), the programs that serve them (`servers`), the recipe (`serve`)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from autotunectl.arguments import PROVIDER_OPTION, run_argument
from autotunectl.arguments import model as model_or_path
from autotunectl.client import Client
from autotunectl.completion import PROVIDERS, words
from autotunectl.output import answer, answer_table, as_text, complain, fail, given
from autotunectl.reach import Reach, command, group
from autotunectl.text import layout
from autotunectl.text import serving as text
from autotuned.shared import failures, wire

if TYPE_CHECKING:
    from autotuned.documents.servers import ServeDocument
    from autotuned.documents.weights import PullDocument

STEP_S = 1.0
CHECK_S = 3600.0
"""Longer than any load, and than the request after it."""
NAME = click.argument("name", shell_complete=words(*PROVIDERS[1:]))


@command("autotunectl models --json")
def models(reach: Reach) -> None:
    """The models in the local cache: size, whole or not, and whether this memory holds them."""
    found = reach.call("models")
    answer(reach, found, text.models(found, layout.width()))


@command("autotunectl pull mlx-community/Llama-3.2-1B-Instruct-4bit")
@click.argument("model", required=False)
@click.option("--verify", is_flag=True, help="Read all again, whatever was checked before.")
@click.option(
    "--no-fit-check", is_flag=True, help="Fetch also what is larger than this machine's memory."
)
@PROVIDER_OPTION
@click.option("--no-wait", is_flag=True, help="Return at once; the agent goes on.")
@click.option("--cancel", is_flag=True, help="End the pull in progress.")
def pull(
    reach: Reach,
    model: str | None,
    verify: bool,
    no_fit_check: bool,
    provider: str | None,
    no_wait: bool,
    cancel: bool,
) -> None:
    """Bring MODEL's weights into the cache and check them, before a run needs them.

    Goes on when this terminal is closed; the same command joins it again. Ctrl-C ends it, and what is
    here already is used by the next pull. GGUF models as REPO or REPO:QUANT.

    \b
    Exits 0 when the weights are here and whole, 3 when they cannot be had or do not fit, 8 when they
    are not what the hub says.
    """
    with reach.client() as client:
        if cancel:
            _end(reach, client.call("pull.cancel"))
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
            answer(reach, begun, begun["pull_id"])
            return
        try:
            ended = _follow(client, begun)
        except KeyboardInterrupt:
            click.echo("cancelling", err=True)
            with reach.client() as other:  # the first one is in the middle of an answer
                other.call("pull.cancel", pull_id=begun["pull_id"])
            sys.exit(wire.EXIT_INTERRUPTED_HERE)
    _end(reach, ended)


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


def _end(reach: Reach, pull: PullDocument) -> NoReturn:
    model = pull["model"]
    if reach.as_json:
        click.echo(as_text(pull))
    elif pull["outcome"] == "ok":
        click.echo(f"{model}: {layout.size(pull['weights_bytes'])}, checked, at {pull['path']}")
    if pull["outcome"] == "ok":
        sys.exit(0)
    failure = failures.find("pull", {"reason": pull["outcome"]})
    reason, hint = str(pull["reason"]), failure.hint.replace("MODEL", model)
    if pull["outcome"] == "transient":
        reason = reason.partition(f"{model}: ")[2] or reason
        hint = hint if pull["progress"] else ""  # else there is nothing to go on with
    complain(f"{model}: {reason}", hint or None)
    sys.exit(failure.exit_code)


@group("autotunectl servers", alone=True)
def servers(reach: Reach) -> None:
    """The serving programs that can be tuned: where each comes from, its version and its knobs.

    Your own stand in autotuned.toml as [servers.NAME]; docs/servers.md says how.
    """
    found = reach.call("servers")
    answer_table(reach, found, text.servers(found))


@command("autotunectl servers show llama-server", of=servers)
@NAME
def servers_show(reach: Reach, name: str) -> None:
    """The description of NAME as autotuned.toml would have it, each knob with its help."""
    found = reach.call("servers.show", name=name)
    click.echo(as_text(found) if reach.as_json else found["toml"], nl=reach.as_json)


@command("autotunectl servers check llama-server --model ~/models/small.gguf", of=servers)
@NAME
@click.option("--model", metavar="MODEL", help="With this one; else the smallest of its list.")
@click.option("--port", type=int, help="Where it listens.  [default: 18080]")
def servers_check(reach: Reach, name: str, model: str | None, port: int | None) -> None:
    """Start NAME once with a model, and tell what it does: ready, stream, usage, cache, stop.

    Exits 0 where it works, 3 where it does not.
    """
    with reach.client() as client:
        chosen = {"model": model and model_or_path(model), "port": port}
        found = client.request("servers.check", {"name": name, **chosen}, timeout_s=CHECK_S)
    answer(reach, found, text.check)
    sys.exit(0 if found["reason"] is None else wire.EXIT_CODES["no_feasible"])


@command("autotunectl serve", json="The command line as a document; nothing is started.")
@run_argument()
@click.option("--print", "only_print", is_flag=True, help="Print the command line instead.")
def serve(reach: Reach, run: str | None, only_print: bool) -> None:
    """Serve the recipe of RUN here, in the foreground; of the newest run without one.

    The server takes the place of this command; Ctrl-C ends it.
    """
    if not (reach.as_json or only_print):
        reach.only_here()  # no other machine says which program starts on this one
    found: ServeDocument = reach.call("serve", **given(run_id=run))
    if reach.as_json or only_print:
        click.echo(as_text(found) if reach.as_json else text.command(found))
        return
    argv = found["argv"]
    try:
        os.execvpe(argv[0], argv, {**os.environ, **found["env"]})  # noqa: S606
    except OSError as error:
        fail(f"{argv[0]}: {error.strerror}", 1)
