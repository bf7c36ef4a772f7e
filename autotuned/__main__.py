"""`autotuned`: flags and settings in, the agent runs in the foreground, an exit code out.

The only place that ends the process. 0: stopped as asked; 1: another one runs, or a bug; 2: bad settings.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from autotuned import __version__
from autotuned.errors import AlreadyRunning, AutotunedError

NOT_DRAWN = ("rich", "httpx._main")
"""Loaded by structlog and httpx wherever they are installed, for colours and a command line that an agent
has no use for; both do without what cannot be imported. 4.5 MB of memory and 90 modules."""


def main(words: list[str] | None = None) -> NoReturn:
    """Parse, claim the home, serve."""
    flags = _parser().parse_args(words)
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal changes nothing
    try:
        _check(flags) if flags.check else _run(flags)
    except AlreadyRunning as error:
        _fail(error, 1)
    except AutotunedError as error:
        _fail(error, 2)
    except OSError as error:
        if error.filename is None:
            raise
        remedy = "free some space, or make its folder writable for this user"
        _fail(AutotunedError(f"{error.filename}: {error.strerror}; {remedy}"), 2)
    sys.exit(0)


def _check(flags: argparse.Namespace) -> None:
    from autotuned import settings  # noqa: PLC0415 - `--help` and `--version` answer without it

    settings.load(os.environ, database=flags.db_path, socket=flags.socket)


def _run(flags: argparse.Namespace) -> None:
    for name in NOT_DRAWN:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    from autotuned import (  # noqa: PLC0415 - after that; `--help` and `--version` answer without it
        daemon,
        logs,
        settings,
    )
    from autotuned.host import machine  # noqa: PLC0415

    machine.give_memory_back()
    lock = daemon.claim(os.environ)
    try:
        try:
            orphans = daemon.sweep(os.environ)
        finally:  # nothing may come before the live provider, a bug neither
            recovered = daemon.restore(os.environ)
        load = partial(settings.load, os.environ, database=flags.db_path, socket=flags.socket)
        try:
            chosen = load()
            logs.set_up(chosen, os.environ)
        except BaseException:
            daemon.restore_before_end(recovered, os.environ)
            raise
        if orphans:
            daemon.log.warning("ended candidates that a crash left behind", count=orphans)
        try:
            asyncio.run(daemon.serve(chosen, dict(os.environ), load, recovered))
        except Exception:
            daemon.restore_before_end(recovered, os.environ)
            raise
    finally:
        lock.release()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autotuned",
        description="The agent that finds the biggest model this machine can usefully serve. Runs in the foreground; "
        "`autotunectl` talks to it and starts it when needed.",
        epilog="example: autotuned --db-path ~/tuning.sqlite",
    )
    parser.add_argument("--socket", type=Path, help="control socket (AUTOTUNED_SOCKET)")
    parser.add_argument("--db-path", type=Path, help="database (AUTOTUNED_DB_PATH)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="only read the settings, and say what is wrong with them",
    )
    parser.add_argument("--version", action="version", version=f"autotuned {__version__}")
    return parser


def _fail(error: AutotunedError, code: int) -> NoReturn:
    print(f"autotuned: {error.message}", file=sys.stderr)  # noqa: T201 - before there is a log
    sys.exit(code)


if __name__ == "__main__":
    main()
