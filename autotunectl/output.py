"""What every command does alike with its output: documents to stdout, warnings and refusals to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from typing import Any, NoReturn

import click

from autotunectl.client import CallError
from autotunectl.text import apply, hints, layout, result


def present(document: dict[str, Any], *, as_json: bool, told: Collection[str] = ()) -> None:
    """Print a result: the recommendation on stdout, doubts that were not `told` and what is missing on stderr."""
    if as_json:
        click.echo(as_text(document))
    elif document["recommendation"] is not None:
        say(result.recommendation(document, layout.width()))
    elif document["trigger"] == "noise" and "measured" in document["noise"]:
        from autotunectl.text import noise

        click.echo(noise.measured(document["noise"]["measured"]))
    if not as_json:
        warn([warning for warning in document["warnings"] if warning not in told])
        if document["exit_reason"] != "ok" and document["state"] == "finished":
            for line in result.failure(document):
                click.echo(f"autotunectl: {line}" if not line.startswith(" ") else line, err=True)
            remedy = hints.after(document)
            if remedy:
                click.echo(f"hint: {remedy}", err=True)
        if document["state"] == "running":
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


def in_flags(error: CallError) -> str:
    """The message with the flag's name in place of the field's."""
    field = error.data.get("field")
    return (
        error.message if not field else error.message.replace(f"{field}:", f"--{_flag(field)}:", 1)
    )


def _flag(field: str) -> str:
    """The flag of a field: the same words, but for a unit that the flag takes with its value."""
    return "window" if field == "window_s" else field.replace("_", "-")


def fail(message: str, code: int, remedy: str | None = None) -> NoReturn:
    """One line on stderr, a hint, and the exit code."""
    click.echo(f"autotunectl: {message}", err=True)
    if remedy:
        click.echo(f"hint: {remedy}", err=True)
    sys.exit(code)
