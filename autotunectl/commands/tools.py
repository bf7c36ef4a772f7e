"""`rpc`, `dial-stdio`, `metrics`, `completion` and `demo`: for programs, shells and the curious."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from autotunectl.arguments import json_option
from autotunectl.client import Client, ClientError, Unreachable
from autotunectl.completion import METHODS, files, words
from autotunectl.output import as_text, fail, write_file
from autotunectl.reach import Reach


@click.command()
@click.argument("method", shell_complete=words(*METHODS))
@click.argument("params", required=False, default="{}")
@json_option("A refusal, too, as a JSON document on stdout.")
@click.pass_obj
def rpc(reach: Reach, method: str, params: str, as_json: bool) -> None:  # noqa: ARG001 - its answer is JSON anyway
    """One raw call of the control socket.

    \b
    Example:
      autotunectl rpc runs '{"limit": 1}'
    """
    try:
        content = json.loads(params)
    except ValueError as error:
        fail(f"PARAMS is not JSON: {error}", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    if not isinstance(content, dict):
        fail("PARAMS is not a JSON object", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    with reach.client() as client:
        click.echo(as_text(client.request(method, content)))


@click.command("dial-stdio")
@click.pass_obj
def dial_stdio(reach: Reach) -> None:
    """Join stdin and stdout to the agent's socket: the far end of --host ssh://...

    \b
    Example:
      printf '%s\\n' '{"jsonrpc":"2.0","id":1,"method":"status"}' | autotunectl dial-stdio
    """
    from autotunectl import dial

    reach.here()
    with reach.client() as client:
        dial.join(client.take_over())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option()
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      eval "$(autotunectl completion zsh)"
    """
    from click.shell_completion import get_completion_class

    from autotunectl.cli import main

    found = get_completion_class(shell)
    if found is not None:
        script = found(main, {}, "autotunectl", "_AUTOTUNECTL_COMPLETE").source()
        click.echo(as_text({"shell": shell, "script": script}) if as_json else script)


@click.command()
@json_option()
@click.option(
    "--report", metavar="FILE", shell_complete=files, help="Also write the report as one HTML file."
)
def demo(as_json: bool, report: str | None) -> None:
    """Tune small models with a real server on this machine, in a minute or two.

    \b
    Example:
      autotunectl demo --report demo.html
    """
    from autotunectl.demo import run_demo

    sys.exit(run_demo(json_output=as_json, report=report))


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write there, whole or not at all, instead of to stdout.",
)
@json_option()
@click.pass_obj
def metrics(reach: Reach, output: str | None, as_json: bool) -> None:
    """The last run's figures, staleness, lease and schedule in Prometheus text format.

    Starts no agent: where none answers, autotuned_up is 0 and that is all.

    \b
    Example:
      autotunectl metrics --output /var/lib/node_exporter/autotuned.prom
    """
    from autotunectl.text import metrics as metrics_text

    status: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    try:
        with reach.again() as client:
            status = client.call("status")
            best = _last_good(client)
    except Unreachable:
        status = None
    text = metrics_text.text(status, best)
    if as_json:
        click.echo(as_text({"metrics": metrics_text.samples(status, best), "output": output}))
    if output is None:
        if not as_json:
            click.echo(text)
        return
    try:
        write_file(output, text + "\n")
    except OSError as error:
        fail(f"--output: {output}: {error.strerror}", 2, "name a file in a folder that exists")


def _last_good(client: Client) -> dict[str, Any] | None:
    """The newest result with a whole recommendation."""
    try:
        good = client.call("runs", limit=1, good=True)["runs"]
        return client.call("result", run_id=good[0]["run_id"]) if good else None
    except ClientError:
        return None
