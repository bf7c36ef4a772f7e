"""What prewarming would mean, looked up with nothing changed: which files of a listing, how many bytes, and why not.

Asks the hub for sizes only, and not for long.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotuned.core.model import Failure, WeightsFormat
from autotuned.shared.files import nearest_there
from autotuned.shared.paths import is_path
from autotuned.weights import cache, integrity, selection
from autotuned.weights.cache import NotHere, damaged, transient
from autotuned.weights.hub import HubFault, Listing
from autotuned.weights.hub.session import IMPATIENT, HubSession, is_offline
from autotuned.weights.verified import Ledger

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
    folder, missing = cache.repository_folder(root, listing.repo), 0
    for name in names:
        file = listing.files[name]
        blob = folder / "blobs" / (file.digest or "-")
        pointer = folder / "snapshots" / listing.commit / name
        here = (pointer, blob, blob.with_name(f"{blob.name}.autotuned.incomplete"))
        found = next((path.stat().st_size for path in here if path.is_file()), 0)
        missing += max(0, file.bytes - found)
    return missing


def disk_free(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which may not exist yet. Raises OSError."""
    return shutil.disk_usage(nearest_there(folder)).free


LISTING_S = 20.0
"""Asking for the sizes of all candidates may take this long."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What prewarming a model would mean. Bytes are None where nobody could say; `reason`: why it would fail."""

    model: str
    cached: bool
    weights_bytes: int | None = None
    fetch_bytes: int | None = None
    reason: str | None = None


async def outlook(
    models: Sequence[str],
    form: WeightsFormat,
    environ: Mapping[str, str],
    ledger: Ledger,
    memory_bytes: int | None,
) -> list[Outlook]:
    """What prewarming each would mean. `memory_bytes` None: no static fit check."""
    found = [await asyncio.to_thread(_here, model, form, environ, ledger) for model in models]
    absent = [look.model for look in found if not look.cached and not is_path(look.model)]
    remote: dict[str, Outlook] = {}
    if absent and not is_offline(environ):
        session = HubSession(environ, cache.hub_cache(environ), IMPATIENT)
        try:
            async with asyncio.timeout(LISTING_S), session:
                for model in absent:
                    remote[model] = await _at_the_hub(session, model, form, environ)
        except TimeoutError:
            pass  # what is unknown then says so itself: its sizes are None
        except HubFault as fault:  # nobody answers, for the others neither
            reason = transient(fault.reason).reason
            for model in absent:
                remote.setdefault(model, Outlook(model, cached=False, reason=reason))
    return [_judged(remote.get(look.model, look), memory_bytes) for look in found]


def _here(model: str, form: WeightsFormat, environ: Mapping[str, str], ledger: Ledger) -> Outlook:
    try:
        found = cache.locate(model, form, environ)
        if isinstance(found, Failure | NotHere):
            failure = found if isinstance(found, Failure) else transient(found.reason)
            return Outlook(model, cached=False, reason=failure.reason)
        weights = ledger.known(found.path, found.files) or cache.inspect(found, form)
    except (integrity.Defect, OSError) as error:
        broken = isinstance(error, integrity.Defect) and not isinstance(error, integrity.Lacking)
        return Outlook(model, cached=broken, reason=_failure(error).reason)
    return Outlook(model, cached=True, weights_bytes=weights.weights_bytes, fetch_bytes=0)


async def _at_the_hub(
    session: HubSession, model: str, form: WeightsFormat, environ: Mapping[str, str]
) -> Outlook:
    """Raises HubFault where nobody answers at all."""
    root = cache.hub_cache(environ)
    try:
        listing = await session.listing(cache.repository(model, form)[0])
        small, weights = chosen(listing, model, form)
        missing = await asyncio.to_thread(missing_bytes, root, listing, [*small, *weights])
        room = await asyncio.to_thread(no_room_for, root, listing, [*small, *weights])
    except (HubFault, integrity.Defect, OSError) as error:
        if isinstance(error, HubFault) and error.unreachable:
            raise
        return Outlook(model, cached=False, reason=_failure(error).reason)
    if not weights:
        reason = transient("the repository has no such weights").reason
        return Outlook(model, cached=False, reason=reason)
    return Outlook(
        model,
        cached=False,
        weights_bytes=listing.bytes_of(weights),
        fetch_bytes=missing,
        reason=room and transient(room).reason,
    )


def _failure(error: Exception) -> Failure:
    made = damaged if isinstance(error, integrity.Defect) else transient
    return made(str(error))


def _judged(look: Outlook, memory_bytes: int | None) -> Outlook:
    """The same, with the static fit check: what cannot run is not fetched."""
    if look.weights_bytes is None or memory_bytes is None:
        return look
    unfit = cache.fits_in_memory(look.weights_bytes, memory_bytes)
    return look if unfit is None else replace(look, fetch_bytes=0, reason=unfit.reason)
