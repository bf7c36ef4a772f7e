"""Arguments and options that many commands share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any

import click

from autotunectl.completion import PROVIDERS, axes, run_ids, words
from autotuned.shared import paths

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

JSON_INTEGER_MAX = 2**53
PARTS = re.compile(r"(\d+(?:\.\d+)?)([dhms])")
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class Duration(click.ParamType[float | str]):
    """`90` and `90s` are seconds; `4h`, `1h30m`, `1d`. What is only a number is judged by the agent."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        text = str(value).strip().lower()
        parts = PARTS.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return _whole(sum(float(number) * UNITS[unit] for number, unit in parts))
        try:
            number = float(text)
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 90, 90s, 4h or 1h30m", param, ctx)
        # JSON carries neither inf nor nan
        return _whole(number) if abs(number) < JSON_INTEGER_MAX else str(value)


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


DURATION = Duration()


def model(word: str) -> str:
    """A model's id, or the absolute path of what exists here: the agent works in another folder."""
    return paths.resolved(word, os.environ) if _here() else word


def _here() -> bool:
    """The agent is this machine's. Of another one the paths and the home folder are its own: they go as typed."""
    reach = click.get_current_context().obj
    return reach is None or not reach.hosts


def run_argument(name: str = "run") -> Decorator:
    """The optional id of a run; the shell completes it from the agent's newest runs."""
    return click.argument(name, required=False, shell_complete=run_ids)


