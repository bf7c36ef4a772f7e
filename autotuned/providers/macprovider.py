"""macprovider: the server that also joins a network, here always started without joining it.

Left alone it reads the operator's configuration and `MACPROVIDER_*`, so every candidate gets a
configuration of ours that holds no identity, credential or knob. Must not know how it is measured.
"""

from __future__ import annotations

import json
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
from autotuned.shared import paths

NAME = "macprovider-cli"


PRIVATE_CONFIG = """\
# Written by autotuned for one candidate. The model, the port and the knobs stand on its command line.
enable_receipts: false
enable_warm_swap: false
warmup_enabled: false
losslessness_probe_enabled: false
donor_mode: false
auto_update_enabled: false
credential_store: protected_file
idle_prewarm:
  enabled: false
"""

SOCKET_PATH_BYTES = 103
"""The longest path of a socket (macOS)."""
PROBE_S = 5.0

_KNOWN = re.compile(r"requires\s+\W?--no-join")


class MacProvider:
    """The adapter of `macprovider-cli serve`."""

    kind = "macprovider"
    weights: WeightsFormat = "mlx"
    catalogue: Sequence[CatalogueEntry] = MLX_CATALOGUE
    readiness: tuple[str, ...] = ("/v1/models",)
    fatal = log_reason.FATAL

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
        help_ = await programs.ask_once([str(path), "serve", "--help"], self._environ)
        if help_.code is None:
            message = f"{path} serve --help {help_.ended}: {help_.said}"
            raise ProviderMissing(message)
        if not re.search(r"(?<![\w-])--no-join(?![\w-])", f"{help_.out}\n{help_.err}"):
            message = (
                f"{path} ({version}) is too old: its `serve --help` lists no --no-join, and without it "
                "a candidate would join the network; update macprovider"
            )
            raise ProviderMissing(message)
        # No help lists it; a binary that knows it refuses it alone, and starts nothing.
        argv = [str(path), "serve", "--autotune-candidate"]
        probe = await programs.ask_once(argv, self._environ, timeout_s=PROBE_S)
        known = probe.code not in (None, 0) and _KNOWN.search(f"{probe.out}\n{probe.err}")
        return Binary((str(path),), version, candidate_flags=bool(known))

    def command(self, binary: Binary, launch: Launch) -> Command:
        """`serve` without joining, with a private configuration and at most the three knob flags."""
        config = launch.folder / "macprovider.yaml"
        # Arguments of the settings come first: a knob under test must win over one given there.
        argv = [*binary.command, "serve", *self._extra]
        argv += ["--model", self.request_model(launch), "--no-join", "--port", str(launch.port)]
        argv += ["--config", str(config)]
        if binary.candidate_flags:  # neither is taken without the other
            argv += ["--autotune-candidate", "--candidate-parent-pid", str(launch.parent_pid)]
        argv += _knob_flags(launch)
        return Command(
            argv=tuple(argv),
            env=programs.OFFLINE,
            files={config: PRIVATE_CONFIG + _private_paths(launch.folder)},
        )

    def serve_argv(self, binary: Binary, launch: Launch) -> tuple[str, ...]:
        """`serve` with the model and the knobs, without joining; the rest stands in the operator's configuration."""
        return (
            *binary.command,
            "serve",
            "--model",
            self.request_model(launch),
            "--no-join",
            *_knob_flags(launch),
        )

    def serves(self, listing: Any, model: str) -> bool:
        """The id that it lists is the one it serves; of a local path it may list the name alone."""
        wanted = {model}
        if paths.is_path(model):
            path = paths.expanded(model, self._environ)
            wanted |= {path, os.path.realpath(path), os.path.basename(path)}  # noqa: PTH119
        return not wanted.isdisjoint(naming.listed(listing))

    def request_model(self, launch: Launch) -> str:
        """The same words as behind `--model`: the id, or the folder of a local model."""
        return str(launch.weights) if paths.is_path(launch.model) else launch.model

    def telling_line(self, log: str) -> str | None:
        """The line of a candidate's log that says best why it failed."""
        return log_reason.telling_line(log)


def _private_paths(folder: Path) -> str:
    """Where a candidate keeps what it would share with the live provider.

    Where the run's folder is too deep for a socket, the name alone: the folder is its working directory.
    """
    socket = str(folder / "ctl.sock")
    if len(os.fsencode(socket)) > SOCKET_PATH_BYTES:
        socket = "ctl.sock"
    paths = {"ctl_socket_path": socket, "switch_state_path": str(folder / "switch-state.json")}
    return "".join(f"{key}: {json.dumps(path)}\n" for key, path in paths.items())


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
