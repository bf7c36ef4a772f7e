"""What a run would have to fetch before it can measure: the part of a dry run that is about weights."""

from __future__ import annotations

import asyncio
from typing import Any

from autotuned.core.model import WeightsFormat
from autotuned.core.request import Plan
from autotuned.weights.cache import hub_cache
from autotuned.weights.choice import disk_free
from autotuned.weights.plan import outlook
from autotuned.weights.prewarm import Prewarmer


async def weights_ahead(
    prewarmer: Prewarmer, planned: Plan, form: WeightsFormat, memory_bytes: int | None
) -> dict[str, Any]:
    """Each candidate's weights, and bytes and seconds of fetching all that fit.

    `fetch_s` is None where no download has been measured yet. A run fetches less: it stops at the
    first candidate that is feasible.
    """
    models = [candidate.model for candidate in planned.candidates]
    environ, ledger = prewarmer.environ, prewarmer.ledger
    looks = await outlook(models, form, environ, ledger, memory_bytes)
    fetch, rate = sum(look.fetch_bytes or 0 for look in looks), ledger.rate
    return {
        "candidates": [
            {
                "model": candidate.model,
                "rank": candidate.rank,
                "size_b": candidate.size_b,
                "cached": look.cached,
                "weights_bytes": look.weights_bytes,
                "fetch_bytes": look.fetch_bytes,
                "reason": look.reason,
            }
            for candidate, look in zip(planned.candidates, looks, strict=True)
        ],
        "fetch_bytes": fetch,
        "fetch_rate": rate,
        "fetch_s": None if rate is None else round(fetch / rate, 1),
        "disk_free_bytes": await asyncio.to_thread(disk_free, hub_cache(environ)),
    }
