"""mlx-lm's own HTTP server, `mlx_lm.server`.

It answers `/v1/models` even when its load has failed, so `/health` is asked too; it loads another
model when a request names one, so requests name none. Must not know how it is measured.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotuned.core.command_line import Commands
from autotuned.core.model import WeightsFormat
from autotuned.errors import ProviderMissing
from autotuned.providers import binary as programs
from autotuned.providers import log_reason, naming
from autotuned.providers.catalogue import MLX_CATALOGUE
from autotuned.providers.interface import (
    Binary,
    CatalogueEntry,
    Command,
    Launch,
)
from autotuned.shared import paths

NAME = "mlx_lm.server"

_SETTINGS = ("MLXLM_",)

_LISTED_WHEN = ("config.json", "model.safetensors.index.json", "tokenizer_config.json")
"""Files that a repository in the cache needs, or the server leaves it out of its list."""

_VERSIONS = (
    "from importlib.metadata import version; "
    "print('mlx-lm', version('mlx-lm') + ', mlx', version('mlx'))"
)

_FATAL = re.compile(rf"^Exception\ in\ thread|{log_reason.FATAL.pattern}", log_reason.FATAL.flags)
"""A load that failed ends the server's thread, and the server answers on."""

_NEEDED = (
    *("--decode-concurrency", "--prompt-concurrency", "--prompt-cache-size"),
    *("--kv-bits", "--quantized-kv-start", "--log-level"),
)
"""Every flag beside model and address that a candidate may be started with."""

_FRAME = re.compile(r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - )")


class MlxLm:
    """The adapter of `mlx_lm.server`."""

    kind = "mlx-lm"
    weights: WeightsFormat = "mlx"
    catalogue: Sequence[CatalogueEntry] = MLX_CATALOGUE
    readiness: tuple[str, ...] = ("/v1/models", "/health")
    fatal = _FATAL

    def __init__(
        self, named: Path | None, extra_args: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        """`named`: the server of the settings, if any; `environ`: the agent's environment."""
        self._named, self._extra, self._environ = named, tuple(extra_args), environ
        names = programs.names(named, NAME, "mlx_lm/server.py")
        self.commands: Commands = [*((name,) for name in names), ("mlx_lm", "server")]

    def find(self) -> Path | None:
        """The server: of the settings, beside our own interpreter, or of the PATH."""
        if self._named is not None:
            return programs.named(self._named)
        ours = Path(sys.executable).parent / NAME
        return programs.first((ours,)) or programs.on_path(NAME, self._environ)

    async def locate(self) -> Binary:
        """Find the server and the versions of its packages. Raises ProviderMissing with the remedy."""
        path = self.find()
        if path is None:
            message = (
                f"no {NAME} beside this Python or on the PATH: pip install 'autotuned[mlx]', "
                "or name the program as [provider] binary in autotuned.toml"
            )
            raise ProviderMissing(message)
        # It has no --version. The interpreter that its first line names knows what is installed.
        interpreter = _interpreter(path)
        if interpreter is None:
            message = (
                f"{path} is no Python program, so its version cannot be asked; "
                "name mlx-lm's own server as [provider] binary in autotuned.toml"
            )
            raise ProviderMissing(message)
        argv = [interpreter, "-I", "-c", _VERSIONS]
        answer = await programs.ask(argv, self._environ)
        version = programs.last_line(answer.out)
        if answer.code != 0 or version is None:
            message = f"{path}: {interpreter} does not know mlx-lm: {log_reason.telling_line(answer.err) or answer.ended}"
            raise ProviderMissing(message)
        help_ = await programs.ask_once([str(path), "--help"], self._environ)
        listed = set(re.findall(r"(?<![\w-])--[\w-]+", help_.out))
        unknown = [flag for flag in _NEEDED if flag not in listed]
        if "--model" in listed and unknown:
            message = (
                f"{path} ({version}) does not know {', '.join(unknown)}, and candidates are started with "
                "it; pip install -U mlx-lm, or name a newer program as [provider] binary"
            )
            raise ProviderMissing(message)
        return Binary((str(path),), version)

    def command(self, binary: Binary, launch: Launch) -> Command:
        """The server with its prompt cache off; looks at which files the snapshot holds."""
        argv = self._serving(binary, launch)
        argv += ["--host", "127.0.0.1", "--port", str(launch.port)]
        argv += ["--log-level", "INFO", "--prompt-cache-size", "0"]
        env = dict(programs.OFFLINE)
        if self._model(launch) != launch.model or paths.is_path(launch.model):
            # Its list walks the whole hub cache, and breaks off where there is none: an empty folder
            # of ours does instead, since nothing of the cache is needed for a path.
            env["HF_HUB_CACHE"] = str(launch.folder)
        return Command(argv=tuple(argv), env=env, settings=_SETTINGS)

    def serve_argv(self, binary: Binary, launch: Launch) -> tuple[str, ...]:
        """The model and the knobs; prompt cache, host and port are the operator's own choice."""
        return tuple(self._serving(binary, launch))

    def _serving(self, binary: Binary, launch: Launch) -> list[str]:
        # Arguments of the settings come first: a knob under test must win over one given there.
        argv = [*binary.command, *self._extra, "--model", self._model(launch)]
        if launch.knobs is None:
            return [*argv, "--decode-concurrency", "1"]
        batch = str(launch.knobs.max_batch)
        argv += ["--decode-concurrency", batch, "--prompt-concurrency", batch]
        if launch.knobs.kv_bits is not None:
            argv += ["--kv-bits", str(launch.knobs.kv_bits), "--quantized-kv-start", "0"]
        return argv

    def serves(self, listing: Any, model: str) -> bool:
        """It lists an id as such, and the folder behind `--model` with all links resolved."""
        ids = set(naming.listed(listing))
        if paths.is_path(model):
            return os.path.realpath(paths.expanded(model, self._environ)) in ids
        snapshot = f"/models--{model.replace('/', '--')}/snapshots/"
        return model in ids or any(snapshot in listed for listed in ids)

    def request_model(self, launch: Launch) -> str:
        """The server's word for the model behind `--model`; any other would make it load that one."""
        return "default_model"

    def telling_line(self, log: str) -> str | None:
        """The line of a candidate's log that says best why it failed, without the time before it."""
        line = log_reason.telling_line(log)
        return _FRAME.sub("", line) if line else None

    def _model(self, launch: Launch) -> str:
        """The id where the server would list it, else the folder, which it lists always."""
        by_id = not paths.is_path(launch.model) and all(
            (launch.weights / name).is_file() for name in _LISTED_WHEN
        )
        return launch.model if by_id else str(launch.weights)


def _interpreter(script: Path) -> str | None:
    """The Python that a console script runs with.

    Installers write `#!/path/python`, or where that is too long `#!/bin/sh` and an `exec` line.
    """
    try:
        with script.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace").splitlines()[:3]
    except OSError:
        return None
    if not head or not head[0].startswith("#!"):
        return None
    for line in head:
        for word in re.findall(r"[^\s'\"#!]+", line):
            if re.fullmatch(r"python[\d.]*", word.rsplit("/", 1)[-1]):
                return str(word)
    return None
