"""What no description can say of mlx-lm: its version, its flags, and when it lists a model by its id."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from autotuned.errors import ProviderMissing
from autotuned.providers import binary as programs
from autotuned.providers import log_reason
from autotuned.providers.server import Binary, Launch, Provider
from autotuned.shared import paths

_LISTED_WHEN = ("config.json", "model.safetensors.index.json", "tokenizer_config.json")
"""Files that a repository in the cache needs, or the server leaves it out of its list."""

_NEEDED = (
    *("--decode-concurrency", "--prompt-concurrency", "--prompt-cache-size"),
    *("--kv-bits", "--quantized-kv-start", "--log-level"),
)
"""Every flag beside model and address that a candidate may be started with."""


class MlxLm(Provider):
    fatal = re.compile(
        rf"^Exception\ in\ thread|{log_reason.FATAL.pattern}", log_reason.FATAL.flags
    )
    """A load that failed ends the server's thread, and the server answers on."""

    def find(self) -> tuple[str, ...] | None:
        """Our own environment's first: the extra `mlx` puts it there."""
        ours = None
        if self._named is None:
            ours = programs.first((Path(sys.executable).with_name(self.spec.command[0]),))
        return super().find() if ours is None else (str(ours),)

    async def locate(self) -> Binary:
        """Find the server and the versions of its packages. Raises ProviderMissing with the remedy."""
        binary = await super().locate()
        (path,), version = binary.command, binary.version
        help_ = await programs.ask_once([path, "--help"], self._environ)
        listed = set(re.findall(r"(?<![\w-])--[\w-]+", help_.out))
        unknown = [flag for flag in _NEEDED if flag not in listed]
        if "--model" in listed and unknown:
            message = (
                f"{path} ({version}) does not know {', '.join(unknown)}, and candidates are started with "
                "it; pip install -U mlx-lm, or name a newer program as [provider] binary"
            )
            raise ProviderMissing(message)
        return binary

    def _source(self, launch: Launch) -> str:
        """The id where the server would list it, else the folder, which it lists always."""
        by_id = not paths.is_path(launch.model) and all(
            (launch.weights / name).is_file() for name in _LISTED_WHEN
        )
        return launch.model if by_id else str(launch.weights)

    def _env(self, launch: Launch) -> Mapping[str, str]:
        if self._source(launch) == launch.model and not paths.is_path(launch.model):
            return {}
        # Its list walks the whole hub cache, and breaks off where there is none: an empty folder
        # of ours does instead, since nothing of the cache is needed for a path.
        return {"HF_HUB_CACHE": str(launch.folder)}
