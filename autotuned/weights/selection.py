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

_SMALL = (".json", ".jsonl", ".jinja", ".txt", ".model", ".tiktoken", ".py")
"""What mlx-lm fetches beside the weights, in every folder: offline it may insist on all of them."""
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.(?:gguf|safetensors)$)", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|(?:^|/)[._-]?imatrix|imatrix\.gguf$", re.IGNORECASE)
"""`.gguf` files that are never models: projectors of images, statistics."""
_BESIDE_A_MODEL = re.compile(
    "mtp|draft|drafter|eagle|eagle2|eagle3|medusa|dflash|speculator"
    "|lora|loras|adapter|adapters|cvector|vocab|projector|clip"
)
"""Words of files that belong to a model: drafters, adapters, tokenizers. A model's own name may hold them too."""
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


def is_of_the_system(name: str) -> bool:
    """A file that an operating system left there: `._model.gguf`, `.DS_Store`, and what lies in such folders."""
    return any(part.startswith(".") or part in _SYSTEM_FOLDERS for part in name.split("/"))


def may_be_wanted(name: str) -> bool:
    """Whether some provider may need a file of this name."""
    return name.endswith((*_SMALL, ".safetensors", ".gguf")) and not is_of_the_system(name)


def mlx_weights(names: Iterable[str]) -> list[str]:
    """The weight files of a repository or folder: `model*.safetensors`, where there are none all `.safetensors`.

    Copies in other layouts (`consolidated.safetensors`, subfolders) are left out.
    """
    listed = [name for name in names if not is_of_the_system(name)]
    found = sorted(name for name in listed if name.endswith(".safetensors") and "/" not in name)
    found = [name for name in found if name.startswith("model")] or found
    sharded = [name for name in found if _PART.search(name)] if INDEX in listed else []
    return sharded or found


def mlx_small(names: Iterable[str]) -> list[str]:
    """Config, index, tokenizer, template and code: everything small that a server may read."""
    return sorted(name for name in names if name.endswith(_SMALL) and not is_of_the_system(name))


def gguf(names: Iterable[str], quant: str) -> list[str]:
    """The one file that `repo:QUANT` means, or its parts in order; empty where there is none.

    QUANT must stand alone in the name: `Q4_K` is not `Q4_K_M`. Upper and lower case are the same. Of a
    repository with drafters or adapters, its models are the files with the fewest words for those.
    """
    files = sorted(
        name
        for name in names
        if name.lower().endswith(".gguf")
        and not is_of_the_system(name)
        and not _NO_MODEL.search(name)
    )
    fewest = min(map(_words_beside, files), default=0)
    files = [name for name in files if _words_beside(name) == fewest]
    for wanted in (quant,) if quant else DEFAULT_QUANTS:
        token = re.compile(rf"(?:^|[-./_]){re.escape(wanted)}(?=[-.]|$)", re.IGNORECASE)
        matching = [name for name in files if token.search(name[: -len(".gguf")])]
        if matching:
            return parts(matching[0], files)
    return parts(files[0], files) if files and not quant else []


def _words_beside(name: str) -> int:
    words = re.split(r"[^a-z0-9]+", name.lower())
    return sum(_BESIDE_A_MODEL.fullmatch(word) is not None for word in words)


def missing_parts(names: Sequence[str]) -> list[str]:
    """The names of a split file's parts that are not among `names`, judged by `-00001-of-00003`."""
    missing: list[str] = []
    for name in names:
        if found := _PART.search(name):
            head, tail = _around(found)
            whole = [f"{head}-{number:05d}{tail}" for number in range(1, int(found[2]) + 1)]
            missing += [part for part in whole if part not in (*names, *missing)]
    return missing


def parts(name: str, files: Sequence[str]) -> list[str]:
    """`name`, or where it is one part of several: those of them that are among `files`, in order."""
    found = _PART.search(name)
    if found is None:
        return [name]
    head, tail = _around(found)
    return sorted(file for file in files if file.startswith(head) and file.endswith(tail))


def _around(found: re.Match[str]) -> tuple[str, str]:
    """What stands before and behind the number of a part."""
    return found.string[: found.start()], f"-of-{found[2]}{found.string[found.end() :]}"
