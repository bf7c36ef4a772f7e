"""Which program a job runs, and in which environment: absolute paths that are still there after an upgrade.

The agent that is installed beside this client, and no other: a PATH is never searched for it. Its
environment is written down once, because a service manager gives a job next to none.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from autotunectl.service import ServiceError
from autotuned import __version__
from autotuned.shared import tools

SYSTEM_PATH = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
USUAL_PATH = ("/opt/homebrew/bin", "/usr/local/bin")
TOOLS = ("macprovider-cli", "llama-server", "mlx_lm.server", "launchctl", "caffeinate", "pmset")
"""Programs that the agent looks for by name: where this terminal finds them, the job shall, too."""
CARRIED = (
    "AUTOTUNED_SOCKET",
    "AUTOTUNED_DB_PATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
)
"""Variables that say where files are. Tokens are no part of it: a job's file is no place for a secret."""

_FLEETING = (
    (r"/Cellar/", "Homebrew removes this folder at the next upgrade"),
    (
        r"/\.cache/uv/|/uv/archive-v\d+/|/uv/builds-v\d+/",
        "uv clears this folder at will (uvx, uv run --with)",
    ),
    (r"/pipx/\.cache/|/\.cache/pipx/", "pipx clears this folder after some days (pipx run)"),
    (r"^/(?:private/)?(?:tmp|var/tmp|var/folders)/", "the system clears this folder"),
    (r"/nix/store/", "the next garbage collection may remove this folder"),
    (r"^/Volumes/", "this volume may not be mounted at login"),
)


def program() -> tuple[str, ...]:
    """The agent beside this client, as words to run. Links below it are kept: they are what stays stable."""
    python = _stable(Path(os.path.abspath(sys.executable)))  # noqa: PTH100 - resolve() would leave the venv
    beside = python.with_name("autotuned")
    return (str(beside),) if beside.is_file() else (str(python), "-m", "autotuned")


def doubts(words: tuple[str, ...]) -> list[str]:
    """What may make this program vanish one day, each with the reason."""
    base = Path(words[0]).parent.parent / "pyvenv.cfg"
    paths = [words[0], *_base_python(base)]
    return [
        f"{path} may not last: {reason}; install autotuned with pipx or uv tool, or into a virtual environment"
        for path in paths
        for pattern, reason in _FLEETING
        if re.search(pattern, path)
    ]


def environment(environ: Mapping[str, str], words: tuple[str, ...]) -> dict[str, str]:
    """PATH and the places of files, for a job that runs `words`."""
    found = [shutil.which(tool, path=environ.get("PATH")) for tool in TOOLS]
    folders = [str(Path(path).parent) for path in found if path and path.startswith("/")]
    usual = [folder for folder in USUAL_PATH if Path(folder).is_dir()]
    path = dict.fromkeys([*folders, str(Path(words[0]).parent), *usual, *SYSTEM_PATH])
    carried = {name: environ[name] for name in CARRIED if environ.get(name)}
    return {"PATH": ":".join(path), **carried}


def verify(words: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """See that the program runs in nearly nothing, and is of this client's version. Raises ServiceError."""
    answer = tools.run(
        ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in environ.items()), *words, "--version"], 30.0
    )
    if answer.code != 0:
        message = f"{' '.join(words)} --version does not run: {answer.line}"
        raise ServiceError(message, "install autotuned again, then run autotunectl install")
    if answer.out.split()[-1:] != [__version__]:
        message = f"{words[0]} is version {answer.out.strip()!r}, this client is {__version__}"
        raise ServiceError(message, "run the autotunectl that is installed beside it")


def check(words: tuple[str, ...]) -> None:
    """See that the program can use its settings, before one that runs gives way to it. Raises ServiceError."""
    answer = tools.run([*words, "--check"], 30.0)
    if answer.code != 0:
        raise ServiceError(answer.line.removeprefix("autotuned: "), "correct it, then try again")


def _stable(path: Path) -> Path:
    """Homebrew's lasting name for a path in its cellar, where there is one."""
    found = re.match(r"^(.*)/Cellar/([^/]+)/[^/]+/(.*)$", str(path))
    lasting = Path(f"{found[1]}/opt/{found[2]}/{found[3]}") if found else path
    return lasting if lasting.exists() else path


def _base_python(config: Path) -> list[str]:
    """The interpreter below a virtual environment."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [
        line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == "home"
    ]
