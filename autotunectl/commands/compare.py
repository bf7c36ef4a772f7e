"""`compare`: two runs set against each other."""

from __future__ import annotations

import click

from autotunectl.arguments import json_option, run_argument
from autotunectl.output import as_text, say
from autotunectl.reach import Reach
from autotunectl.text import compare as compare_text


@click.command()
@run_argument("a")
@run_argument("b")
@json_option()
@click.pass_obj
def compare(reach: Reach, a: str | None, b: str | None, as_json: bool) -> None:
    """Two runs, knob by knob and figure by figure; the last two good ones where none is named.

    Every difference is B against A, with an interval: a tie is what the noise of both runs explains.
    With A alone, B is the newest good run. Exit 11 where a run is missing.

    \b
    Example:
      autotunectl compare
    """
    sides = {name: run for name, run in (("a", a), ("b", b)) if run is not None}
    with reach.client() as client:
        found = client.call("compare", **sides)
    click.echo(as_text(found)) if as_json else say(compare_text.comparison(found))
