"""What is on this disk: where a model's weights are, and whether they are whole.

A local path is looked at in place, an id in the local Hugging Face cache, in the library's layout.
Reads only. Must not know the hub, nor what has been checked before.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.model import Failure, FailureKind, WeightsFormat
from autotuned.errors import ConfigError
from autotuned.shared.paths import expanded, is_path
from autotuned.weights import integrity, selection

CHUNK_BYTES = 4 << 20
_SHA256, _GIT_SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Weights:
    """Checked weights: `path` is a model folder or a `.gguf` file; bytes are those of the weight files."""

    path: Path
    weights_bytes: int
    special_tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Weights as they lie there, unchecked: `files` is all that belongs to them."""

    path: Path
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class NotHere:
    """A model of the hub that is not in the local cache, or not with its weights."""

    reason: str


class Stopped(Exception):
    """Reading was given up because nobody waits for it any more."""


def transient(reason: str) -> Failure:
    """A failure that says nothing against the weights; the run goes on with the next candidate."""
    return Failure(FailureKind.TRANSIENT, f"pre-warm transient: {reason}")


def damaged(reason: str) -> Failure:
    """Weights that are not what they should be; the whole run ends."""
    return Failure(FailureKind.INTEGRITY, f"pre-warm integrity: {reason}")


def fits_in_memory(weights_bytes: int, ram_bytes: int) -> Failure | None:
    """The static check: weights larger than physical memory cannot run. Never an estimate of anything else."""
    if weights_bytes <= ram_bytes:
        return None
    reason = f"static: weights {weights_bytes / 2**30:.1f} GB > memory {ram_bytes / 2**30:.1f} GB"
    return Failure(FailureKind.STATIC, reason)


def repository(model: str, form: WeightsFormat) -> tuple[str, str]:
    """The repository and the quant (empty where none is named) that an id of the hub means."""
    if form == "mlx":
        return model, ""
    repo, _, quant = model.partition(":")
    return repo, quant


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps repositories, by the same variables and in the same order."""
    home = (
        environ.get("HF_HOME")
        or f"{environ.get('XDG_CACHE_HOME') or environ.get('HOME', '~') + '/.cache'}/huggingface"
    )
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(named)).expanduser()


def repository_folder(root: Path, repo: str) -> Path:
    return root / f"models--{repo.replace('/', '--')}"


def snapshot(repo: str, environ: Mapping[str, str]) -> Path | None:
    """The folder of a repository's main revision, where one is in the cache."""
    root = repository_folder(hub_cache(environ), repo)
    try:
        commit = (root / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    folder = root / "snapshots" / commit
    return folder if re.fullmatch(r"[\w-]+", commit) and folder.is_dir() else None


def require_paths(field: str, words: Iterable[str], environ: Mapping[str, str]) -> None:
    """Raise ConfigError, naming `field`, for a word that is written as a path and does not exist."""
    for word in words:
        if is_path(word) and not os.path.exists(expanded(word, environ)):  # noqa: PTH110 - any word
            raise ConfigError(field, word, "is a path, and there is no such file or folder")


def locate(
    model: str, form: WeightsFormat, environ: Mapping[str, str]
) -> Found | NotHere | Failure:
    """Where the weights of `model` are on this disk. Raises OSError."""
    if is_path(model):
        path = Path(expanded(model, environ))
        if not path.exists():
            return transient(f"no such file or folder: {path}")
        if path.is_dir() != (form == "mlx"):
            kind = "a model folder" if form == "mlx" else "a .gguf file"
            return transient(f"{path} is not {kind}, which this provider serves")
        return in_folder(path) if form == "mlx" else in_files(path)
    repo, quant = repository(model, form)
    folder = snapshot(repo, environ)
    if folder is None:
        absent = f"it is not in the local cache ({hub_cache(environ)})"
        if model.lower().endswith(".gguf"):  # the name of a file may have been meant
            absent += f"; of a file that is here say ./{model}"
        return NotHere(absent)
    if form == "mlx":
        found = in_folder(folder)
        names = {path.name for path in found.files}
        if selection.INDEX not in names and not selection.mlx_weights(names):
            return NotHere(f"its weights are not in the local cache ({folder})")
        return found
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.gguf")}
    chosen = selection.gguf(names, quant)
    if not chosen:
        return NotHere(f"no such .gguf file is in the local cache ({folder})")
    return Found(folder / chosen[0], tuple(folder / name for name in chosen))


def in_folder(folder: Path) -> Found:
    """A model folder with all that a server may read of it. Raises OSError."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    files = (name for name in names if selection.may_be_wanted(name) and name[-5:] != ".gguf")
    return Found(folder, tuple(folder / name for name in sorted(files)))


def in_files(path: Path) -> Found:
    """A `.gguf` file, with the other parts where it is the first of several. Raises OSError."""
    beside = [file.name for file in path.parent.glob("*.gguf")] if "-of-" in path.name else []
    files = [path.parent / name for name in selection.parts(path.name, beside)]
    return Found(files[0], tuple(files))


def inspect(found: Found, form: WeightsFormat) -> Weights:
    """Headers, tables and names are whole; cheap for files of any size. Raises Defect, or OSError."""
    if form == "gguf":
        absent = selection.missing_parts([file.name for file in found.files])
        if absent:
            message = f"parts are absent: {', '.join(absent[:3])}"
            raise integrity.Lacking(message)
        tokens = [integrity.check_gguf(file) for file in found.files]
        return Weights(found.path, sum(file.stat().st_size for file in found.files), tokens[0])
    integrity.check_folder(found.path)
    size = sum((found.path / name).stat().st_size for name in integrity.weight_files(found.path))
    return Weights(found.path, size, integrity.special_tokens(found.path))


def check_hashes(found: Found, stop: threading.Event, count: Callable[[int], None]) -> None:
    """Each file of the cache has the content that its blob is named after; others cannot be checked so.

    The hub's cache names blobs by SHA-256, small ones by git's hash. `count` gets the bytes read.
    Raises Defect, Stopped once `stop` is set, or OSError.
    """
    for file, hashed in _hashable(found):
        name = file.readlink().name
        with file.open("rb") as stream:
            while data := stream.read(CHUNK_BYTES):
                hashed.update(data)
                count(len(data))
                if stop.is_set():
                    raise Stopped
        if hashed.hexdigest() != name:
            kind = "SHA-256" if len(name) == 64 else "git hash"
            message = f"{file.name}: its {kind} is not the hub's; remove {file.resolve()} and pull the model again"
            raise integrity.Defect(message)


def hashable_bytes(found: Found) -> int:
    """How many bytes `check_hashes` will read. Raises OSError."""
    return sum(file.stat().st_size for file, _ in _hashable(found))


def _hashable(found: Found) -> Iterator[tuple[Path, hashlib._Hash]]:
    """Files that link to a blob which is named after its hash, each with a hash that is begun."""
    for file in found.files:
        name = file.readlink().name if file.is_symlink() else ""
        if _SHA256.fullmatch(name):
            yield file, hashlib.sha256()
        elif _GIT_SHA1.fullmatch(name):
            begin = f"blob {file.stat().st_size}\0".encode()
            yield file, hashlib.sha1(begin, usedforsecurity=False)
