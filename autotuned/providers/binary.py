"""Finding a serving program, and asking it one short question such as its version.

The question is asked in a session of its own, with a time-out, without a terminal and without what
the operator's environment would make it do. Must not know what the answers mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuned.errors import ProviderMissing

ANSWER_LIMIT = 256 * 1024
VERSION_LIMIT = 200

OURS = ("MACPROVIDER_", "AUTOTUNED_")
"""Prefixes of variables that configure the operator's own server, or this agent."""

_SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH",
    re.IGNORECASE,
)
_NO_SECRET = ("TOKENIZERS_PARALLELISM",)

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
}
"""Set for every candidate: its weights are here already, and nothing of it leaves the machine."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said. `code` None: it did not end in time, or could not be started."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """Both outputs on one line, for an error message; at most 300 characters."""
        words = " ".join(f"{self.out} {self.err}".split())
        words = "".join(letter for letter in words if letter.isprintable())
        return words[:300] or "no output"

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        return "did not answer in time" if self.code is None else f"exited with code {self.code}"


def named(binary: Path, key: str = "[provider] binary") -> Path:
    """The program that the settings name, absolute. Raises ProviderMissing when it cannot be run."""
    path = binary.expanduser().absolute()
    if not _runs(path):
        message = (
            f"{key}: {path} is not a program that can be executed; correct it in autotuned.toml"
        )
        raise ProviderMissing(message)
    return path


def names(binary: Path | None, *usual: str) -> tuple[str, ...]:
    """Names of the server's program: the usual ones, and that of the settings' binary."""
    return (*usual, *((binary.name,) if binary else ()))


def on_path(name: str, environ: Mapping[str, str]) -> Path | None:
    """The first executable `name` on the PATH of `environ`, absolute."""
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    return Path(found).absolute() if found else None


def first(paths: Sequence[Path]) -> Path | None:
    """The first of `paths` that is an executable file."""
    return next((path for path in paths if _runs(path)), None)


def isolated(environ: Mapping[str, str], settings: Sequence[str] = ()) -> dict[str, str]:
    """`environ` as a candidate may see it: without credentials, and without what configures servers.

    `settings` are further prefixes of variables by which this kind of server is configured.
    """
    dropped = (*OURS, *settings)
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(dropped) and (name in _NO_SECRET or not _SECRET.search(name))
    }


async def ask(
    argv: Sequence[str], environ: Mapping[str, str], *, timeout_s: float = 20.0
) -> Answer:
    """Run `argv` to its end and give back what it printed; never raises for what the program does.

    After `timeout_s` its whole process group is killed. Outputs are cut at `ANSWER_LIMIT` bytes each.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**isolated(environ), "LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Answer(None, "", f"cannot be started: {error}")
    out, err = bytearray(), bytearray()
    ended = False
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(_drain(process.stdout, out), _drain(process.stderr, err))
            await process.wait()
            ended = True
    except TimeoutError:
        pass
    finally:
        if not ended:  # timed out, or the question itself was cancelled
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Answer(
        process.returncode if ended else None,
        out.decode("utf-8", "replace"),
        err.decode("utf-8", "replace"),
    )


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
        kept = "".join(letter for letter in line if letter.isprintable()).strip()
        if kept:
            return kept[:VERSION_LIMIT]
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


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


async def _drain(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    """Read `stream` to its end, so that the program never blocks on it; keep the first part."""
    assert stream is not None  # noqa: S101 - both pipes are asked for
    while block := await stream.read(64 * 1024):
        into.extend(block[: max(0, ANSWER_LIMIT - len(into))])
