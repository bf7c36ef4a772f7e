"""Words that name a file or folder of this machine: what is written as one, and where it is.

Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_WRITTEN = re.compile(r"[/~].*|\.\.?(/.*)?", re.DOTALL)
_REPOSITORY = re.compile(r"[\w.-]+/[^/]+")


def is_path(model: str) -> bool:
    """`model` is written as a path and not as a repository: `/a`, `./a`, `..`, `~/a`, `~bob/a` or `a.gguf`."""
    if _WRITTEN.fullmatch(model):
        return True
    return model.lower().endswith(".gguf") and not _REPOSITORY.fullmatch(model)


def names_file(value: str) -> bool:
    """`value` of a server's own knob is a file: of weights, written as a path, or a path that is here."""
    named = value.lower().endswith(".gguf") or is_path(value)
    return named or ("/" in value and os.path.lexists(value))


def with_home(path: str, environ: Mapping[str, str]) -> str:
    """`path` with a leading `~` replaced by the home folder of `environ`, `~bob` by that of Bob where he exists."""
    if path == "~" or path.startswith("~/"):
        return (environ.get("HOME") or os.path.expanduser("~")) + path[1:]  # noqa: PTH111 - `~` alone
    return os.path.expanduser(path)  # noqa: PTH111 - pathlib raises where nobody is called so


def expanded(model: str, environ: Mapping[str, str]) -> str:
    """A local path, absolute, without `~`, links kept."""
    return os.path.abspath(with_home(model, environ))  # noqa: PTH100 - Path.absolute() would keep `..`


def resolved(model: str, environ: Mapping[str, str]) -> str:
    """As the agent needs it, whose working folder is another: a path absolute, the name of a repository as it is."""
    there = is_path(model) or os.path.lexists(model)
    return expanded(model, environ) if there and model else model
