"""`servers`, `servers show`, `servers check` and `serve`: the serving programs that are described."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from autotunectl.arguments import json_option, run_argument
from autotunectl.arguments import model as model_or_path
from autotunectl.completion import PROVIDERS, words
from autotunectl.output import as_text, fail, given
from autotunectl.reach import Reach
from autotunectl.text import layout
from autotunectl.text import servers as text
from autotuned.shared import wire

if TYPE_CHECKING:
    from autotuned.documents.servers import ServeDocument

CHECK_S = 3600.0
"""Longer than any load, and than the request after it."""
NAME = click.argument("name", shell_complete=words(*PROVIDERS[1:]))


@click.group(invoke_without_command=True)
@json_option()
@click.pass_context
def servers(ctx: click.Context, as_json: bool) -> None:
    """The serving programs that can be tuned: where each comes from, its version and its knobs.

    Your own stand in autotuned.toml as [servers.NAME]; docs/servers.md says how.

    \b
    Example:
      autotunectl servers
    """
    if ctx.invoked_subcommand is not None:
        return
    reach: Reach = ctx.obj
    found = reach.call("servers")
    click.echo(as_text(found) if as_json else text.table(found, layout.width()))


@servers.command("show")
@NAME
@json_option()
@click.pass_obj
def servers_show(reach: Reach, name: str, as_json: bool) -> None:
    """The description of NAME as autotuned.toml would have it, each knob with its help.

    \b
    Example:
      autotunectl servers show llama-server
    """
    found = reach.call("servers.show", name=name)
    click.echo(as_text(found) if as_json else found["toml"], nl=as_json)


@servers.command("check")
@NAME
@click.option("--model", metavar="MODEL", help="With this one; else the smallest of its list.")
@click.option("--port", type=int, help="Where it listens.  [default: 18080]")
@json_option()
@click.pass_obj
def servers_check(
    reach: Reach, name: str, model: str | None, port: int | None, as_json: bool
) -> None:
    """Start NAME once with a model, and tell what it does: ready, stream, usage, cache, stop.

    Exits 0 where it works, 3 where it does not.

    \b
    Example:
      autotunectl servers check llama-server --model ~/models/small.gguf
    """
    with reach.client() as client:
        chosen = {"model": model and model_or_path(model), "port": port}
        found = client.request("servers.check", {"name": name, **chosen}, timeout_s=CHECK_S)
    click.echo(as_text(found) if as_json else text.check(found))
    sys.exit(0 if found["reason"] is None else wire.EXIT_CODES["no_feasible"])


@click.command()
@run_argument()
@click.option("--print", "only_print", is_flag=True, help="Print the command line instead.")
@json_option("The command line as a document; nothing is started.")
@click.pass_obj
def serve(reach: Reach, run: str | None, only_print: bool, as_json: bool) -> None:
    """Serve the recipe of RUN here, in the foreground; of the newest run without one.

    The server takes the place of this command; Ctrl-C ends it.

    \b
    Example:
      autotunectl serve
    """
    found: ServeDocument = reach.call("serve", **given(run_id=run))
    if as_json or only_print:
        click.echo(as_text(found) if as_json else text.command(found))
        return
    argv = found["argv"]
    try:
        os.execvpe(argv[0], argv, {**os.environ, **found["env"]})  # noqa: S606
    except OSError as error:
        fail(f"{argv[0]}: {error.strerror}", 1)
