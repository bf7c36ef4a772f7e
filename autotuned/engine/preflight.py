"""Who is in the way before a run starts: the live provider in either of its forms, or a stranger.

Finds and names; stops nobody. A job that launchd manages is named once, and a candidate of another
agent (it carries our marker) is no live provider.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from autotuned.errors import ProviderConflict
from autotuned.host.interface import Ports
from autotuned.host.launchd import Launchd
from autotuned.providers.interface import Provider

LEADING_ARGUMENTS = 3
"""An interpreter and its option may stand before the binary: `python -u macprovider-cli serve`."""


async def find_conflicts(
    provider: Provider,
    launchd: Launchd,
    labels: Sequence[str],
    ports: Ports,
    port: int,
    marker: str,
) -> list[str]:
    """What is in the way: `launchd-managed`, `foreground-PID-<n>`, `port-held-by <name> pid <n>`.

    `port` is the one that candidates will use; processes whose environment has the variable `marker`
    are candidates and do not count.
    """
    job = await launchd.loaded(labels) if provider.kind == "macprovider" else None
    foreground = await asyncio.to_thread(lambda: list(_serving(provider, marker)))
    found = (
        [f"launchd-managed ({job.domain}/{job.label})"]
        if job
        else [f"foreground-PID-{pid}" for pid in foreground]
    )
    holder = await asyncio.to_thread(ports.holder, port)
    if holder is not None and holder.pid not in foreground:
        found.append(f"port-held-by {holder.name or 'unknown'} pid {holder.pid or 'unknown'}")
    return found


def conflict(found: Sequence[str], port: int, *, drain: bool) -> ProviderConflict:
    """The refusal for what `find_conflicts` found, with the remedy."""
    names = ", ".join(found)
    if all(name.startswith("port-held-by") for name in found):
        remedy = f"stop that program, or choose another --port than {port}"
    elif drain:
        remedy = "this version cannot carry out --drain yet: stop it yourself"
    else:
        remedy = "stop it yourself, or have it stopped for the run and brought back with --drain"
    return ProviderConflict(f"in the way: {names}; {remedy}", found)


def _serving(provider: Provider, marker: str) -> Iterator[int]:
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            if _is_server(process.cmdline(), provider) and marker not in process.environ():
                yield process.pid
        except (psutil.Error, OSError):
            continue  # gone, or not ours to read


def _is_server(argv: Sequence[str], provider: Provider) -> bool:
    if "--help" in argv:  # somebody asks the program a question: it serves nobody
        return False
    for index, argument in enumerate(argv[:LEADING_ARGUMENTS]):
        if Path(argument).name in provider.process_names:
            return provider.kind != "macprovider" or argv[index + 1 : index + 2] == ["serve"]
    return False
