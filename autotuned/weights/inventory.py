"""The models in the local cache: what is there, whole or not. Reads headers and names, never the tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.model import WeightsFormat
from autotuned.weights import cache, integrity, selection
from autotuned.weights.cache import Found
from autotuned.weights.verified import Ledger

_QUANT = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d\w*|BF16|F16|F32|MXFP4\w*))(?=[-.]|$)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Shelved:
    """One model of the cache. `reason`: why it is not complete; bytes are those of its weight files."""

    model: str
    form: WeightsFormat
    weights_bytes: int
    complete: bool
    reason: str | None = None
    checked_at: str | None = None
    """When its content was checked last, UTC; None where never by us."""


def shelf(environ: Mapping[str, str], ledger: Ledger) -> list[Shelved]:
    """All models of the cache by name. Raises OSError."""
    root = cache.hub_cache(environ)
    found: list[Shelved] = []
    for folder in sorted(root.glob("models--*")):
        if folder.is_dir():
            repo = folder.name.removeprefix("models--").replace("--", "/")
            found += _of_repository(repo, folder, environ, ledger)
    return found


def _of_repository(
    repo: str, folder: Path, environ: Mapping[str, str], ledger: Ledger
) -> Iterator[Shelved]:
    revision = cache.snapshot(repo, environ)
    inside = revision.rglob("*") if revision is not None else ()
    names = [str(path.relative_to(str(revision))) for path in inside if path.is_file()]
    for model, form in _models(repo, names):
        located = cache.locate(model, form, environ)
        if isinstance(located, Found):
            yield _judged(model, form, located, ledger)
    blobs = (folder / "blobs").glob("[!.]*.incomplete")
    parts = [part.stat().st_size for part in blobs]
    if parts and not _models(repo, names):
        form = "gguf" if "gguf" in repo.lower() else "mlx"
        reason = f"fetched in part ({len(parts)} to go on with): autotunectl pull {repo}"
        yield Shelved(repo, form, sum(parts), complete=False, reason=reason)


def _models(repo: str, names: list[str]) -> list[tuple[str, WeightsFormat]]:
    """The ids by which a repository's weights are asked for: itself, or one for each quant."""
    if selection.mlx_weights(names) or selection.INDEX in names:
        return [(repo, "mlx")]
    quants = {found[1] for name in names if (found := _QUANT.search(name.removesuffix(".gguf")))}
    if not quants and selection.gguf(names, ""):
        return [(repo, "gguf")]
    return [(f"{repo}:{quant}", "gguf") for quant in sorted(quants) if selection.gguf(names, quant)]


def _judged(model: str, form: WeightsFormat, found: Found, ledger: Ledger) -> Shelved:
    size = sum(
        file.stat().st_size for file in found.files if file.suffix in (".safetensors", ".gguf")
    )
    try:
        known = ledger.known(found.path, found.files)
        weights = known or cache.inspect(found, form)
    except (integrity.Defect, OSError) as error:
        return Shelved(model, form, size, complete=False, reason=str(error))
    at = ledger.checked_at(found.path) if known is not None else None
    return Shelved(model, form, weights.weights_bytes, complete=True, checked_at=at)
