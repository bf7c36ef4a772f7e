"""The commands: parse the words, make one call, render the answer. Values are judged by the agent."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from autotunectl import daemonctl, render
from autotunectl.client import CallError, Client, ClientError
from autotuned import __version__, wire

EXIT_HELP = """\b
Exit codes: 0 ok, 1 internal error, 2 bad request, 3 nothing feasible, 4 budget used up, 5 partial
recommendation, 6 interrupted, 7 provider conflict, 8 damaged weights, 9 agent not reachable, 10 busy,
11 no such run, 12 apply refused, 13 restore outstanding, 130 Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How the agent is reached."""

    socket: str | None
    autostart: bool

    def client(self) -> Client:
        """A client whose agent answers, started if need be."""
        return daemonctl.connect(self.socket, autostart=self.autostart)

    def path(self) -> str:
        """The socket's path."""
        return Client(self.socket).path


class Commands(click.Group):
    """Turns what the client raises into one line on stderr, a hint, and the documented exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(wire.EXIT_INTERRUPTED_HERE)
        except CallError as error:
            _fail(_in_flags(error), wire.EXIT_OF_ERROR.get(error.code, 1), _hint(error))
        except ClientError as error:
            _fail(str(error), wire.EXIT_UNREACHABLE, "autotunectl daemon start")


@click.group(
    cls=Commands, epilog=EXIT_HELP, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--socket", metavar="PATH", envvar=wire.SOCKET_VARIABLE, help="The agent's control socket."
)
@click.option("--no-autostart", is_flag=True, help="Do not start an agent where none runs.")
@click.version_option(__version__, prog_name="autotunectl")
@click.pass_context
def main(ctx: click.Context, socket: str | None, no_autostart: bool) -> None:
    """Find the biggest model that this machine can usefully serve, by measuring.

    \b
    Example:
      autotunectl start --target-context 4000 --wait
    """
    ctx.obj = Reach(socket, autostart=not no_autostart)


def _csv(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return (
        None
        if value is None
        else [word.strip() for word in value.split(",")]
        if value.strip()
        else []
    )


def _csv_int(ctx: click.Context, option: click.Parameter, value: str | None) -> list[Any] | None:
    words = _csv(ctx, option, value)
    return (
        None
        if words is None
        else [None if word == "unset" else _integer(word, option) for word in words]
    )


def _integer(word: str, option: click.Parameter) -> int:
    try:
        return int(word)
    except ValueError:
        message = f"{word!r} is not an integer"
        raise click.BadParameter(message, param=option) from None


REQUEST_OPTIONS = [
    click.option(
        "--target-context", type=int, help="Tokens of prompt and answer to serve.  [default: 2000]"
    ),
    click.option(
        "--candidate-models",
        callback=_csv,
        metavar="CSV",
        help="Models, largest first; the order is the contract.",
    ),
    click.option("--max-model-size", metavar="SIZE", help="Trim the default list, e.g. 16B."),
    click.option("--min-model-size", metavar="SIZE", help="Trim the default list, e.g. 3B."),
    click.option(
        "--kv-bits-axis",
        callback=_csv_int,
        metavar="CSV",
        help="Of 4, 8, unset.  [default: unset,4,8]",
    ),
    click.option("--max-batch-axis", callback=_csv_int, metavar="CSV", help="[default: 1,2]"),
    click.option(
        "--max-context-axis", callback=_csv_int, metavar="CSV", help="[default: the target context]"
    ),
    click.option("--stage1-replicates", type=int, help="Requests a candidate.  [default: 1]"),
    click.option("--stage2-replicates", type=int, help="Requests a cell.  [default: 3]"),
    click.option(
        "--gate-ttft-ms", type=int, help="Longest p95 to the first token.  [default: 60000]"
    ),
    click.option("--tps-tie-epsilon", type=float, help="Relative width of a tie.  [default: 0.02]"),
    click.option(
        "--max-duration",
        type=float,
        metavar="SECONDS",
        help="Budget of the whole run.  [default: 7200]",
    ),
    click.option("--drain-grace", type=float, metavar="SECONDS", help="[default: 30]"),
    click.option("--port", type=int, help="Where candidates listen.  [default: 18080]"),
    click.option("--retain-runs", type=int, help="Runs to keep.  [default: 50]"),
    click.option("--cell-order", metavar="ORDER", help="axis, reverse or random.  [default: axis]"),
    click.option(
        "--cooldown-s", type=float, metavar="SECONDS", help="Pause before each cell.  [default: 0]"
    ),
    click.option("--provider", metavar="KIND", help="auto, macprovider, mlx-lm or llama-server."),
]


def _request_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(REQUEST_OPTIONS):
        command = option(command)
    return command


@main.command()
@_request_options
@click.option(
    "--wait", is_flag=True, help="Follow the run, then print the recommendation; Ctrl-C cancels it."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("-v", "--verbose", is_flag=True, help="Say which agent is asked.")
@click.pass_obj
def start(
    reach: Reach, /, wait: bool, dry_run: bool, as_json: bool, verbose: bool, **request: Any
) -> None:
    """Start a run; it goes on without this terminal.

    \b
    Example:
      autotunectl start --target-context 4000 --max-model-size 16B --wait
    """
    params = {name: value for name, value in request.items() if value is not None}
    with reach.client() as client, Interrupts() as interrupts:
        if verbose:
            click.echo(f"agent at {client.path}", err=True)
        if dry_run:
            found = client.call("start", dry_run=True, **params)["plan"]
            _warn(found["warnings"])
            click.echo(_json(found) if as_json else render.plan(found))
            return
        if wait:
            interrupts.hold()
        try:
            begun = client.call("start", **params)
        except CallError as error:
            if as_json and error.data.get("run_id") and error.code != wire.BUSY:
                click.echo(_json(client.call("result", run_id=error.data["run_id"])))
            raise
        _warn(begun["warnings"])
        if not wait:
            _announce(begun, as_json=as_json)
            return
        _wait_for(reach, begun["run_id"], interrupts, as_json=as_json)


@main.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--watch", "watching", is_flag=True, help="Follow the run.")
@click.pass_obj
def status(reach: Reach, run: str | None, as_json: bool, watching: bool) -> None:
    """The agent, the run and what it is doing.

    \b
    Example:
      autotunectl status --json
    """
    with reach.client() as client:
        found = client.call("status", **_named(run))
        click.echo(_json(found) if as_json else render.status(found))
    if watching and found["run"] is not None:
        _follow(reach, found["run"]["run_id"])


@main.command()
@click.argument("run", required=False)
@click.pass_obj
def watch(reach: Reach, run: str | None) -> None:
    """Follow a run from any terminal; Ctrl-C detaches.

    \b
    Example:
      autotunectl watch
    """
    with reach.client() as client:
        found = client.call("status", **_named(run))["run"]
    if found is None:
        _fail("there is no run yet", wire.EXIT_NO_SUCH_RUN, "autotunectl start")
    _follow(reach, found["run_id"])


@main.command()
@click.argument("run", required=False)
@click.option("--no-wait", is_flag=True, help="Return as soon as cancelling has begun.")
@click.pass_obj
def cancel(reach: Reach, run: str | None, no_wait: bool) -> None:
    """End a run early; what it has found so far is kept.

    \b
    Example:
      autotunectl cancel
    """
    with reach.client() as client:
        found = client.call("cancel", **_named(run))
        if not found["cancelled"]:
            click.echo("no run is active", err=True)
            return
        if no_wait:
            click.echo(f"cancelling {found['run_id']}")
            return
        ended = client.wait(found["run_id"])
        click.echo(f"{found['run_id']} ended: {ended['exit_reason'] if ended else 'unknown'}")


@main.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="The whole document (FR-F.2).")
@click.pass_obj
def show(reach: Reach, run: str | None, as_json: bool) -> None:
    """The recommendation of a run again.

    \b
    Example:
      autotunectl show --json
    """
    with reach.client() as client:
        document = client.call("result", **_named(run))
    _present(document, as_json=as_json)


@main.command()
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def runs(reach: Reach, limit: int, as_json: bool) -> None:
    """A table of runs, newest first.

    \b
    Example:
      autotunectl runs --limit 5
    """
    with reach.client() as client:
        found = client.call("runs", limit=limit)
    click.echo(_json(found) if as_json else render.columns(render.runs(found["runs"])))


@main.command()
@click.argument("method")
@click.argument("params", required=False, default="{}")
@click.pass_obj
def rpc(reach: Reach, method: str, params: str) -> None:
    """One raw call of the control socket.

    \b
    Example:
      autotunectl rpc runs '{"limit": 1}'
    """
    try:
        content = json.loads(params)
    except ValueError as error:
        _fail(f"PARAMS is not JSON: {error}", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    if not isinstance(content, dict):
        _fail("PARAMS is not a JSON object", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    with reach.client() as client:
        click.echo(_json(client.request(method, content)))


@main.group()
def daemon() -> None:
    """Start and stop the agent without a service manager.

    \b
    Example:
      autotunectl daemon restart
    """


@daemon.command("start")
@click.pass_obj
def daemon_start(reach: Reach) -> None:
    """Start the agent, where none runs.

    \b
    Example:
      autotunectl daemon start
    """
    with daemonctl.connect(reach.socket, autostart=True) as client:
        click.echo(f"running, pid {client.call('version')['pid']}")


@daemon.command("stop")
@click.pass_obj
def daemon_stop(reach: Reach) -> None:
    """Stop the agent; a run in progress is cancelled first.

    \b
    Example:
      autotunectl daemon stop
    """
    click.echo("stopped" if daemonctl.stop(reach.socket) else "no agent was running")


@daemon.command("restart")
@click.pass_obj
def daemon_restart(reach: Reach) -> None:
    """Stop the agent and start it again.

    \b
    Example:
      autotunectl daemon restart
    """
    daemonctl.stop(reach.socket)
    click.echo(f"running, pid {daemonctl.start(reach.socket)['pid']}")


@daemon.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def daemon_status(reach: Reach, as_json: bool) -> None:
    """Whether the agent runs; exit 9 when it does not.

    \b
    Example:
      autotunectl daemon status
    """
    with Client(reach.socket, connect_s=0.0) as client:
        found = client.call("version")
    click.echo(
        _json(found) if as_json else f"running, pid {found['pid']}, version {found['version']}"
    )


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      eval "$(autotunectl completion zsh)"
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(main, {}, "autotunectl", "_AUTOTUNECTL_COMPLETE").source())


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def demo(as_json: bool) -> None:
    """Tune small models with a real server on this machine, in about a minute.

    \b
    Example:
      autotunectl demo
    """
    from autotunectl.demo import run_demo

    sys.exit(run_demo(json_output=as_json))


# --- what several commands share --------------------------------------------------------------------


class Interrupts:
    """Ctrl-C, held back while a run is being asked for, so that none can fall between the start and the wait."""

    def __init__(self) -> None:
        self._held: bool = False
        self._pending: bool = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def hold(self) -> None:
        """From now on only remember it."""
        self._held = True

    def release(self) -> None:
        """Raise KeyboardInterrupt when it comes from now on, or at once if it has come meanwhile."""
        self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _arrived(self, *_: object) -> None:
        if not self._held:
            raise KeyboardInterrupt
        self._pending = True


def _wait_for(reach: Reach, run_id: str, interrupts: Interrupts, *, as_json: bool) -> NoReturn:
    """Follow a run to its end and present it. The first Ctrl-C cancels the run, the second one leaves it alone."""
    from autotunectl.display import follow

    cancelled = False
    while True:
        try:
            interrupts.release()
            follow(reach.path(), run_id)
            interrupts.hold()
            break
        except KeyboardInterrupt:
            interrupts.hold()
            if cancelled:
                click.echo("left: the agent goes on cancelling; see autotunectl status", err=True)
                sys.exit(wire.EXIT_INTERRUPTED_HERE)
            cancelled = True
            click.echo("cancelling; Ctrl-C again leaves that to the agent", err=True)
            with Client(reach.socket) as client:
                client.call("cancel", run_id=run_id)
    with Client(reach.socket) as client:
        client.wait(run_id)
        document = client.call("result", run_id=run_id)
    _present(document, as_json=as_json, code=wire.EXIT_INTERRUPTED_HERE if cancelled else None)


def _present(document: dict[str, Any], *, as_json: bool, code: int | None = None) -> NoReturn:
    """Print a result, and end with the code of its exit reason."""
    if as_json:
        click.echo(_json(document))
    elif document["recommendation"] is not None:
        click.echo(render.recommendation(document))
    if not as_json:
        _warn(document["warnings"])
        if document["exit_reason"] != "ok" and document["state"] == "finished":
            for line in render.failure(document):
                click.echo(f"autotunectl: {line}" if not line.startswith(" ") else line, err=True)
    running = document["state"] == "running"
    if running and not as_json:
        click.echo("the run goes on: autotunectl watch", err=True)
    sys.exit(
        code if code is not None else 0 if running else wire.EXIT_CODES[document["exit_reason"]]
    )


def _follow(reach: Reach, run_id: str) -> None:
    from autotunectl.display import follow

    try:
        follow(reach.path(), run_id)
    except KeyboardInterrupt:
        click.echo("detached: the run goes on; autotunectl watch", err=True)


def _announce(begun: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(_json(begun))
        return
    click.echo(begun["run_id"])
    click.echo(
        "follow it with: autotunectl watch; result: autotunectl show; end it: autotunectl cancel",
        err=True,
    )


def _named(run: str | None) -> dict[str, str]:
    return {} if run is None else {"run_id": run}


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _in_flags(error: CallError) -> str:
    """The message with the flag's name in place of the field's."""
    field = error.data.get("field")
    return (
        error.message
        if not field
        else error.message.replace(f"{field}:", f"--{field.replace('_', '-')}:", 1)
    )


def _hint(error: CallError) -> str | None:
    hints = {
        wire.BUSY: "autotunectl watch, or autotunectl cancel",
        wire.INVALID_PARAMS: "autotunectl start --help",
        wire.NOT_FOUND: "autotunectl runs",
        wire.INTERNAL_ERROR: "the agent's log has the details",
    }
    return hints.get(error.code)


def _fail(message: str, code: int, hint: str | None = None) -> NoReturn:
    click.echo(f"autotunectl: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    sys.exit(code)
