"""What the shell completes in place of an argument or option. An agent is asked for a second at most."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from autotuned.shared import wire
from autotuned.shared.knobs import TABLE

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETION_S = 1.0
Completer = Callable[[click.Context, click.Parameter, str], list["CompletionItem"]]
PROVIDERS = (
    *("auto", "macprovider", "mlx-lm", "llama-server"),
    *("vllm", "sglang", "mlx-openai-server", "vllm-mlx", "rapid-mlx"),
)
"""The servers that are shipped, for the shell."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
METHODS = (
    "answers", "apply", "cancel", "check", "compare", "doctor", "history", "models", "noise", "provider.forget", "provider.restore", "pull", "pull.cancel", "pull.wait",
    "quarantine", "quarantine.clear", "reload", "report", "result", "revert", "rpc.discover", "runs", "schedule.get", "schedule.run_now", "schedule.set",
    "serve", "servers", "servers.check", "servers.show", "shutdown", "stale", "start", "status", "subscribe", "trials", "unsubscribe", "version", "wait",
)  # fmt: skip
"""The agent's methods, for the shell: completion asks nobody."""


def _item(value: str, **more: str) -> CompletionItem:
    from click.shell_completion import CompletionItem

    return CompletionItem(value, **more)


def words(*choices: str, several: bool = False) -> Completer:
    """Completes one of these words, or with `several` the last one of a list with commas."""

    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
        before, comma, last = begun.rpartition(",") if several else ("", "", begun)
        used = before.split(",")
        left = [word for word in choices if word.startswith(last) and word not in used]
        return [_item(before + comma + word) for word in left]

    return complete


def files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Has the shell complete the name of a file."""
    return [_item(begun, type="file")]


def backups(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Backups beside the configuration, newest first."""
    names = [name for name in _listing(wire.config_folder()) if ".bak-" in name]
    newest = sorted(names, key=lambda name: name.rpartition(".bak-")[2], reverse=True)
    return [_item(name) for name in newest if name.startswith(begun)]


def run_ids(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Runs whose id begins so, newest first; with what became of them where an agent answers."""
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
    return [_item(run, help=note) for run, note in notes.items() if run.startswith(begun)]


def axes(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """The knobs of the servers, then the usual values of the one that is named; an agent is asked for them."""
    from autotunectl.client import Client, ClientError

    try:
        with Client(connect_s=0.0) as client:
            servers = client.request("servers", {}, timeout_s=COMPLETION_S)["servers"]
    except ClientError:
        return []
    kind = ctx.params.get("provider")
    knobs: dict[str, list[str]] = {}
    for server in servers:
        if kind in (None, "auto", server["name"]):
            for knob in server["knobs"]:
                if knob["name"] not in [each.name for each in TABLE]:
                    usual = knob["values"] or map(str, knob["default_axis"])
                    knobs.setdefault(knob["name"], []).extend(usual)
    name, equals, _ = begun.partition("=")
    if not equals:
        return words(*(f"{knob}=" for knob in knobs))(ctx, param, begun)
    values = dict.fromkeys(["unset", *knobs.get(name, ())])
    found = words(*values, several=True)(ctx, param, begun[len(name) + 1 :])
    for item in found:
        item.value = f"{name}={item.value}"
    return found


def _listing(folder: str) -> Sequence[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - pathlib costs start-up time
    except OSError:
        return []
