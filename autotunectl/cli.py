"""The program `autotunectl`: its commands by name, each loaded when it is used, and what a failure exits with.

Values are judged by the agent; the client only parses types.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from autotunectl.errors import CallError, ClientError
from autotunectl.output import fail, in_flags
from autotunectl.reach import Reach
from autotunectl.text.hints import hint
from autotuned import __version__
from autotuned.shared import wire

EXIT_HELP = """\b
Exit codes: 0 ok, 1 internal error, 2 bad request, 3 nothing feasible, 4 budget used up, 5 partial
recommendation, 6 interrupted, 7 provider conflict, 8 damaged weights, 9 agent not reachable, 10 busy,
11 no such run, 12 apply refused, 13 restore outstanding, 20 stale, 21 never tuned, 130 Ctrl-C."""


COMMANDS: Mapping[str, str] = {
    "start": "start",
    "status": "follow",
    "watch": "follow",
    "cancel": "follow",
    "apply": "apply",
    "revert": "apply",
    "show": "results",
    "runs": "results",
    "compare": "compare",
    "noise": "noise",
    "check-stale": "stale",
    "models": "weights",
    "pull": "weights",
    "doctor": "doctor",
    "logs": "logs",
    "bugreport": "doctor",
    "install": "service",
    "uninstall": "service",
    "schedule": "schedule",
    "provider": "provider",
    "daemon": "daemon",
    "metrics": "metrics",
    "rpc": "tools",
    "dial-stdio": "tools",
    "completion": "tools",
    "demo": "tools",
}
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
        _reachable(found)
        return found

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run; what cannot be parsed is one line, a hint and exit 2, as everything else."""
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx is not None else "autotunectl"
            fail(_sentence(error), error.exit_code, f"{path} --help")
        except click.ClickException as error:
            fail(error.format_message(), error.exit_code)
        except click.Abort:
            sys.exit(wire.EXIT_INTERRUPTED_HERE)
        except OSError as error:
            if error.errno == errno.ENOSPC and error.filename is None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what still waits there is lost
            fail(f"{error.filename or 'stdout'}: {error.strerror or error}", 1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(wire.EXIT_INTERRUPTED_HERE)
        except CallError as error:
            fail(
                in_flags(error),
                wire.EXIT_OF_ERROR.get(error.code, 1),
                hint(error, ctx.invoked_subcommand),
            )
        except ClientError as error:
            fail(str(error), error.exit_code, error.remedy)


def _reachable(command: click.Command) -> None:
    """Have a command take `--socket` and `--no-autostart` behind its name as well as before it. Idempotent."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _reachable(inner)
    if not any(option.name == "socket" for option in command.params):
        command.params += [
            click.Option(["--socket"], hidden=True, expose_value=False, callback=_socket),
            click.Option(
                ["--no-autostart"],
                is_flag=True,
                hidden=True,
                expose_value=False,
                callback=_no_autostart,
            ),
        ]


def _socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj = _reach(value, ctx.obj.hosts, autostart=ctx.obj.autostart)


def _no_autostart(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.obj = _reach(ctx.obj.socket, ctx.obj.hosts, autostart=False)


def _reach(socket: str | None, hosts: tuple[str, ...], *, autostart: bool) -> Reach:
    if socket and hosts:
        message = "--socket names an agent of this machine, --host one of another: give one of them"
        raise click.UsageError(message)
    return Reach(socket, autostart=autostart, hosts=hosts)


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
    "--socket", metavar="PATH", envvar=wire.SOCKET_VARIABLE, help="The agent's control socket."
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
    ctx.obj = _reach(socket, hosts, autostart=not no_autostart)


def _sentence(error: click.UsageError) -> str:
    """What is wrong with the words, on one line, with the nearest command that exists."""
    message = error.format_message().replace("\n", " ").rstrip(".")
    import difflib

    unknown = re.search(r"No such command '(.*)'", message)
    near = difflib.get_close_matches(unknown[1], COMMANDS, 1) if unknown is not None else []
    return f"{message}. Did you mean '{near[0]}'?" if near else message
