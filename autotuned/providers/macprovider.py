"""macprovider: the server that also joins a network, here always started without joining it.

Left alone it reads the operator's configuration and `MACPROVIDER_*`, so every candidate gets a
configuration of ours that holds no identity, credential or knob. Must not know how it is measured.
"""

from __future__ import annotations

import os
import re
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

NAME = "macprovider-cli"


PRIVATE_CONFIG = """\
# Written by autotuned for one candidate. The model, the port and the knobs stand on its command line.
enable_receipts: false
enable_warm_swap: false
warmup_enabled: false
losslessness_probe_enabled: false
donor_mode: false
auto_update_enabled: false
idle_prewarm:
  enabled: false
"""

# What `serve --help` of a binary lists; asked once for each path, size and modification time.
_flags_seen: dict[tuple[str, int, int], frozenset[str]] = {}


class MacProvider:
    """The adapter of `macprovider-cli serve`."""

    kind = "macprovider"
    weights: WeightsFormat = "mlx"
    catalogue: Sequence[CatalogueEntry] = MLX_CATALOGUE
    readiness: tuple[str, ...] = ("/v1/models",)

    def __init__(
        self, named: Path | None, extra_args: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        """`named`: the binary of the settings, if any; `environ`: the agent's environment."""
        self._named, self._extra, self._environ = named, tuple(extra_args), environ
        self.commands: Commands = [(name, "serve") for name in programs.names(named, NAME)]

    def find(self) -> Path | None:
        """The binary: of the settings, of the PATH, or where its installer puts it."""
        if self._named is not None:
            return programs.named(self._named)
        home = Path(self._environ.get("HOME") or Path.home())
        usual = (home / "macprovider" / NAME, home / ".local" / "bin" / NAME)
        return programs.on_path(NAME, self._environ) or programs.first(usual)

    async def locate(self) -> Binary:
        """Find the binary and ask its version and its flags. Raises ProviderMissing with the remedy."""
        path = self.find()
        if path is None:
            message = (
                f"no {NAME} on the PATH, in ~/macprovider or in ~/.local/bin: install macprovider, "
                "or name the program as [provider] binary in autotuned.toml"
            )
            raise ProviderMissing(message)
        answer = await programs.ask([str(path), "--version"], self._environ)
        if answer.code != 0:
            message = f"{path} --version {answer.ended}: {answer.said}; install macprovider again"
            raise ProviderMissing(message)
        version = programs.last_line(answer.out) or programs.last_line(answer.err)
        version = version or await programs.digest(path)
        if "--no-join" not in await self._flags(path):
            message = (
                f"{path} ({version}) is too old: its `serve --help` lists no --no-join, and without it "
                "a candidate would join the network; update macprovider"
            )
            raise ProviderMissing(message)
        return Binary((str(path),), version)

    def command(self, binary: Binary, launch: Launch) -> Command:
        """`serve` without joining, with a private configuration and at most the three knob flags."""
        config = launch.folder / "macprovider.yaml"
        # Arguments of the settings come first: a knob under test must win over one given there.
        argv = [*binary.command, "serve", *self._extra]
        argv += ["--model", self.request_model(launch), "--no-join", "--port", str(launch.port)]
        argv += ["--config", str(config)]
        if "--candidate-parent-pid" in _flags_seen.get(_identity(Path(binary.command[0])), ()):
            argv += ["--candidate-parent-pid", str(launch.parent_pid)]
        argv += _knob_flags(launch)
        return Command(
            argv=tuple(argv),
            env=programs.OFFLINE,
            files={config: PRIVATE_CONFIG},
        )

    def serve_argv(self, binary: Binary, launch: Launch) -> tuple[str, ...]:
        """`serve` with the model and the knobs; the rest stands in the operator's configuration."""
        return (
            *binary.command,
            "serve",
            "--model",
            self.request_model(launch),
            *_knob_flags(launch),
        )

    def serves(self, listing: Any, model: str) -> bool:
        """The id that it lists is the one it serves; of a local path it may list the name alone."""
        wanted = {model}
        if naming.is_path(model):
            path = naming.expanded(model, self._environ)
            wanted |= {path, os.path.realpath(path), os.path.basename(path)}  # noqa: PTH119
        return not wanted.isdisjoint(naming.listed(listing))

    def request_model(self, launch: Launch) -> str:
        """The same words as behind `--model`: the id, or the folder of a local model."""
        return str(launch.weights) if naming.is_path(launch.model) else launch.model

    def telling_line(self, log: str) -> str | None:
        """The line of a candidate's log that says best why it failed."""
        return log_reason.telling_line(log)

    async def _flags(self, path: Path) -> frozenset[str]:
        identity = _identity(path)
        if identity not in _flags_seen:
            argv = [str(path), "serve", "--help"]
            answer = await programs.ask(argv, self._environ)
            if answer.code is None:
                message = f"{path} serve --help {answer.ended}: {answer.said}"
                raise ProviderMissing(message)
            text = f"{answer.out}\n{answer.err}"
            flags = re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", text)
            _flags_seen[identity] = frozenset(flags)
        return _flags_seen[identity]


def _knob_flags(launch: Launch) -> list[str]:
    if launch.knobs is None:
        return []
    bits = [] if launch.knobs.kv_bits is None else ["--kv-bits", str(launch.knobs.kv_bits)]
    return [
        *bits,
        "--max-batch",
        str(launch.knobs.max_batch),
        "--max-context",
        str(launch.knobs.max_context),
    ]


def _identity(path: Path) -> tuple[str, int, int]:
    """Changes whenever the binary is replaced, its own updater included."""
    try:
        status = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), status.st_size, status.st_mtime_ns
