"""What prewarming would mean: looked up, with nothing changed.

Asks the hub for sizes only, and not for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autotuned.core.model import Failure, WeightsFormat
from autotuned.shared.paths import is_path
from autotuned.weights import cache, choice, integrity
from autotuned.weights.cache import NotHere, damaged, transient
from autotuned.weights.hub.session import IMPATIENT, HubFault, HubSession, is_offline
from autotuned.weights.verified import Ledger

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
        if isinstance(found, Failure):
            return Outlook(model, cached=False, reason=found.reason)
        if isinstance(found, NotHere):
            return Outlook(model, cached=False, reason=transient(found.reason).reason)
        weights = ledger.known(found.path, found.files) or cache.inspect(found, form)
    except integrity.Lacking as lacking:
        return Outlook(model, cached=False, reason=damaged(str(lacking)).reason)
    except integrity.Defect as defect:
        return Outlook(model, cached=True, reason=damaged(str(defect)).reason)
    except OSError as error:
        return Outlook(model, cached=False, reason=transient(str(error)).reason)
    return Outlook(model, cached=True, weights_bytes=weights.weights_bytes, fetch_bytes=0)


async def _at_the_hub(
    session: HubSession, model: str, form: WeightsFormat, environ: Mapping[str, str]
) -> Outlook:
    """Raises HubFault where nobody answers at all."""
    root = cache.hub_cache(environ)
    try:
        listing = await session.listing(cache.repository(model, form)[0])
        small, weights = choice.chosen(listing, model, form)
        missing = await asyncio.to_thread(choice.missing_bytes, root, listing, [*small, *weights])
        room = await asyncio.to_thread(choice.no_room_for, root, listing, [*small, *weights])
    except (HubFault, OSError) as error:
        if isinstance(error, HubFault) and error.unreachable:
            raise
        return Outlook(model, cached=False, reason=transient(str(error)).reason)
    except integrity.Defect as defect:
        return Outlook(model, cached=False, reason=damaged(str(defect)).reason)
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


def _judged(look: Outlook, memory_bytes: int | None) -> Outlook:
    """The same, with the static fit check: what cannot run is not fetched."""
    if look.weights_bytes is None or memory_bytes is None:
        return look
    unfit = cache.fits_in_memory(look.weights_bytes, memory_bytes)
    return look if unfit is None else replace(look, fetch_bytes=0, reason=unfit.reason)
