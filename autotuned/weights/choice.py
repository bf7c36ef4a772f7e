"""Of a repository's list: which files are wanted, how much of them is here already, and is there room.

Reads the cache's disk, never the network.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from autotuned.core.model import WeightsFormat
from autotuned.weights import cache, integrity, selection
from autotuned.weights.hub.session import Listing

HEADROOM_BYTES = 2 * 2**30
"""Must stay free on the cache's disk after a download."""


def chosen(listing: Listing, model: str, form: WeightsFormat) -> tuple[list[str], list[str]]:
    """The small files and the weight files of `model`. Raises Defect where a file is lacking that must be there."""
    names = list(listing.files)
    if form == "gguf":
        weights = selection.gguf(names, cache.repository(model, form)[1])
        _require_parts(weights)
        return [], weights
    small, weights = selection.mlx_small(names), selection.mlx_weights(names)
    if weights and "config.json" not in small:
        message = "no config.json in the repository"
        raise integrity.Defect(message)
    if weights and not any(name in small for name in integrity.TOKENIZERS):
        message = "no tokenizer in the repository"
        raise integrity.Defect(message)
    if selection.INDEX not in small:
        _require_parts(weights)
    return small, weights


def _require_parts(weights: Sequence[str]) -> None:
    absent = selection.missing_parts(weights)
    if absent:
        message = f"shards are absent from the repository: {', '.join(absent[:3])}"
        raise integrity.Defect(message)


def named_by_index(folder: Path, listing: Listing, weights: list[str]) -> list[str]:
    """The weight files that the index names; all where there is none. Raises Defect for one that the hub lacks."""
    index = folder / selection.INDEX
    if not index.is_file():
        return weights
    names = integrity.shards(index)
    absent = [name for name in names if name not in listing.files]
    if absent:
        message = f"{selection.INDEX} names shards that are absent from the repository: {', '.join(absent[:3])}"
        raise integrity.Defect(message)
    return names


def no_room_for(root: Path, listing: Listing, names: Sequence[str]) -> str | None:
    """Why these files do not fit on the disk of the cache `root`, None where they do. Raises OSError."""
    missing, free = missing_bytes(root, listing, names), disk_free(root)
    if free >= missing + HEADROOM_BYTES:
        return None
    need = f"{missing / 2**30:.1f} GB to fetch and {HEADROOM_BYTES / 2**30:.0f} GB to spare"
    return f"disk full: {need}, {free / 2**30:.1f} GB free at {root}"


def missing_bytes(root: Path, listing: Listing, names: Sequence[str]) -> int:
    """Bytes of these files that are not in the cache `root` yet; of a partial file the rest. Raises OSError."""
    folder, missing = repository_folder(root, listing), 0
    for name in names:
        file = listing.files[name]
        blob = folder / "blobs" / (file.sha256 or file.git_sha1 or "-")
        pointer = folder / "snapshots" / listing.commit / name
        here = (pointer, blob, blob.with_name(f"{blob.name}.autotuned.incomplete"))
        found = next((path.stat().st_size for path in here if path.is_file()), 0)
        missing += max(0, (file.size or 0) - found)
    return missing


def repository_folder(root: Path, listing: Listing) -> Path:
    """Where the cache `root` keeps this repository."""
    return root / f"models--{listing.repo.replace('/', '--')}"


def disk_free(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which may not exist yet. Raises OSError."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
