"""`rpc`, `dial-stdio`, `metrics`, `completion` and `demo`: for programs, shells and the curious."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import click

from autotunectl.client import Client, ClientError, Unreachable
from autotunectl.completion import METHODS, files, words
from autotunectl.output import as_text, fail, write_file
from autotunectl.reach import Reach, command


@command(
    "autotunectl rpc runs '{\"limit\": 1}'",
    json="A refusal, too, as a JSON document on stdout.",
)
@click.argument("method", shell_complete=words(*METHODS))
@click.argument("params", required=False, default="{}")
def rpc(reach: Reach, method: str, params: str) -> None:
    """One raw call of the control socket."""
    try:
        content = json.loads(params)
    except ValueError as error:
        fail(f"PARAMS is not JSON: {error}", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    if not isinstance(content, dict):
        fail("PARAMS is not a JSON object", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    with reach.client() as client:
        click.echo(as_text(client.request(method, content)))


@command(
    """printf '%s\\n' '{"jsonrpc":"2.0","id":1,"method":"status"}' | autotunectl dial-stdio""",
    json=None,
)
def dial_stdio(reach: Reach) -> None:
    """Join stdin and stdout to the agent's socket: the far end of --host ssh://..."""
    from autotunectl import dial

    reach.only_here()
    with reach.client() as client:
        dial.join(client.take_over())


@command('eval "$(autotunectl completion zsh)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(reach: Reach, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from autotunectl.cli import main

    found = get_completion_class(shell)
    if found is not None:
        script = found(main, {}, "autotunectl", "_AUTOTUNECTL_COMPLETE").source()
        click.echo(as_text({"shell": shell, "script": script}) if reach.as_json else script)


@command("autotunectl demo --report demo.html")
@click.option(
    "--report", metavar="FILE", shell_complete=files, help="Also write the report as one HTML file."
)
def demo(reach: Reach, report: str | None) -> None:
    """Tune small models with a real server on this machine, in a minute or two."""
    from autotunectl.demo import run_demo

    sys.exit(run_demo(json_output=reach.as_json, report=report))


@command("autotunectl metrics --output /var/lib/node_exporter/autotuned.prom")
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write there, whole or not at all, instead of to stdout.",
)
def metrics(reach: Reach, output: str | None) -> None:
    """The last run's figures, staleness, lease and schedule in Prometheus text format.

    Starts no agent: where none answers, autotuned_up is 0 and that is all.
    """
    from autotunectl.text import metrics as metrics_text

    status: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    with contextlib.suppress(Unreachable), reach.again() as client:
        status = client.call("status")
        best = _last_good(client)
    samples = metrics_text.samples(status, best)
    text = metrics_text.text(samples)
    if reach.as_json:
        click.echo(as_text({"metrics": samples, "output": output}))
    elif output is None:
        click.echo(text)
    if output is not None:
        try:
            write_file(output, text + "\n")
        except OSError as error:
            fail(f"--output: {output}: {error.strerror}", 2, "name a file in a folder that exists")


def _last_good(client: Client) -> dict[str, Any] | None:
    """The newest result with a whole recommendation."""
    with contextlib.suppress(ClientError):
        good = client.call("runs", limit=1, good=True)["runs"]
        return client.call("result", run_id=good[0]["run_id"]) if good else None
    return None
