"""The program `autotunectl`: its commands by name, each loaded when it is used, and what a failure exits with.

Values are judged by the agent; the client only parses types.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from autotunectl.completion import files
from autotunectl.errors import CallError, ClientError, CommandError
from autotunectl.output import as_text, complain, in_flags, refusal
from autotunectl.reach import Reach
from autotuned import __version__
from autotuned.shared import failures, wire

EXIT_STATUS: Mapping[int, str] = {
    0: "ok",
    **{row.exit_code: row.sentence for row in reversed(list(failures.FAILURES.values()))},
}
"""What each exit code means: the sentence of the first kind of failure that has it."""
EXIT_HELP = "\n".join(
    ["\b", "Exit codes:", *(f"  {code} {EXIT_STATUS[code]}" for code in sorted(EXIT_STATUS))]
)

_LISTED = (
    ("start", "start"),
    ("runs", "status watch cancel"),
    ("provider", "apply revert"),
    ("runs", "show runs compare"),
    ("start", "noise check"),
    ("runs", "history check-stale"),
    ("doctor", "quarantine"),
    ("serving", "servers serve models pull"),
    ("doctor", "doctor logs bugreport"),
    ("service", "install uninstall"),
    ("schedule", "schedule"),
    ("provider", "provider"),
    ("service", "daemon"),
    ("tools", "metrics rpc dial-stdio completion demo"),
)
COMMANDS: Mapping[str, str] = {name: module for module, names in _LISTED for name in names.split()}
"""Every command, in the order in which help lists it, with its module below `autotunectl.commands`."""


class Commands(click.Group):
    """Loads a command when it is asked for; turns what the client raises into one line, a hint and an exit code."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"autotunectl.commands.{COMMANDS[name]}")
        found: click.Command = getattr(module, name.replace("-", "_"))
        _complete(found)
        return found

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run. What goes wrong is one line, a hint and an exit code, and with `--json` a document."""
        _open_streams()
        try:
            try:
                return self._run(*args, **kwargs)
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()  # here, where a reader that has gone is no traceback
        except OSError as error:
            if error.filename is None:
                _silence(1)  # what still waits there is lost
            if error.errno == errno.EPIPE:
                _silence(2)
                sys.exit(1)
            remedy = "free some space, or make its folder writable for this user"
            message = f"{error.filename or 'stdout'}: {error.strerror or error}"
            _end(CommandError(message, 1, remedy if error.filename else None))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx is not None else "autotunectl"
            _end(CommandError(_sentence(error), error.exit_code, f"{path} --help"))
        except click.ClickException as error:
            _end(CommandError(error.format_message(), error.exit_code))
        except click.Abort:
            sys.exit(wire.EXIT_INTERRUPTED_HERE)
        except ClientError as error:
            _end(error)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(wire.EXIT_INTERRUPTED_HERE)
        except CallError as error:
            error.remedy = failures.hint(error.kind, error.data, ctx.invoked_subcommand)
            raise


def _end(error: ClientError) -> NoReturn:
    """Say what went wrong, and end."""
    if "--json" in sys.argv:
        known = error.document.get("error") or {}
        click.echo(as_text({**error.document, "error": {**refusal(error), **known}}))
    complain(in_flags(error), error.remedy)
    sys.exit(error.exit_code)


def _open_streams() -> None:
    """Have something to write to, and no character that it refuses."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _silence(number: int) -> None:
    """Have what is still written there vanish: the interpreter would complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _complete(command: click.Command) -> None:
    """Have a command take `--socket` and `--no-autostart` behind its name as well, and a list show its first sentence.

    Idempotent.
    """
    command.short_help = (command.help or "").partition(".")[0].partition(";")[0].replace("\n", " ")
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _complete(inner)
    if not any(option.name == "socket" for option in command.params):
        again = functools.partial(click.Option, hidden=True, expose_value=False)
        command.params += [
            again(["--socket"], shell_complete=files, callback=_socket),
            again(["--no-autostart"], is_flag=True, callback=_no_autostart),
        ]


def _socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj.socket = value
        _one_of(value, ctx.obj.hosts)


def _no_autostart(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.obj.autostart = False


def _one_of(socket: str | None, hosts: tuple[str, ...]) -> None:
    if socket and hosts:
        message = "--socket names an agent of this machine, --host one of another: give one of them"
        raise click.UsageError(message)


def _hosts(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if values:
        from autotunectl.dial import BadHost, Host

        for value in values:
            try:
                Host.parse(value)
            except BadHost as error:
                raise click.UsageError(str(error)) from None
    return values


@click.group(
    cls=Commands, epilog=EXIT_HELP, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--socket",
    metavar="PATH",
    envvar=wire.SOCKET_VARIABLE,
    shell_complete=files,
    help="The agent's control socket.",
)
@click.option(
    "--host",
    "hosts",
    metavar="ssh://[USER@]NAME",
    multiple=True,
    callback=_hosts,
    envvar="AUTOTUNED_HOST",
    help="The agent of another machine, through ssh; status, runs, check-stale and start take several.",
)
@click.option("--no-autostart", is_flag=True, help="Do not start an agent where none runs.")
@click.version_option(__version__, prog_name="autotunectl")
@click.pass_context
def main(
    ctx: click.Context, socket: str | None, hosts: tuple[str, ...], no_autostart: bool
) -> None:
    """Find the biggest model that this machine can usefully serve, by measuring.

    \b
    Example:
      autotunectl start --target-context 4000 --wait
    """
    _one_of(socket, hosts)
    ctx.obj = Reach(socket, autostart=not no_autostart, hosts=hosts)


def _sentence(error: click.UsageError) -> str:
    """What is wrong with the words, on one line, with the nearest command that exists."""
    message = error.format_message().replace("\n", " ").rstrip(".")
    import difflib

    unknown = re.search(r"No such command '(.*)'", message)
    near = difflib.get_close_matches(unknown[1], COMMANDS, 1) if unknown is not None else []
    return f"{message}. Did you mean '{near[0]}'?" if near else message
