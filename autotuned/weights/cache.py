"""Prewarm: a candidate's weights are on this disk, complete and checked, before it is started.

A local path is checked in place, an id in the local Hugging Face cache. Fails by value, in two classes:
transient (the next candidate may do) and integrity (weights are not what they should be).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.candidates import is_path
from autotuned.core.model import Failure, FailureKind, WeightsFormat
from autotuned.weights import integrity


@dataclass(frozen=True, slots=True)
class Weights:
    """Checked weights: `path` is a model folder or a `.gguf` file; bytes are those of the weight files."""

    path: Path
    weights_bytes: int
    special_tokens: tuple[str, ...] = ()


async def prewarm(model: str, form: WeightsFormat, environ: Mapping[str, str]) -> Weights | Failure:
    """Find and check the weights of `model`; never raises for what is found."""
    return await asyncio.to_thread(_prewarm, model, form, environ)


def fits_in_memory(weights_bytes: int, ram_bytes: int) -> Failure | None:
    """The static check: weights larger than physical memory cannot run. Never an estimate of anything else."""
    if weights_bytes <= ram_bytes:
        return None
    reason = f"static: weights {weights_bytes / 2**30:.1f} GB > memory {ram_bytes / 2**30:.1f} GB"
    return Failure(FailureKind.STATIC, reason)


def transient(reason: str) -> Failure:
    """A failure that says nothing against the weights; the run goes on with the next candidate."""
    return Failure(FailureKind.TRANSIENT, f"pre-warm transient: {reason}")


def damaged(reason: str) -> Failure:
    """Weights that are not what they should be; the whole run ends."""
    return Failure(FailureKind.INTEGRITY, f"pre-warm integrity: {reason}")


def _prewarm(model: str, form: WeightsFormat, environ: Mapping[str, str]) -> Weights | Failure:
    try:
        found = _locate(model, form, environ)
        return found if isinstance(found, Failure) else _checked(found, form)
    except integrity.Defect as defect:
        return damaged(f"{model}: {defect}")
    except OSError as error:
        return transient(f"{model}: {error.strerror or error}")


def _locate(model: str, form: WeightsFormat, environ: Mapping[str, str]) -> Path | Failure:
    if is_path(model):
        path = Path(os.path.abspath(re.sub(r"^~(?=/|$)", environ.get("HOME", "~"), model)))  # noqa: PTH100
        if not path.exists():
            return transient(f"no such file or folder: {path}")
        if path.is_dir() != (form == "mlx"):
            wanted = "a model folder" if form == "mlx" else "a .gguf file"
            return transient(f"{path} is not {wanted}, which this provider serves")
        return path
    repo, _, quant = model.partition(":") if form == "gguf" else (model, "", "")
    snapshot = _snapshot(repo, environ)
    if snapshot is None:
        return transient(f"{model} is not in the local cache ({hub_cache(environ)})")
    return snapshot if form == "mlx" else _gguf_of(model, snapshot, quant)


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps repositories, by the same variables and in the same order."""
    home = (
        environ.get("HF_HOME")
        or f"{environ.get('XDG_CACHE_HOME') or environ.get('HOME', '~') + '/.cache'}/huggingface"
    )
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(named).expanduser()


def _snapshot(repo: str, environ: Mapping[str, str]) -> Path | None:
    """The snapshot of a repository's main revision, where one is in the cache."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the library is imported
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - costs 250 ms and 25 MB: only when needed
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        found = snapshot_download(repo, cache_dir=hub_cache(environ), local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, ValueError, OSError):
        return None
    return Path(str(found))


def _gguf_of(model: str, snapshot: Path, quant: str) -> Path | Failure:
    """The one file of a GGUF repository that `repo` or `repo:QUANT` means."""
    files = sorted(path for path in snapshot.rglob("*.gguf") if "mmproj" not in path.name.lower())
    wanted = [path for path in files if not quant or quant.lower() in path.stem.lower()]
    if not wanted:
        return transient(f"{model}: no such .gguf file in the local cache")
    if len(wanted) > 1 and not quant:
        wanted = [path for path in wanted if "q4_k_m" in path.stem.lower()] or wanted
    return wanted[0]


def _checked(path: Path, form: WeightsFormat) -> Weights:
    if form == "gguf":
        return Weights(path, path.stat().st_size, integrity.check_gguf(path))
    integrity.check_folder(path)
    size = sum((path / name).stat().st_size for name in integrity.weight_files(path))
    return Weights(path, size, integrity.special_tokens(path))
