"""llama.cpp's `llama-server`, or the same server out of the wheel `xllamacpp`.

Each slot gets the whole context asked for: the server divides `-c` among its slots. Must not know how
it is measured.
"""

from __future__ import annotations

import importlib.util
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
from autotuned.providers.interface import (
    Binary,
    CatalogueEntry,
    Command,
    Launch,
)

NAME = "llama-server"
LAUNCHER = Path(__file__).with_name("llama_launcher.py")

HEADROOM = 256
"""Tokens beyond the target context in stage 1: the first prompt's length is still an estimate."""

FLAGS_S = 5.0

_SETTINGS = ("LLAMA_",)

_CANDIDATE_FLAGS = ("--no-webui", "--offline", "--no-cache-prompt", "--cache-ram 0")
_NEEDED = (
    *_CANDIDATE_FLAGS,
    *("--alias x", "--jinja", "-np 1", "-c 512", "-no-kvu", "-ctk q8_0", "-ctv q8_0"),
)
"""Every flag that a candidate may be started with, with a value where it takes one."""

_CACHE_TYPES = {8: "q8_0", 4: "q4_0"}

_STAMP = re.compile(r"^(?:\d+\.)?\d\d\.\d{3}\.\d{3} [A-Z] +")


class LlamaServer:
    """The adapter of `llama-server`."""

    kind = "llama-server"
    weights: WeightsFormat = "gguf"
    catalogue: Sequence[CatalogueEntry] = ()
    readiness: tuple[str, ...] = ("/v1/models", "/health")
    fatal = log_reason.FATAL

    def __init__(
        self, named: Path | None, extra_args: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        """`named`: the binary of the settings, if any; `environ`: the agent's environment."""
        self._named, self._extra, self._environ = named, tuple(extra_args), environ
        names = programs.names(named, NAME, LAUNCHER.name)
        self.commands: Commands = [*((name,) for name in names), ("llama", "serve")]

    def find(self) -> tuple[str, ...] | None:
        """The command: the settings' binary, one of the PATH, or our launcher around the wheel."""
        if self._named is not None:
            return (str(programs.named(self._named)),)
        path = programs.on_path(NAME, self._environ)
        if path is not None:
            return (str(path),)
        if importlib.util.find_spec("xllamacpp") is not None:
            return (sys.executable, "-P", str(LAUNCHER))
        return None

    async def locate(self) -> Binary:
        """Find the server and ask its version. Raises ProviderMissing with the remedy."""
        command = self.find()
        if command is None:
            message = (
                f"no {NAME} on the PATH: install llama.cpp, or pip install 'autotuned[llama]', "
                "or name the program as [provider] binary in autotuned.toml"
            )
            raise ProviderMissing(message)
        answer = await programs.ask([*command, "--version"], self._environ)
        version = _version(answer)
        if answer.code != 0 or version is None:
            message = f"{' '.join(command)} --version {answer.ended}: {answer.said}"
            raise ProviderMissing(message)
        await self._check_flags(command, version)
        return Binary(command, version)

    async def _check_flags(self, command: tuple[str, ...], version: str) -> None:
        """Raise ProviderMissing for a server too old for a flag that every candidate gets.

        Flags are read in their order and `--version` ends the reading, so a server that knows them all
        answers as to `--version` alone. That holds whatever names its help gives them.
        """

        async def refused(flags: Sequence[str]) -> bool:
            words = [word for flag in flags for word in flag.split()]
            argv = [*command, *words, "--version"]
            answer = await programs.ask_once(argv, self._environ, timeout_s=FLAGS_S)
            return answer.code not in (0, None)

        if not await refused(_NEEDED):
            return
        unknown = [flag.split()[0] for flag in _NEEDED if await refused([flag])]
        if unknown:
            message = (
                f"{' '.join(command)} ({version}) does not know {', '.join(unknown)}, and every candidate "
                "is started with it; update llama.cpp, or name a newer program as [provider] binary"
            )
            raise ProviderMissing(message)

    def command(self, binary: Binary, launch: Launch) -> Command:
        """The server with one model, its prompt caches off and a fixed context for each slot."""
        argv = self._serving(binary, launch)
        argv += ["--host", "127.0.0.1", "--port", str(launch.port)]
        argv += " ".join(_CANDIDATE_FLAGS).split()
        return Command(argv=tuple(argv), env=programs.OFFLINE, settings=_SETTINGS)

    def serve_argv(self, binary: Binary, launch: Launch) -> tuple[str, ...]:
        """The model and the knobs; prompt cache, web interface, host and port are the operator's own choice."""
        return tuple(self._serving(binary, launch))

    def _serving(self, binary: Binary, launch: Launch) -> list[str]:
        # Arguments of the settings come first: a knob under test must win over one given there.
        argv = [*binary.command, *self._extra, "-m", str(launch.weights)]
        argv += ["--alias", launch.model, "--jinja"]
        if launch.knobs is None:
            return [*argv, "-np", "1", "-c", str(launch.target_context + HEADROOM)]
        slots = launch.knobs.max_batch
        argv += ["-np", str(slots), "-c", str(launch.knobs.max_context * slots), "-no-kvu"]
        if launch.knobs.kv_bits is not None:
            cache = _CACHE_TYPES[launch.knobs.kv_bits]
            argv += ["-ctk", cache, "-ctv", cache]
        return argv

    def serves(self, listing: Any, model: str) -> bool:
        """It lists the alias; one that holds commas it takes for several."""
        aliases = {part.strip() for part in model.split(",")} | {model}
        return not aliases.isdisjoint(naming.listed(listing))

    def request_model(self, launch: Launch) -> str:
        """The alias."""
        return launch.model

    def telling_line(self, log: str) -> str | None:
        """The line of a candidate's log that says best why it failed, without its time and level."""
        line = log_reason.telling_line(log)
        return _STAMP.sub("", line) if line else None


def _version(answer: programs.Answer) -> str | None:
    """What stands behind `version:`; the lines after it name a compiler."""
    text = f"{answer.out}\n{answer.err}"
    found = re.search(r"^version:\s*(\S.*)$", text, re.MULTILINE)
    return programs.last_line(found.group(1) if found else text)
