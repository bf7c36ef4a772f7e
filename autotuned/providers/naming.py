"""How a model is named in a request, on a command line and in a server's list.

Pure string work shared by the adapters. Knows no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def listed(listing: Any) -> Iterator[str]:
    """Every id and alias that a decoded answer of `/v1/models` names, whatever its shape.

    Servers send `{"data": [{"id": ...}]}`; some a bare list, `models` instead of `data`, or strings.
    """
    if isinstance(listing, Mapping):
        for key in ("data", "models"):
            yield from listed(listing.get(key))
        return
    if not isinstance(listing, list | tuple):
        return
    for entry in listing:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, Mapping):
            for key in ("id", "name", "model"):
                if isinstance(entry.get(key), str):
                    yield entry[key]
            aliases = entry.get("aliases")
            if isinstance(aliases, list):
                yield from (alias for alias in aliases if isinstance(alias, str))
