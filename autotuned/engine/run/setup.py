"""What a run is made with: the concrete pieces of this machine, and the bench that is built from them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from autotuned.core.model import WeightsFormat
from autotuned.core.plan import Plan
from autotuned.core.quarantine import Configuration
from autotuned.core.request import TuneRequest
from autotuned.documents.events import TrialReport
from autotuned.documents.run import FetchDocument, Step
from autotuned.engine.measure.context import Bench
from autotuned.engine.measure.watchdog import Watchdog
from autotuned.engine.quarantine import Quarantine
from autotuned.host.children.process import Processes
from autotuned.host.clock import Sleep
from autotuned.host.files import private_folder
from autotuned.host.machine import Machine
from autotuned.host.ports import Ports
from autotuned.providers.server import Binary, Provider
from autotuned.settings import Settings
from autotuned.shared.redaction import known_secrets, masker
from autotuned.weights.cache import hub_cache
from autotuned.weights.plan import disk_free, outlook
from autotuned.weights.prewarm import Prewarmer


@dataclass(frozen=True, slots=True)
class Host:
    """The concrete pieces that the composition root hands over."""

    processes: Callable[[], Processes]
    ports: Ports
    machine: Machine
    sleep: Sleep
    awake: Callable[[], contextlib.AbstractAsyncContextManager[None]]
    """Keeps the machine from falling asleep inside the block."""
    choose: Callable[[str], Provider]
    """Kind (or `auto`) to adapter; raises ProviderMissing."""
    marker: str
    environ: Mapping[str, str]


def bench(
    host: Host,
    settings: Settings,
    prewarmer: Prewarmer,
    quarantine: Quarantine,
    run_id: str,
    request: TuneRequest,
    provider: Provider,
    binary: Binary,
    publish: Callable[[TrialReport], None],
    enter: Callable[[Step], None],
) -> Bench:
    """The bench of one run, with its private folders made. `publish` gets what trials report, `enter` the part they are in.

    Raises UnsafePath for a folder that others may enter.
    """
    logs, folder = settings.run_logs(run_id), settings.run_folder / run_id
    private_folder(settings.run_folder)
    private_folder(folder)
    private_folder(logs)
    memory = host.machine.facts().ram_bytes if request.static_fit_check else None
    return Bench(
        provider=provider,
        binary=binary,
        settings=settings.provider,
        processes=host.processes(),
        ports=host.ports,
        machine=host.machine,
        watchdog=Watchdog(host.sleep),
        prewarm=prewarmer.for_run(provider.weights, memory, verify=request.verify),
        refusal=_permitted if request.ignore_quarantine else quarantine.refusal,
        inflight=quarantine.inflight,
        run_id=run_id,
        publish=publish,
        enter=enter,
        environ=host.environ,
        logs=logs,
        folder=folder,
        port=request.port,
        target_context=request.target_context,
        gate_ttft_ms=request.gate_ttft_ms,
        thermal_gate=request.thermal_gate,
        logs_before=sum(1 for _ in logs.iterdir()),
        mask=masker(known_secrets(host.environ, [str(settings.provider_config)])),
    )


async def _permitted(_: Configuration) -> None:
    """Everything may be started."""


async def weights_ahead(
    prewarmer: Prewarmer, planned: Plan, form: WeightsFormat, memory_bytes: int | None
) -> FetchDocument:
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


def new_run_id() -> str:
    """Sorts by time, and is never the same twice."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
