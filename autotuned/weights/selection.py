"""Which files of a repository a provider needs, by their names alone. Pure.

An mlx server reads a folder: its weights, config, tokenizer and chat template. llama.cpp reads one
`.gguf` file, or the parts that it was split into.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

INDEX = "model.safetensors.index.json"
DEFAULT_QUANTS = ("Q4_K_M", "Q8_0")
"""Meant by a GGUF repository without a quant, in this order; after them the first file."""

_SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.(?:gguf|safetensors)$)", re.IGNORECASE)
_NO_MODEL = ("mmproj", "imatrix")
"""Words in the names of `.gguf` files that are not models: projectors of images, statistics."""


def may_be_wanted(name: str) -> bool:
    """Whether some provider may need a file of this name."""
    return name.endswith((*_SMALL, ".safetensors", ".gguf"))


def mlx_weights(names: Iterable[str]) -> list[str]:
    """The weight files of a repository or folder: `model*.safetensors`, where there are none all `.safetensors`.

    Copies in other layouts (`consolidated.safetensors`, subfolders) are left out.
    """
    listed = list(names)
    found = sorted(name for name in listed if name.endswith(".safetensors") and "/" not in name)
    found = [name for name in found if name.startswith("model")] or found
    sharded = [name for name in found if _PART.search(name)] if INDEX in listed else []
    return sharded or found


def mlx_small(names: Iterable[str]) -> list[str]:
    """Config, index, tokenizer and template files: everything small that a server may read."""
    return sorted(name for name in names if name.endswith(_SMALL) and "/" not in name)


def gguf(names: Iterable[str], quant: str) -> list[str]:
    """The one file that `repo:QUANT` means, or its parts in order; empty where there is none.

    QUANT must stand alone in the name: `Q4_K` is not `Q4_K_M`. Upper and lower case are the same.
    """
    files = sorted(
        name
        for name in names
        if name.lower().endswith(".gguf") and not any(word in name.lower() for word in _NO_MODEL)
    )
    for wanted in (quant,) if quant else DEFAULT_QUANTS:
        token = re.compile(rf"(?:^|[-./_]){re.escape(wanted)}(?=[-.]|$)", re.IGNORECASE)
        matching = [name for name in files if token.search(name[: -len(".gguf")])]
        if matching:
            return parts(matching[0], files)
    return parts(files[0], files) if files and not quant else []


def missing_parts(names: Sequence[str]) -> list[str]:
    """The names of a split file's parts that are not among `names`, judged by `-00001-of-00003`."""
    missing: list[str] = []
    for name in names:
        found = _PART.search(name)
        if found is None:
            continue
        head, tail = name[: found.start()], f"-of-{found[2]}{name[found.end() :]}"
        whole = [f"{head}-{number:05d}{tail}" for number in range(1, int(found[2]) + 1)]
        missing += [part for part in whole if part not in (*names, *missing)]
    return missing


def parts(name: str, files: Sequence[str]) -> list[str]:
    """`name`, or where it is one part of several: those of them that are among `files`, in order."""
    found = _PART.search(name)
    if found is None:
        return [name]
    head, tail = name[: found.start()], f"-of-{found[2]}{name[found.end() :]}"
    return sorted(file for file in files if file.startswith(head) and file.endswith(tail))
