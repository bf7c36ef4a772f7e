"""How a model is named in a request, on a command line and in a server's list.

Pure string work shared by the adapters, apart from resolving links of a local path. Knows no server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

_PATH_STARTS = ("/", "~/", "./", "../")


def is_path(model: str) -> bool:
    """True where `model` names a file or folder of this disk and not a repository."""
    return model.startswith(_PATH_STARTS) or model in ("~", ".", "..")


def expanded(model: str, environ: Mapping[str, str]) -> str:
    """A local path with `~` replaced by the home folder of `environ`, absolute, links kept."""
    if model == "~" or model.startswith("~/"):
        model = environ.get("HOME", os.path.expanduser("~")) + model[1:]  # noqa: PTH111
    return os.path.abspath(model)  # noqa: PTH100 - Path.absolute() would keep `..`


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
