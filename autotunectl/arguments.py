"""Arguments and options that many commands share, with what the shell may complete in their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

COMPLETION_S = 1.0
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def run_argument(name: str = "run") -> Decorator:
    """The optional id of a run; the shell completes it from the agent's newest runs."""
    return click.argument(name, required=False, shell_complete=_run_ids)


def json_option(text: str = "One JSON document on stdout.") -> Decorator:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def _run_ids(_: click.Context, __: click.Parameter, begun: str) -> list[Any]:
    """Runs whose id begins so, newest first, with what became of them; none where no agent answers."""
    from click.shell_completion import CompletionItem

    from autotunectl.client import Client, ClientError
    from autotuned.shared import wire

    try:
        with Client(os.environ.get(wire.SOCKET_VARIABLE), connect_s=0.0) as client:
            found = client.request("runs", {"limit": 100}, timeout_s=COMPLETION_S)["runs"]
    except ClientError:
        return []
    return [
        CompletionItem(
            run["run_id"], help=f"{run['exit_reason'] or 'running'} {run['model'] or ''}"
        )
        for run in found
        if run["run_id"].startswith(begun)
    ]
