"""The flags of a request, each with the request's field of the same name; values are judged by the agent."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import click


def _csv(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return (
        None
        if value is None
        else [word.strip() for word in value.split(",")]
        if value.strip()
        else []
    )


def _models(ctx: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    """Paths are of the folder in which the command is typed; the agent's is another one."""
    words = _csv(ctx, option, value)
    return (
        None
        if words is None
        else [
            os.path.abspath(os.path.expanduser(word))  # noqa: PTH100, PTH111 - words, not files
            if word.startswith(("./", "../", "~/"))
            else word
            for word in words
        ]
    )


def _csv_int(ctx: click.Context, option: click.Parameter, value: str | None) -> list[Any] | None:
    words = _csv(ctx, option, value)
    return (
        None
        if words is None
        else [None if word == "unset" else INTEGER.convert(word, None, ctx) for word in words]
    )


class _Number(click.ParamType[int | float | str]):
    """A number; as words where JSON cannot carry it, for the agent then says which rule it breaks.

    Without a `param` it is one of an axis, and anything that is no number is left to the agent as well.
    """

    def __init__(self, kind: type[int] | type[float], name: str) -> None:
        self._kind, self.name = kind, name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | str:
        try:
            number = self._kind(value)
        except ValueError:
            if param is None:
                return str(value)
            self.fail(f"{value!r} is not a valid {self.name}", param, ctx)
        carried = math.isfinite(number) if self._kind is float else abs(number) <= JSON_INTEGER_MAX
        return number if carried else str(value)


JSON_INTEGER_MAX = 2**53
INTEGER = _Number(int, "integer")
FLOAT = _Number(float, "float")


SEARCH_OPTIONS = [
    click.option(
        "--target-context",
        type=INTEGER,
        help="Tokens of prompt and answer to serve.  [default: 2000]",
    ),
    click.option(
        "--candidate-models",
        callback=_models,
        metavar="CSV",
        help="Models, largest first; the order is the contract.",
    ),
    click.option("--max-model-size", metavar="SIZE", help="Trim the default list, e.g. 16B."),
    click.option("--min-model-size", metavar="SIZE", help="Trim the default list, e.g. 3B."),
    click.option(
        "--kv-bits-axis",
        callback=_csv_int,
        metavar="CSV",
        help="Of 4, 8, unset.  [default: unset,4,8]",
    ),
    click.option("--max-batch-axis", callback=_csv_int, metavar="CSV", help="[default: 1,2]"),
    click.option(
        "--max-context-axis", callback=_csv_int, metavar="CSV", help="[default: the target context]"
    ),
    click.option("--stage1-replicates", type=INTEGER, help="Requests a candidate.  [default: 1]"),
    click.option("--stage2-replicates", type=INTEGER, help="Requests a cell.  [default: 3]"),
    click.option(
        "--replicates",
        metavar="MODE",
        help="fixed, or auto: stop a cell that cannot win, ask a tie again.  [default: fixed]",
    ),
    click.option(
        "--gate-ttft-ms", type=INTEGER, help="Longest p95 to the first token.  [default: 60000]"
    ),
    click.option("--tps-tie-epsilon", type=FLOAT, help="Relative width of a tie.  [default: 0.02]"),
    click.option(
        "--max-duration",
        type=FLOAT,
        metavar="SECONDS",
        help="Budget of the whole run.  [default: 7200]",
    ),
    click.option("--drain-grace", type=FLOAT, metavar="SECONDS", help="[default: 30]"),
    click.option("--port", type=INTEGER, help="Where candidates listen.  [default: 18080]"),
    click.option("--retain-runs", type=INTEGER, help="Runs to keep.  [default: 50]"),
    click.option("--cell-order", metavar="ORDER", help="axis, reverse or random.  [default: axis]"),
    click.option(
        "--cooldown-s", type=FLOAT, metavar="SECONDS", help="Pause before each cell.  [default: 0]"
    ),
    click.option(
        "--seed", type=INTEGER, help="Of a random order of the cells.  [default: a new one]"
    ),
    click.option(
        "--thermal-gate/--no-thermal-gate",
        default=None,
        help="Wait before each cell until the machine has cooled down.  [default: off]",
    ),
    click.option(
        "--static-fit-check/--no-static-fit-check",
        default=None,
        help="Fetch no weights that are larger than the memory.  [default: on]",
    ),
    click.option("--provider", metavar="KIND", help="auto, macprovider, mlx-lm or llama-server."),
]
"""What is searched, and how."""

START_OPTIONS = [
    click.option(
        "--verify",
        is_flag=True,
        default=None,
        help="Read all weights again, whatever was checked before.",
    ),
    click.option(
        "--resume",
        metavar="[RUN]",
        is_flag=False,
        flag_value="latest",
        help="Go on with a run that was cut off, by default the latest.",
    ),
    click.option(
        "--drain",
        is_flag=True,
        default=None,
        help="Stop a live provider for the run, and bring it back after.",
    ),
    click.option(
        "--restart-foreground",
        is_flag=True,
        default=None,
        help="Start a drained foreground process again at the end.",
    ),
]
"""What belongs to one start by hand, and not to a request that is kept."""


def request_options(*groups: list[Callable[..., Any]]) -> Callable[..., Any]:
    """The decorator that gives a command these groups of options, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate
