"""`metrics`: the agent's state for Prometheus."""

from __future__ import annotations

from typing import Any

import click

from autotunectl.arguments import json_option
from autotunectl.client import Client, ClientError, Unreachable
from autotunectl.output import as_text, fail, write_file
from autotunectl.reach import Reach
from autotunectl.text import metrics as metrics_text


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
