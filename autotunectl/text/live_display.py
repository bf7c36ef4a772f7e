"""A run as it happens: a display that is redrawn in place on a terminal, one plain line an event elsewhere.

Any number may follow the same run. Everything shown comes from the agent; nothing here ends a run.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotunectl.client import Client, ClientError
from autotunectl.text import layout, status
from autotuned.shared import knobs

if TYPE_CHECKING:
    from rich.console import Console

REFRESH_S = 0.25
KEPT_LINES = (
    *("run.started", "drain.begun", "trial", "budget.warning", "log"),
    *("restore.begun", "restore.done", "applied", "run.finished"),
)
"""Events whose line stays above the part that is redrawn."""


Arrived = queue.Queue[dict[str, Any] | ClientError]
Line = tuple[str, str | None]
"""A line of the display and its style."""


@dataclass
class Told:
    """What a follower has said already, so that following again or presenting the result says it no second time."""

    seq: int = 0
    warnings: set[str] = field(default_factory=set)

    def add(self, event: Mapping[str, Any]) -> None:
        if event["type"] != "run.finished":  # an end that Ctrl-C cut short is to be seen again
            self.seq = max(self.seq, event["seq"])
        if event["type"] == "log":
            self.warnings.add(event["message"])


def follow(again: Callable[[], Client], run_id: str, told: Told | None = None) -> str:
    """Show a run until it has ended; its exit reason. `again` makes a client of its agent.

    Goes on after what was `told`. Raises ClientError when the agent is gone for good; one that is restarted meanwhile is found again.
    """
    told = Told() if told is None else told
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return _live(again, run_id, told)
    return _plain(again, run_id, told)


def _plain(again: Callable[[], Client], run_id: str, told: Told) -> str:
    shown: dict[str, int] = {}
    with again() as client:
        for event in client.events(run_id=run_id, since=told.seq):
            told.add(event)
            line = status.event(event)
            if line is not None and _worth_a_line(event, shown):
                print(line, file=sys.stderr, flush=True)
            if event["type"] == "run.finished":
                return str(event["exit_reason"])
    raise AssertionError  # events end with an exception only


def _worth_a_line(event: Mapping[str, Any], shown: dict[str, int]) -> bool:
    """Of a download's progress one line each ten percent; `shown` remembers them by model."""
    if event["type"] != "prewarm.progress":
        return True
    tenth: int = 10 * event["bytes"] // max(1, event["total"])
    new = shown.get(event["model"]) != tenth
    shown[event["model"]] = tenth
    return new


def _live(again: Callable[[], Client], run_id: str, told: Told) -> str:
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    arrived: Arrived = queue.Queue()
    threading.Thread(target=_collect, args=(again, run_id, told.seq, arrived), daemon=True).start()
    lately: dict[str, Any] = {}
    with Frame(console) as frame, again() as client:
        while True:
            for event in _waiting(arrived):
                if isinstance(event, ClientError):
                    raise event
                told.add(event)
                _remember(lately, event)
                line = status.event(event)
                if line is not None and event["type"] in KEPT_LINES:
                    frame.print(line, _style(event))
                if event["type"] == "run.finished":
                    return str(event["exit_reason"])
            try:
                run = client.call("status", run_id=run_id)["run"]
            except ClientError as error:
                frame.draw([(f"{error}; trying to reach the agent again", "yellow")])
                continue
            frame.draw(_panel(run, lately, console.width))


