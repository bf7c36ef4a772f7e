"""What every command does alike with its output: documents to stdout, warnings and refusals to stderr."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import click

from autotunectl.errors import ClientError, CommandError
from autotunectl.text import apply, layout, result
from autotuned.shared import failures


def present(document: dict[str, Any], *, as_json: bool, told: Collection[str] = ()) -> None:
    """Print a result: the recommendation on stdout, doubts that were not `told` and what is missing on stderr."""
    if as_json:
        click.echo(as_text(document))
    elif document["recommendation"] is not None:
        say(result.recommendation(document, layout.width()))
    elif document["trigger"] == "noise" and "measured" in document["noise"]:
        from autotunectl.text import noise

        click.echo(noise.measured(document["noise"]["measured"]))
    elif "check" in document:
        from autotunectl.text import noise

        click.echo(noise.checked(document["check"]))
    if not as_json:
        warn([warning for warning in document["warnings"] if warning not in told])
    if document["exit_reason"] not in (None, "ok") and document["state"] == "finished":
        message, *reasons = result.failure(document)
        hint = None
        if document["exit_reason"] not in ("config_error", "provider_conflict"):
            hint = failures.hint(document["exit_reason"], document)
        complain(message, hint, reasons)
    if document["state"] == "running" and not as_json:
        click.echo("the run goes on: autotunectl watch", err=True)


def say(text: str) -> None:
    """Print text for people, folded where stdout is a terminal that is too narrow for it."""
    click.echo(layout.fold(text, layout.width()))


def named(run: str | None) -> dict[str, str]:
    """The parameters of a call about a run; the agent chooses where none is named."""
    return {} if run is None else {"run_id": run}


def as_text(document: Any) -> str:
    """A document as JSON for people and programs."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def warn(warnings: list[str]) -> None:
    """Each doubt on a line of its own, on stderr."""
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def make_live(hint: str | None) -> None:
    """Say on stderr which commands make the configuration live."""
    for line in apply.live(hint) if hint else ():
        click.echo(line, err=True)


def in_flags(error: ClientError) -> str:
    """The message with the flag's name in place of the field's."""
    field = error.data.get("field")
    return (
        error.message if not field else error.message.replace(f"{field}:", f"--{_flag(field)}:", 1)
    )


def _flag(field: str) -> str:
    """The flag of a field: the same words, but for a unit that the flag takes with its value."""
    return "window" if field == "window_s" else field.replace("_", "-")


def complain(message: str, hint: str | None, reasons: Sequence[str] = ()) -> None:
    """One line on stderr, its reasons, and what to do."""
    for line in (f"autotunectl: {message}", *reasons, *((f"hint: {hint}",) if hint else ())):
        click.echo(line, err=True)


def refusal(error: ClientError) -> dict[str, Any]:
    """What went wrong, for programs."""
    return {
        "code": error.code,
        "kind": error.kind,
        "message": str(error),
        "data": error.data,
        "hint": error.remedy,
        "exit_code": error.exit_code,
    }


def fail(message: str, code: int, remedy: str | None = None) -> NoReturn:
    """End the command: one line on stderr, a hint, the exit code, and with `--json` the document of a refusal."""
    raise CommandError(message, code, remedy)


def write_file(file: str, text: str) -> str:
    """Write a whole file, in place of one of that name; its path. Raises OSError."""
    from pathlib import Path

    from autotuned.shared import files

    path = Path(file).expanduser().resolve()  # a link stays, what it points at is replaced
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    files.write_atomic(path, text.encode(), None)
    return str(path)
