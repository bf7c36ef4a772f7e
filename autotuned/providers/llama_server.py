"""What no description can say of llama.cpp's server: the same one out of the wheel `xllamacpp`, its version, its flags."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from autotuned.errors import ProviderMissing
from autotuned.providers import binary as programs
from autotuned.providers.server import Binary, Provider
from autotuned.shared.tools import Answer

LAUNCHER = Path(__file__).with_name("llama_launcher.py")
FLAGS_S = 5.0

_NEEDED = (
    *("--no-webui", "--offline", "--no-cache-prompt", "--cache-ram 0", "--alias x", "--jinja"),
    *("-np 1", "-c 512", "-no-kvu", "-ctk q8_0", "-ctv q8_0"),
)
"""Every flag that a candidate may be started with, with a value where it takes one."""


class LlamaServer(Provider):
    """`llama-server`, or our launcher of the same server."""

    def find(self) -> tuple[str, ...] | None:
        """The command: the settings' binary, one of the PATH, or our launcher around the wheel."""
        found = super().find()
        if found is None and importlib.util.find_spec("xllamacpp") is not None:
            return (sys.executable, "-P", str(LAUNCHER))
        return found

    async def locate(self) -> Binary:
        """Find the server and ask its version. Raises ProviderMissing for one too old for a candidate's flags.

        Flags are read in their order and `--version` ends the reading, so a server that knows them all
        answers as to `--version` alone. That holds whatever names its help gives them.
        """
        binary = await super().locate()

        async def refused(flags: Sequence[str]) -> bool:
            words = [word for flag in flags for word in flag.split()]
            argv = [*binary.command, *words, "--version"]
            answer = await programs.ask_once(argv, self._environ, timeout_s=FLAGS_S)
            return answer.code not in (0, None)

        if not await refused(_NEEDED):
            return binary
        unknown = [flag.split()[0] for flag in _NEEDED if await refused([flag])]
        if unknown:
            called = f"{' '.join(binary.command)} ({binary.version})"
            message = (
                f"{called} does not know {', '.join(unknown)}, and every candidate "
                "is started with it; update llama.cpp, or name a newer program as [provider] binary"
            )
            raise ProviderMissing(message)
        return binary

    def _version_in(self, answer: Answer) -> str | None:
        """What stands behind `version:`; the lines after it name a compiler."""
        text = f"{answer.out}\n{answer.err}"
        found = re.search(r"^version:\s*(\S.*)$", text, re.MULTILINE)
        return programs.last_line(found.group(1) if found else text)
