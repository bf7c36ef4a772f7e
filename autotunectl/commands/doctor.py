"""`doctor`, `logs`, `quarantine` and `bugreport`: what is wrong here, what was said and what went down, and one file with all of it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autotunectl.arguments import run_argument
from autotunectl.client import Client, ClientError
from autotunectl.output import answer, answer_table, as_text, fail, given
from autotunectl.reach import Reach, command, group
from autotunectl.text import layout
from autotunectl.text.layout import count, local, short
from autotuned.shared import knobs, wire
from autotuned.shared.text import printable

if TYPE_CHECKING:
    from autotuned.documents.doctor import DoctorDocument, QuarantineEntry


@command("autotunectl doctor")
@click.option(
    "--acknowledge", is_flag=True, help="Say no more of a damaged database that was set aside."
)
def doctor(reach: Reach, acknowledge: bool) -> None:
    """Check everything that a run needs, and say how to mend what is wrong.

    Exit codes: 0 nothing is broken (there may be warnings), 1 something is.
    """
    found = _diagnosis(reach, **given(acknowledge=acknowledge or None))
    click.echo(as_text(found) if reach.as_json else _rendered(found))
    sys.exit(0 if found["ok"] else 1)


@command("autotunectl bugreport")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
def bugreport(reach: Reach, file: Path | None) -> None:
    """Pack what somebody needs who is to find a fault: one archive, readable by you alone, secrets masked.

    It holds versions, the doctor's findings, the status, the last runs, the last lines of the logs and
    the settings; nothing of the provider's configuration, and no prompt. Look into it before you send it.
    """
    from autotunectl.service import diagnosis

    reach.only_here()
    path = file or diagnosis.archive_path()
    try:
        names = diagnosis.pack(path, _diagnosis(reach), reach.socket)
    except FileExistsError:
        fail(f"{path} exists", 2, "name another file")
    except OSError as error:
        fail(f"{path}: {error.strerror}", 1, "name a file in a folder of yours")
    if reach.as_json:
        click.echo(as_text({"path": str(path), "contents": dict(names)}))
        return
    click.echo(str(path))
    for name, what in names:
        click.echo(f"  {name:<22} {what}", err=True)


def _diagnosis(reach: Reach, **params: object) -> DoctorDocument:
    """The agent's own findings; where it cannot be reached what the client sees."""
    from autotunectl.service import diagnosis

    try:
        with reach.client() as client:
            found: DoctorDocument = client.request("doctor", params, timeout_s=60.0)
            return found
    except ClientError as error:
        if reach.hosts:
            raise
        return diagnosis.without_agent(str(error), reach.socket)


def _rendered(found: DoctorDocument) -> str:
    words = {"info": "ok", "warning": "WARNING", "error": "ERROR"}
    lines = []
    for check in found["checks"]:
        lines.append(f"{words[check['level']]:<8} {check['name']:<16} {check['detail']}")
        if check["remedy"]:
            lines.append(f"{'':<25} -> {check['remedy']}")
    errors = sum(check["level"] == "error" for check in found["checks"])
    warnings = sum(check["level"] == "warning" for check in found["checks"])
    told = "nothing is broken" if found["ok"] else f"{errors} broken"
    return "\n".join([*lines, f"{told}, {warnings} with a warning"])


@command(
    "autotunectl logs -f",
    "autotunectl logs 20260301T031500Z-a1b2c3 --lines 20",
    json="The JSON lines as they are.",
)
@run_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows; Ctrl-C ends it.")
@click.option(
    "--lines",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many last lines.",
)
def logs(reach: Reach, run: str | None, follow: bool, lines: int) -> None:
    """The agent's log; with RUN what the provider printed in each of its trials.

    Known secrets, and what looks like one, are masked. Exit code 11: no such run.
    """
    from autotunectl.service import logfile

    reach.only_here()
    log = _log(reach)
    mask = logfile.mask()
    read = logfile.follow if follow else logfile.last
    if run is not None:
        found = _of_run(log.parent / "runs", run)
        if not found:
            click.echo(f"no candidate was started in {run}: autotunectl show {run}", err=True)
        for path in found[-1 if follow else 0 :]:
            click.echo(f"==> {path.name} <==")
            for line in read(path, lines):
                click.echo(printable(mask(line), ""))
        return
    if not follow and not log.exists():
        fail(f"there is no log at {log}", wire.EXIT_UNREACHABLE, "autotunectl daemon start")
    show = str if reach.as_json else logfile.readable
    try:
        for line in read(log, lines):
            click.echo(show(mask(line)))
    except OSError as error:
        fail(f"{log}: {error.strerror}", 1, "autotunectl doctor")


def _log(reach: Reach) -> Path:
    """Where the agent says that its log is, or where it would be."""
    with contextlib.suppress(ClientError), Client(reach.socket, connect_s=0.0) as client:
        found = client.request("version", {}, timeout_s=5.0).get("log_path")
        if found:
            return Path(found)
    return Path(wire.log_folder()) / wire.LOG_NAME


def _of_run(folder: Path, run: str) -> list[Path]:
    """The provider logs of one run, in the order of its trials."""
    own = folder / run
    if own.name != run or not own.is_dir():
        message = f"there are no provider logs of a run {run} in {folder}"
        fail(message, wire.EXIT_NO_SUCH_RUN, "autotunectl runs")
    return sorted(own.glob("*.log"))


@group("autotunectl quarantine", alone=True)
def quarantine(reach: Reach) -> None:
    """Configurations that took the machine down; they are not started again.

    A smaller context of the same settings is still tried, and another version of the server lifts an entry.
    `start --ignore-quarantine` tries all of them once more.
    """
    found = reach.call("quarantine")
    nothing = "no configuration has taken the machine down"
    answer_table(reach, found, _table(found["entries"]), nothing)


@command("autotunectl quarantine clear 2", of=quarantine)
@click.argument("entry", type=int, required=False)
def clear(reach: Reach, entry: int | None) -> None:
    """Let ENTRY be started again; all of them without one."""
    found = reach.call("quarantine.clear", **given(entry=entry))
    answer(reach, found, f"cleared: {count(len(found['cleared']), 'configuration')}")


def _table(entries: list[QuarantineEntry]) -> layout.Table:
    table: layout.Table = [("ENTRY", "WENT DOWN", "MODEL", "SETTINGS", "CONTEXT", "SERVER")]
    for entry in entries:
        settings = "defaults" if entry["knobs"] is None else knobs.words(entry["knobs"])
        server = f"{entry['provider']} {entry['binary_version']}"
        context, at = str(entry["target_context"]), local(entry["at"])
        table.append((str(entry["entry"]), at, short(entry["model"]), settings, context, server))
    return table
