"""What no description can say of macprovider: its private configuration, and which flags it knows.

Left alone it reads the operator's configuration and `MACPROVIDER_*`, so every candidate gets a
configuration of ours that holds no identity, credential or knob.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autotuned.errors import ProviderMissing
from autotuned.providers import binary as programs
from autotuned.providers.server import Binary, Launch, Provider

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


class MacProvider(Provider):
    async def locate(self) -> Binary:
        """Find the binary and ask its version and its flags. Raises ProviderMissing with the remedy."""
        binary = await super().locate()
        (path,), version = binary.command, binary.version
        help_ = await programs.ask_once([path, "serve", "--help"], self._environ)
        if help_.code is None:
            message = f"{path} serve --help {help_.ended}: {help_.line}"
            raise ProviderMissing(message)
        if not re.search(r"(?<![\w-])--no-join(?![\w-])", f"{help_.out}\n{help_.err}"):
            message = (
                f"{path} ({version}) is too old: its `serve --help` lists no --no-join, and without it "
                "a candidate would join the network; update macprovider"
            )
            raise ProviderMissing(message)
        # No help lists it; a binary that knows it refuses it alone, and starts nothing.
        argv = [path, "serve", "--autotune-candidate"]
        probe = await programs.ask_once(argv, self._environ, timeout_s=PROBE_S)
        known = probe.code not in (None, 0) and _KNOWN.search(f"{probe.out}\n{probe.err}")
        return replace(binary, candidate_flags=bool(known))

    def serve_argv(self, binary: Binary, launch: Launch) -> tuple[str, ...]:
        """Without the operator's arguments: what else there is stands in the operator's configuration."""
        return self._argv(binary, launch, (), None)

    def _words(self, binary: Binary, launch: Launch) -> Sequence[str]:
        if not binary.candidate_flags:
            return ()
        # Neither is taken without the other.
        return ("--autotune-candidate", "--candidate-parent-pid", str(launch.parent_pid))

    def _files(self, launch: Launch) -> Mapping[Path, str]:
        config = launch.folder / "macprovider.yaml"
        return {config: PRIVATE_CONFIG + _private_paths(launch.folder)}


def _private_paths(folder: Path) -> str:
    """Where a candidate keeps what it would share with the live provider.

    Where the run's folder is too deep for a socket, the name alone: the folder is its working directory.
    """
    socket = str(folder / "ctl.sock")
    if len(os.fsencode(socket)) > SOCKET_PATH_BYTES:
        socket = "ctl.sock"
    paths = {"ctl_socket_path": socket, "switch_state_path": str(folder / "switch-state.json")}
    return "".join(f"{key}: {json.dumps(path)}\n" for key, path in paths.items())