class Frame:
    """Lines at the end of what a terminal shows, drawn again in place; gone when it is left.

    A terminal that is made narrower breaks the lines that stand there, so how many rows they take is
    counted with the width that it has when they are taken away.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[str] = []

    def __enter__(self) -> Frame:
        self._console.show_cursor(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        self._console.show_cursor(True)

    def print(self, line: str, style: str | None) -> None:
        """A line that stays, above the frame."""
        self._clear()
        self._console.print(line, markup=False, style=style)

    def draw(self, lines: list[Line]) -> None:
        """The frame anew; what is too long for a line is cut."""
        from rich.text import Text

        room = max(1, self._console.width - 1)
        texts = [Text(text, style=style or "") for text, style in lines if text]
        for text in texts:
            text.truncate(room, overflow="ellipsis")
        self._clear()
        self._console.print(Text("\n").join(texts), end="", soft_wrap=True)
        self._shown = [text.plain for text in texts]

    def _clear(self) -> None:
        from rich.cells import cell_len

        width = max(1, self._console.width)
        rows = sum(max(1, -(-cell_len(line) // width)) for line in self._shown)
        if rows:
            up = f"\x1b[{rows - 1}A" if rows > 1 else ""
            self._console.file.write(f"\r{up}\x1b[J")
        self._shown = []


def _collect(again: Callable[[], Client], run_id: str, since: int, arrived: Arrived) -> None:
    try:
        with again() as client:
            for event in client.events(run_id=run_id, since=since):
                arrived.put(event)
    except ClientError as error:
        arrived.put(error)


def _waiting(arrived: Arrived) -> Iterator[dict[str, Any] | ClientError]:
    """What has arrived by now; waits one refresh for the first."""
    try:
        yield arrived.get(timeout=REFRESH_S)
        while True:
            yield arrived.get_nowait()
    except queue.Empty:
        return


def _remember(lately: dict[str, Any], event: Mapping[str, Any]) -> None:
    """Keep what `status` does not tell: the download that goes on, the newest figures of this trial."""
    match event["type"]:
        case "prewarm.progress":
            lately["download"] = event
        case "replicate":
            lately["replicate"] = event
        case "prewarm.done" | "provider.starting" | "trial":
            lately.clear()
        case _:
            pass


def _style(event: Mapping[str, Any]) -> str | None:
    kind = event["type"]
    if (kind == "trial" and not event["fits"]) or kind in ("budget.warning", "log"):
        return "yellow"
    if kind == "trial" and event["kept"]:
        return "green"
    return None


def _panel(run: Mapping[str, Any], lately: Mapping[str, Any], width: int) -> list[Line]:
    progress = run.get("progress") or {}
    fraction = progress.get("fraction", 0.0)
    phase = "cancelling" if run.get("cancelling") else run["phase"]
    left = "budget left" if width >= 64 else "left"
    times = f"elapsed {layout.duration(progress.get('elapsed_s'))}"
    if progress:
        times += f"  ETA {layout.eta(progress)}"
        if progress["eta_s"] is not None:
            times += f"  {left} {layout.duration(progress['budget_left_s'])}"
    lines: list[Line] = [
        (f"{layout.bar(fraction, max(10, min(40, width - 12)))} {fraction:4.0%}", "cyan"),
        *((line, "bold") for line in _fitting(f"{phase}: ", status.place(run), ", ", width)),
        (_activity(run, lately, width), None),
        (times, "dim"),
    ]
    best = run.get("best")
    if best:
        figure = layout.number(best["tps_median"], " tok/s", 2)
        parts = (figure, knobs.flags(best["knobs"]))
        lines += [(line, "green") for line in _fitting("best ", parts, " with ", width)]
    return lines


def _fitting(label: str, parts: tuple[str, str], between: str, width: int) -> list[str]:
    """Both parts on one line, or the second below the first where that is too long."""
    whole = f"{label}{parts[0]}{between}{parts[1]}"
    return [whole] if len(whole) < width else [f"{label}{parts[0]}", f"  {parts[1]}"]


def _activity(run: Mapping[str, Any], lately: Mapping[str, Any], width: int) -> str:
    """The download in bytes, or what the candidate does, with a dot for each replicate and the newest figures."""
    if "download" in lately:
        download = lately["download"]
        total = download.get("total") or 0
        share = download["bytes"] / total if total else 0.0
        rate = download.get("rate")
        speed = f", {layout.size(rate)}/s" if rate else ""
        loaded = f"{layout.size(download['bytes'])} of {layout.size(total)}{speed}"
        return f"{layout.bar(share, max(4, min(40, width - len(loaded) - 2)))} {loaded}"
    replicate = (run.get("progress") or {}).get("replicate") or {}
    done, total = replicate.get("index", 0), replicate.get("total", 0)
    step = status.step(run) or "preparing"
    if not total:
        return step
    dots = f"{step}  replicates {'●' * min(done, 40)}{'○' * min(40, max(0, total - done))}"
    newest = lately.get("replicate")
    if newest is None or newest.get("error"):
        return dots
    return f"{dots}  {layout.number(newest['tps'], ' tok/s', 2)}, TTFT {layout.number(newest['ttft_ms'], ' ms', 0)}"
