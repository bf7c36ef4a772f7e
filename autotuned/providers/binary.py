"""Finding a serving program, and asking it one short question such as its version.

The question is asked in a session of its own, with a time-out, without a terminal and without what
the operator's environment would make it do. Must not know what the answers mean.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from autotuned.errors import ProviderMissing
from autotuned.host.children import programs
from autotuned.shared.redaction import is_telling
from autotuned.shared.text import one_line
from autotuned.shared.tools import Answer, is_program

VERSION_LIMIT = 200

OURS = ("MACPROVIDER_", "AUTOTUNED_", "SSH_AUTH_SOCK")
"""Prefixes of variables that configure the operator's own server or this agent, or reach their keys."""

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
}
"""Set for every candidate: its weights are here already, and nothing of it leaves the machine."""


EXTRAS = {"llama": "xllamacpp", "mlx": "mlx-lm", "search": "optuna"}


def install_extra(extra: str) -> str:
    """The command that adds what an extra brings to the environment that this program runs in."""
    places = Path(sys.prefix).parts
    if "pipx" in places:
        return f"pipx inject autotuned {EXTRAS[extra]}"
    if "uv" in places:
        return f"uv pip install --python {sys.prefix} {EXTRAS[extra]}"
    return f"pip install 'autotuned[{extra}]'"


def named(binary: Path) -> Path:
    """The program that the settings name, absolute. Raises ProviderMissing when it cannot be run."""
    path = binary.expanduser().absolute()
    if not is_program(path):
        message = f"[provider] binary: {path} is not a program that can be executed; correct it in autotuned.toml"
        raise ProviderMissing(message)
    return path


_PYTHON = re.compile(r"python[\d.]*")


def interpreter(script: Path) -> str | None:
    """The Python that a console script runs with; a program called `python` is it itself.

    Installers write `#!/path/python`, or where that is too long `#!/bin/sh` and an `exec` line.
    """
    if _PYTHON.fullmatch(script.name):
        return str(script)
    try:
        with script.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace").splitlines()[:3]
    except OSError:
        return None
    if not head or not head[0].startswith("#!"):
        return None
    for line in head:
        for word in re.findall(r"[^\s'\"#!]+", line):
            if _PYTHON.fullmatch(word.rsplit("/", 1)[-1]):
                return str(word)
    return None


def on_path(name: str, environ: Mapping[str, str]) -> Path | None:
    """The first executable `name` on the PATH of `environ`, absolute."""
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    return Path(found).absolute() if found else None


def first(paths: Sequence[Path]) -> Path | None:
    """The first of `paths` that is an executable file."""
    return next((path for path in paths if is_program(path)), None)


def isolated(environ: Mapping[str, str], settings: Sequence[str] = ()) -> dict[str, str]:
    """`environ` as a candidate may see it: without credentials, and without what configures servers.

    `settings` are further prefixes of variables by which this kind of server is configured.
    """
    dropped = (*OURS, *settings)
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(dropped) and not is_telling(name)
    }


async def ask(
    argv: Sequence[str], environ: Mapping[str, str], *, timeout_s: float = 20.0
) -> Answer:
    """What the program printed; never raises for what it does."""
    return await programs.run(argv, {**isolated(environ), "LC_ALL": "C"}, timeout_s=timeout_s)


_answers: dict[tuple[object, ...], Answer] = {}
"""What programs have answered, by the question and by size and time of each file in it."""


async def ask_once(
    argv: Sequence[str], environ: Mapping[str, str], *, timeout_s: float = 20.0
) -> Answer:
    """As `ask`, but once for each version of a program: what it knows does not change with the run."""
    question = tuple((word, *_file_identity(word)) for word in argv)
    if question not in _answers:
        answer = await ask(argv, environ, timeout_s=timeout_s)
        if answer.code is None:
            return answer
        _answers[question] = answer
    return _answers[question]


def _file_identity(word: str) -> tuple[int, ...]:
    """Changes whenever the file is replaced, by its own updater too; empty for a word that is no file's path."""
    if not word.startswith("/"):
        return ()
    try:
        status = os.stat(word)  # noqa: PTH116
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns


def last_line(text: str) -> str | None:
    """The last line that is not blank: stripped, printable, at most `VERSION_LIMIT` characters."""
    for line in reversed(text.splitlines()):
        if shown := one_line(line):
            return shown[:VERSION_LIMIT]
    return None


async def digest(path: Path) -> str:
    """What stands for the version of a program that has none: `sha256:` and the hash of its file. Raises ProviderMissing."""
    try:
        with path.open("rb") as file:
            found = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
    except OSError as error:
        message = f"{path}: cannot be read: {error}"
        raise ProviderMissing(message) from None
    return f"sha256:{found.hexdigest()}"
