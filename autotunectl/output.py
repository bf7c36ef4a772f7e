"""What every command does alike with its output: documents to stdout, warnings and refusals to stderr.

Of several machines at once, for a handful of them, it is one table or one document of their answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from autotunectl.errors import CallError, ClientError, CommandError
from autotunectl.text import compare, layout, result
from autotuned.shared import failures
from autotuned.shared.text import explained

if TYPE_CHECKING:
    from autotunectl.reach import Reach


def present(reach: Reach, document: dict[str, Any], told: Collection[str] = ()) -> None:
    """Print a result: the recommendation on stdout, doubts that were not `told` and what is missing on stderr."""
    if reach.as_json:
        click.echo(as_text(document))
    elif document["recommendation"] is not None:
        say(result.recommendation(document, layout.width()))
    elif document["trigger"] == "noise" and "measured" in document["noise"]:
        click.echo(compare.noise(document["noise"]["measured"]))
    elif "check" in document:
        click.echo(compare.check(document["check"]))
    if not reach.as_json:
        warn([warning for warning in document["warnings"] if warning not in told])
    if document["exit_reason"] not in (None, "ok") and document["state"] == "finished":
        message, *reasons = result.failure(document)
        hint = None
        if document["exit_reason"] not in ("config_error", "provider_conflict"):
            hint = failures.hint(document["exit_reason"], document)
        complain(message, hint, reasons)
    if document["state"] == "running" and not reach.as_json:
        click.echo("the run goes on: autotunectl watch", err=True)


def say(text: str) -> None:
    """Print text for people, folded where stdout is a terminal that is too narrow for it."""
    click.echo(layout.fold(text, layout.width()))


def given(**values: object) -> dict[str, object]:
    """The parameters of a call: what is not given is not sent, and the agent chooses."""
    return {name: value for name, value in values.items() if value is not None}


def answer(reach: Reach, document: Any, text: str | Callable[[Any], str]) -> None:
    """An answer: as it is where `--json` asks for that, else what `text` makes of it."""
    if reach.as_json:
        click.echo(as_text(document))
    else:
        say(text if isinstance(text, str) else text(document))


def answer_table(reach: Reach, document: Any, table: layout.Table, empty: str = "") -> None:
    """An answer that is a table; `empty` is said in place of one without a row."""
    nothing = empty and not table[1:]
    answer(reach, document, empty if nothing else layout.columns(table, layout.width()))


def as_text(document: Any) -> str:
    """A document as JSON for people and programs."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def warn(warnings: list[str]) -> None:
    """Each doubt on a line of its own, on stderr."""
    for warning in warnings:
        click.echo(f"warning: {explained(warning)}", err=True)


def make_live(hint: str | None) -> None:
    """Say on stderr which commands make the configuration live."""
    if hint:
        click.echo("\n  ".join(["to make it live:", *hint.splitlines()]), err=True)


def in_flags(error: ClientError) -> str:
    """The message with the flag's name in place of the field's."""
    field = error.data.get("field")
    return (
        error.message if not field else error.message.replace(f"{field}:", f"--{_flag(field)}:", 1)
    )


def _flag(field: str) -> str:
    """The flag of a field: the same words, but for a unit that the flag takes with its value."""
    axes, _, knob = field.partition(".")
    if axes == "axes":
        return f"axis {knob}".rstrip()
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


def everywhere(
    reach: Reach,
    method: str,
    params: Mapping[str, Any],
    table: Callable[[Any], layout.Table],
    code: Callable[[Any], int] = lambda _: 0,
) -> NoReturn:
    """Call `method` on every host and print what came; exits with the highest code, `code` being that of an answer."""
    answers = reach.everywhere(lambda client: client.request(method, params))
    if reach.as_json:
        click.echo(as_text({host: _document(answer) for host, answer in answers}))
    else:
        rows: layout.Table = []
        for host, answer in answers:
            if not isinstance(answer, ClientError):
                heading, *found = table(answer)
                rows = rows or [("HOST", *heading)]
                rows += [(host, *row) for row in found]
        if rows[1:]:
            click.echo(layout.columns(rows, layout.width()))
    codes = [0]
    for host, answer in answers:
        if isinstance(answer, ClientError):
            remedy = answer.remedy
            if isinstance(answer, CallError):
                remedy = failures.hint(answer.kind, answer.data, method)
            named = str(answer).startswith(host)  # by ssh's own troubles
            complain(str(answer) if named else f"{host}: {answer}", remedy)
            codes.append(answer.exit_code)
        else:
            codes.append(code(answer))
    sys.exit(max(codes))


def _document(answer: Any) -> Any:
    return {"error": refusal(answer)} if isinstance(answer, ClientError) else answer
