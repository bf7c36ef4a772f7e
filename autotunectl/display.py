"""Following a run: a display that is redrawn in place on a terminal, one plain line an event elsewhere.

Any number may follow the same run. Everything shown comes from the agent; nothing here ends a run.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autotunectl import render
from autotunectl.client import Client, ClientError

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_S = 0.25
KEPT_LINES = ("trial", "run.started", "run.finished", "budget.warning", "log")


def follow(again: Callable[[], Client], run_id: str) -> str:
    """Show a run until it has ended; its exit reason. `again` makes a client of its agent. Raises ClientError when the agent is gone for good."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return _live(again, run_id)
    return _plain(again, run_id)


def _plain(again: Callable[[], Client], run_id: str) -> str:
    with again() as client:
        for event in client.events(run_id=run_id, since=0):
            line = render.event(event)
            if line is not None:
                print(line, file=sys.stderr, flush=True)
            if event["type"] == "run.finished":
                return str(event["exit_reason"])
    raise AssertionError  # events end with an exception only


def _live(again: Callable[[], Client], run_id: str) -> str:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    arrived: queue.Queue[dict[str, Any] | ClientError] = queue.Queue()
    threading.Thread(target=_collect, args=(again, run_id, arrived), daemon=True).start()
    client = again()
    with Live(console=console, refresh_per_second=4, transient=True) as live, client:
        while True:
            for event in _waiting(arrived):
                if isinstance(event, ClientError):
                    raise event
                line = render.event(event)
                if line is not None and event["type"] in KEPT_LINES:
                    live.console.print(line, markup=False)
                if event["type"] == "run.finished":
                    return str(event["exit_reason"])
            try:
                run = client.call("status", run_id=run_id)["run"]
            except ClientError as error:
                live.update(f"waiting for the agent: {error}")
                continue
            live.update(_panel(run, console.width))


def _collect(
    again: Callable[[], Client], run_id: str, arrived: queue.Queue[dict[str, Any] | ClientError]
) -> None:
    try:
        with again() as client:
            for event in client.events(run_id=run_id, since=0):
                arrived.put(event)
    except ClientError as error:
        arrived.put(error)


def _waiting(
    arrived: queue.Queue[dict[str, Any] | ClientError],
) -> Iterator[dict[str, Any] | ClientError]:
    """What has arrived by now; waits one refresh for the first."""
    try:
        yield arrived.get(timeout=REFRESH_S)
        while True:
            yield arrived.get_nowait()
    except queue.Empty:
        return


def _panel(run: Mapping[str, Any], width: int) -> RenderableType:
    from rich.text import Text

    progress = run.get("progress") or {}
    replicate = progress.get("replicate") or {}
    done, total = replicate.get("index", 0), replicate.get("total", 0)
    room = max(10, min(40, width - 12))
    filled = round(room * progress.get("fraction", 0.0))
    best = run.get("best")
    lines = [
        f"{'━' * filled}{'╌' * (room - filled)} {progress.get('fraction', 0.0):4.0%}",
        f"{'cancelling' if run.get('cancelling') else run['phase']}: {render.doing(run)}",
        f"replicates {'●' * done}{'○' * max(0, total - done)}",
        f"elapsed {render.duration(progress.get('elapsed_s'))}  ETA {render.duration(progress.get('eta_s'))}  "
        f"budget left {render.duration(progress.get('budget_left_s'))}",
    ]
    if best:
        lines.append(
            f"best {render.number(best['tps_median'], ' tok/s', 2)} with {render.knobs(best['knobs'])}"
        )
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
