"""`doctor` and `bugreport`: what is wrong here, and one file that tells it to somebody else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from autotunectl.arguments import json_option
from autotunectl.client import ClientError
from autotunectl.output import as_text, fail
from autotunectl.reach import Reach


@click.command()
@click.option(
    "--acknowledge", is_flag=True, help="Say no more of a damaged database that was set aside."
)
@json_option()
@click.pass_obj
def doctor(reach: Reach, acknowledge: bool, as_json: bool) -> None:
    """Check everything that a run needs, and say how to mend what is wrong.

    Exit codes: 0 nothing is broken (there may be warnings), 1 something is.

    \b
    Example:
      autotunectl doctor
    """
    found = _diagnosis(reach, **({"acknowledge": True} if acknowledge else {}))
    click.echo(as_text(found) if as_json else _rendered(found))
    sys.exit(0 if found["ok"] else 1)


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@json_option()
@click.pass_obj
def bugreport(reach: Reach, file: Path | None, as_json: bool) -> None:
    """Pack what somebody needs who is to find a fault: one archive, readable by you alone, secrets masked.

    It holds versions, the doctor's findings, the status, the last runs, the last lines of the logs and
    the settings; nothing of the provider's configuration, and no prompt. Look into it before you send it.

    \b
    Example:
      autotunectl bugreport
    """
    from autotunectl.service import bugreport as bugreport_module

    reach.here()
    path = file or bugreport_module.default_path()
    try:
        names = bugreport_module.write(path, _diagnosis(reach), reach.socket)
    except FileExistsError:
        fail(f"{path} exists", 2, "name another file")
    except OSError as error:
        fail(f"{path}: {error.strerror}", 1, "name a file in a folder of yours")
    if as_json:
        click.echo(as_text({"path": str(path), "contents": dict(names)}))
        return
    click.echo(str(path))
    for name, what in names:
        click.echo(f"  {name:<22} {what}", err=True)


def _diagnosis(reach: Reach, **params: bool) -> dict[str, Any]:
    """The agent's own findings; where it cannot be reached what the client sees."""
    from autotunectl.service import diagnosis

    try:
        with reach.client() as client:
            return diagnosis.ask(client, **params)
    except ClientError as error:
        if reach.hosts:
            raise
        return diagnosis.without_agent(str(error), reach.socket)


def _rendered(found: dict[str, Any]) -> str:
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
