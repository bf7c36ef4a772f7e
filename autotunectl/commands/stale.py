"""`check-stale`: whether the last good recipe is still this machine's."""

from __future__ import annotations

import sys

import click

from autotunectl.arguments import json_option
from autotunectl.output import as_text, say
from autotunectl.reach import Reach
from autotunectl.text import result
from autotuned.shared import wire


@click.command("check-stale")
@json_option()
@click.pass_obj
def check_stale(reach: Reach, as_json: bool) -> None:
    """Whether the last good recipe is still this machine's, and what has changed.

    Exit 0: fresh, 20: stale, 21: never tuned.

    \b
    Example:
      autotunectl check-stale || autotunectl start --wait
    """
    with reach.client() as client:
        found = client.call("stale")
    click.echo(as_text(found)) if as_json else say(result.staleness(found))
    if found["never_tuned"]:
        sys.exit(wire.EXIT_NEVER_TUNED)
    sys.exit(wire.EXIT_STALE if found["stale"] else 0)
