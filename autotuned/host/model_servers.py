"""Other known model servers of this machine that hold a good part of its memory: named, never touched."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from autotuned.host.find import is_apart

SHARE = 0.1
"""Of the machine's memory, from which a server is told of."""
KNOWN = {
    "ollama": ("Ollama", "ollama stop MODEL, or quit Ollama"),
    "lm studio": ("LM Studio", "lms unload --all, or quit LM Studio"),
    "lmstudio": ("LM Studio", "lms unload --all, or quit LM Studio"),
    "vllm": ("vLLM", "kill {pid}"),
    "llama-server": ("llama-server", "kill {pid}"),
    "mlx_lm.server": ("mlx-lm", "kill {pid}"),
    "mlx_lm": ("mlx-lm", "kill {pid}"),
}
"""By what stands in the first words of its command line: its name, and how it is stopped."""


def beside(environ: Mapping[str, str], marker: str, known: Collection[int]) -> list[str]:
    """A sentence for each. `known` are processes that a run stops or names itself; candidates carry `marker`.

    `AUTOTUNED_LIVE_HOME` leaves out the processes of other homes, as for the live provider. Blocks.
    """
    whole = psutil.virtual_memory().total
    sentences = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            share = process.memory_info().rss / whole
            server = _server(process.cmdline()) if share > SHARE else None
            if server is None or _is_known(process, known) or is_apart(process, marker, environ):
                continue
            name, stop = server
            sentences.append(
                f"{name} (pid {process.pid}) holds {share:.0%} of memory beside the candidates: "
                f"{stop.format(pid=process.pid)}"
            )
    return sentences


def _server(argv: list[str]) -> tuple[str, str] | None:
    """The server that this command line starts, by its program or the module or script it runs."""
    for word in argv[:3]:
        name = Path(word).name.casefold()
        for known, server in KNOWN.items():
            if name == known or name.startswith((f"{known}-", f"{known}.", f"{known} ")):
                return server
    return None


def _is_known(process: psutil.Process, known: Collection[int]) -> bool:
    return process.pid in known or any(parent.pid in known for parent in process.parents())
