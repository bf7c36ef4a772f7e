"""Arguments and options that many commands share, with what the shell may complete in their place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from autotuned.shared import paths, wire

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETION_S = 1.0
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


Completer = Callable[[click.Context, click.Parameter, str], list["CompletionItem"]]
PROVIDERS = ("auto", "macprovider", "mlx-lm", "llama-server")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
METHODS = (
    "apply", "cancel", "compare", "doctor", "models", "noise", "provider.restore", "pull", "pull.cancel", "pull.wait",
    "quarantine", "quarantine.clear", "reload", "report", "result", "revert", "rpc.discover", "runs", "schedule.get", "schedule.run_now", "schedule.set",
    "shutdown", "stale", "start", "status", "subscribe", "trials", "unsubscribe", "version", "wait",
)  # fmt: skip
"""The agent's methods, for the shell: completion asks nobody."""
DURATION_HELP = "SECONDS|4h|1h30m"
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
        return (
            _whole(number) if abs(number) < 2**53 else str(value)
        )  # JSON carries neither inf nor nan


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


DURATION = Duration()


def words(*choices: str, several: bool = False) -> Completer:
    """Completes one of these words, or with `several` the last one of a list with commas."""

    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        before, comma, last = begun.rpartition(",") if several else ("", "", begun)
        used = before.split(",")
        return [
            CompletionItem(before + comma + word)
            for word in choices
            if word.startswith(last) and word not in used
        ]

    return complete


def model(word: str) -> str:
    """A model's id, or the absolute path of what exists here: the agent works in another folder."""
    return paths.resolved(word, os.environ)


def files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Has the shell complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="file")]


def backups(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Backups beside the configuration, newest first."""
    from click.shell_completion import CompletionItem

    names = [name for name in _listing(wire.config_folder()) if ".bak-" in name]
    newest = sorted(names, key=lambda name: name.rpartition(".bak-")[2], reverse=True)
    return [CompletionItem(name) for name in newest if name.startswith(begun)]


def _listing(folder: str) -> Sequence[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - pathlib costs start-up time
    except OSError:
        return []


def run_argument(name: str = "run") -> Decorator:
    """The optional id of a run; the shell completes it from the agent's newest runs."""
    return click.argument(name, required=False, shell_complete=run_ids)


def json_option(text: str = "One JSON document on stdout.") -> Decorator:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def run_ids(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Runs whose id begins so, newest first; with what became of them where an agent answers."""
    from click.shell_completion import CompletionItem

    from autotunectl.client import Client, ClientError

    try:
        with Client(connect_s=0.0) as client:
            runs = client.request("runs", {"limit": 100}, timeout_s=COMPLETION_S)["runs"]
        notes = {
            run["run_id"]: f"{run['exit_reason'] or 'running'} {run['model'] or ''}" for run in runs
        }
    except ClientError:
        logs = sorted(_listing(f"{wire.log_folder()}/runs"), reverse=True)
        notes = dict.fromkeys(logs, "")
    return [CompletionItem(run, help=note) for run, note in notes.items() if run.startswith(begun)]