def csv(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    """A list with commas between its words."""
    if value is None:
        return None
    return [word.strip() for word in value.split(",")] if value.strip() else []


def _models(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> list[str] | None:
    """All the lists, one behind the other."""
    lists = [csv(ctx, option, value) or [] for value in values]
    return [model(word) for each in lists for word in each] if lists else None


def _one_or_several(_: click.Context, __: click.Parameter, values: tuple[Any, ...]) -> Any:
    """One value as it is, several as a list."""
    return list(values) if len(values) > 1 else next(iter(values), None)


def _csv_int(ctx: click.Context, option: click.Parameter, value: str | None) -> list[Any] | None:
    words = csv(ctx, option, value)
    return (
        None
        if words is None
        else [None if word == "unset" else INTEGER.convert(word, None, ctx) for word in words]
    )


def _axes(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, list[Any]] | None:
    """Names and values; an axis that is given twice has all the values of both."""
    axes: dict[str, list[Any]] = {}
    for value in values:
        name, _equals, listed = value.partition("=")
        worth = [_worth(word.strip()) for word in listed.split(",")] if listed.strip() else []
        axes.setdefault(name.strip(), []).extend(worth)
    return axes or None


def _worth(word: str) -> int | float | str | bool | None:
    """A value as JSON has it."""
    constants = {"unset": None, "true": True, "false": False}
    if word in constants:
        return constants[word]
    whole = word.lstrip("+-").isdigit()
    worth = (INTEGER if whole else FLOAT).convert(word, None, None)
    if isinstance(worth, str) and _here() and paths.names_file(worth):
        return paths.expanded(worth, os.environ)
    return worth


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


INTEGER = _Number(int, "integer")
FLOAT = _Number(float, "float")


def flag(name: str, text: str) -> Decorator:
    """A flag that is no wish where it is left out; `--a/--no-a` for one that can be refused, too."""
    return click.option(name, is_flag=True, default=None, help=text)


def duration(name: str, text: str, field: str | None = None) -> Decorator:
    """An option that is a time; `field` is the parameter's name where that is another one."""
    names = [name] if field is None else [name, field]
    return click.option(*names, type=DURATION, metavar="SECONDS|4h|1h30m", help=text)


def choice(name: str, metavar: str, known: str, text: str) -> Decorator:
    """An option for one of these words, or for another one that only the agent knows."""
    return click.option(name, metavar=metavar, shell_complete=words(*known.split()), help=text)


def _number(name: str, text: str, kind: _Number = INTEGER) -> Decorator:
    return click.option(name, type=kind, help=text)


def _axis(name: str, known: str, text: str) -> Decorator:
    complete = words(*known.split(), several=True)
    return click.option(name, callback=_csv_int, metavar="CSV", shell_complete=complete, help=text)


PROVIDER_OPTION = choice(
    "--provider",
    "NAME",
    " ".join(PROVIDERS),
    "The serving program: auto, or one that `autotunectl servers` lists.",
)
MAX_DURATION_OPTION = duration("--max-duration", "Time for the whole run.  [default: 2h]")
PORT_OPTION = _number("--port", "Where candidates listen.  [default: 18080]")
DRAIN_OPTIONS = [
    flag(
        "--drain",
        "Stop a live provider for the run, and bring it back; one in a terminal stays stopped.",
    ),
    flag("--restart-foreground", "Start a drained foreground process again at the end."),
]
SEARCH_OPTIONS: list[Decorator] = [
    click.option(
        "--target-context",
        type=INTEGER,
        multiple=True,
        callback=_one_or_several,
        help="Tokens of prompt and answer to serve; may be repeated.  [default: 2000]",
    ),
    click.option(
        "--candidate-models",
        callback=_models,
        metavar="CSV",
        multiple=True,
        help="Models or their folders, in the order in which to try them, largest first; `live` is what "
        "the live provider serves. May be repeated.",
    ),
    choice(
        "--candidates",
        "NAME",
        "mlx gguf safetensors",
        "Another list instead of the default one: mlx, gguf, safetensors, or one of the settings.",
    ),
    click.option("--max-model-size", metavar="SIZE", help="Trim the default list, e.g. 16B."),
    click.option("--min-model-size", metavar="SIZE", help="Trim the default list, e.g. 3B."),
    _axis(
        "--kv-bits-axis",
        "unset 4 8",
        "Bits of the KV cache to try: 4, 8, unset.  [default: unset,4,8]",
    ),
    _axis("--max-batch-axis", "1 2 4 8", "Requests served at once, to try.  [default: 1,2]"),
    _axis(
        "--max-context-axis",
        "4096 8192 16384 32768",
        "Lengths of the context to try, in tokens.  [default: the target context]",
    ),
    click.option(
        "--axis",
        "axes",
        callback=_axes,
        metavar="NAME[=CSV]",
        multiple=True,
        shell_complete=axes,
        help="A knob of the server's own and the values to try, `unset` for its default; without values the "
        "usual ones. `autotunectl servers show` lists them. May be repeated.",
    ),
    choice(
        "--search",
        "HOW",
        "grid auto tpe",
        "grid: measure every combination; tpe: only those that look promising; auto: tpe above 24 "
        "combinations.  [default: grid]",
    ),
    _number(
        "--trials", "Combinations that tpe measures at most.  [default: 8% of them, at least 16]"
    ),
    _number(
        "--stage1-replicates", "Requests to each candidate while the model is chosen.  [default: 1]"
    ),
    _number("--stage2-replicates", "Requests to each combination of settings.  [default: 3]"),
    choice(
        "--replicates",
        "MODE",
        "fixed auto",
        "fixed, or auto: stop settings that cannot win, measure a tie again.  [default: fixed]",
    ),
    _number(
        "--gate-ttft-ms",
        "Milliseconds within which 95 of 100 requests get their first token.  [default: 60000]",
    ),
    _number(
        "--tps-tie-epsilon",
        "Speeds that differ by less than this share are a tie.  [default: 0.02]",
        FLOAT,
    ),
    MAX_DURATION_OPTION,
    duration("--drain-grace", "Time that a live provider gets to end.  [default: 30s]"),
    PORT_OPTION,
    _number("--retain-runs", "Runs to keep.  [default: 50]"),
    choice(
        "--cell-order",
        "ORDER",
        "axis reverse random",
        "In which order the combinations of settings are measured: axis (as listed), reverse or random.  "
        "[default: axis]",
    ),
    duration("--cooldown-s", "Pause before each combination of settings.  [default: 0]"),
    _number("--seed", "Of a random order.  [default: a new one]"),
    flag(
        "--thermal-gate/--no-thermal-gate",
        "Wait before each combination until the machine has cooled down.  [default: off]",
    ),
    flag(
        "--static-fit-check/--no-static-fit-check",
        "Fetch no weights that are larger than the memory.  [default: on]",
    ),
    click.option(
        "--concurrency",
        type=INTEGER,
        metavar="N",
        help="Requests in flight at once while measuring.  [default: 1]",
    ),
    flag(
        "--calibrate-context",
        "Find the longest context that the chosen model serves under the ceiling.",
    ),
    flag(
        "--calibrate-concurrency",
        "Find how many requests at once it serves under the ceiling, and how many are worth it.",
    ),
    _number(
        "--context-ceiling",
        "Tokens of the longest context to try.  [default: 131072, or the model's own]",
    ),
    _number(
        "--context-quantum",
        "Tokens of one step of the context.  [default: 1000; below 4,000 tokens 256]",
    ),
    _number("--concurrency-ceiling", "Most requests at once to try.  [default: 32]"),
    _number(
        "--ttft-ceiling-ms",
        "Milliseconds to the first token that are still useful.  [default: the gate]",
    ),
    _number(
        "--min-gain",
        "More requests at once must bring at least this share of tok/s.  [default: 0.15]",
        FLOAT,
    ),
    click.option(
        "--quality",
        type=click.Choice(["off", "warn", "veto"]),
        help="Compare the answers of lossy cells with those of the lossless one; with veto a broken one "
        "cannot win.  [default: off]",
    ),
    flag(
        "--confirm/--no-confirm",
        "Start the winner again, in turns with the defaults and the live settings; a tie "
        "recommends the simpler one.  [default: off, on for schedule set --apply]",
    ),
    PROVIDER_OPTION,
]
"""What is searched, and how."""

APPLY_OPTIONS: list[Decorator] = [
    flag("--knobs-only", "Apply the knobs and never the model."),
    flag("--all-knobs", "Apply also the knobs that the run did not search."),
]
"""How a recipe is written into the provider's configuration."""

START_OPTIONS: list[Decorator] = [
    flag("--verify", "Read all weights again, whatever was checked before."),
    flag("--ignore-quarantine", "Try once more what took the machine down before."),
    click.option(
        "--resume",
        metavar="[RUN]",
        is_flag=False,
        flag_value="latest",
        shell_complete=run_ids,
        help="Go on with a run that was cut off, by default the latest.",
    ),
    *DRAIN_OPTIONS,
]
"""What belongs to one start by hand, and not to a request that is kept."""


def request_options(*groups: list[Decorator]) -> Decorator:
    """The decorator that gives a command these groups of options, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate
