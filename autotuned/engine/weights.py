"""One model brought into the cache because somebody asked for it, not for a run. One at a time.

Goes on when the client is gone; asking for the same model again joins it. Nothing durable is needed:
what has been fetched is in the cache, and the next pull goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from typing_extensions import Unpack

from autotuned.core import candidates
from autotuned.core.model import Failure, FailureKind, WeightsFormat
from autotuned.documents.events import PullFinished, PullNamed, PullPrewarmed, PullPrewarming
from autotuned.documents.weights import (
    ModelsDocument,
    Outcome,
    PullDocument,
    PullProgressDocument,
)
from autotuned.engine.events import Events
from autotuned.errors import Busy, NotFound, ProviderMissing, called
from autotuned.host.machine import Machine
from autotuned.providers.server import Provider
from autotuned.weights.cache import hub_cache, require_paths
from autotuned.weights.inventory import shelf
from autotuned.weights.plan import disk_free
from autotuned.weights.prewarm import Prewarmer

ENDING_S = 15.0
KEPT = 20
"""Pulls that have ended and can still be asked about."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Pull:
    """One pull, in progress or ended. `outcome` None while it goes on."""

    pull_id: str
    model: str
    outcome: Outcome | None = None
    reason: str | None = None
    path: str | None = None
    weights_bytes: int | None = None
    progress: PullProgressDocument | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def document(self) -> PullDocument:
        return {
            "pull_id": self.pull_id,
            "model": self.model,
            "state": "running" if self.outcome is None else "finished",
            "outcome": self.outcome,
            "reason": self.reason,
            "path": self.path,
            "weights_bytes": self.weights_bytes,
            "progress": self.progress,
        }


class Pulls:
    """The pulls of this agent, and the list of what is in the cache."""

    def __init__(
        self,
        prewarmer: Prewarmer,
        events: Events,
        machine: Machine,
        choose: Callable[[str | None], Provider],
        active_run: Callable[[], str | None],
    ) -> None:
        """`choose` gives the adapter of a kind, of the settings' kind for None; `active_run` the run in progress."""
        self._prewarmer, self._events, self._machine = prewarmer, events, machine
        self._choose, self._active_run = choose, active_run
        self._pulls: dict[str, Pull] = {}

    @property
    def active(self) -> Pull | None:
        return next((pull for pull in self._pulls.values() if pull.outcome is None), None)

    def start(
        self, model: str, provider: str | None, *, verify: bool, static_fit_check: bool
    ) -> PullDocument:
        """Begin, or join the one of the same model. Raises ConfigError, or Busy while a run or another pull goes on."""
        with called("candidate_models", "model"):
            (candidate,) = candidates.explicit([model], ())
        require_paths("model", [model], self._prewarmer.environ)
        active = self.active
        if active is not None and active.model == candidate.model:
            return active.document()
        self.refuse_while_active()
        run = self._active_run()
        if run is not None:
            message = f"run {run} is active: a download beside it would spoil what it measures"
            raise Busy(message, run_id=run)
        form = self._form(candidate.model, provider)
        memory = self._machine.facts().ram_bytes if static_fit_check else None
        pull = Pull(f"pull-{secrets.token_hex(4)}", candidate.model)
        for old in list(self._pulls)[: -KEPT + 1]:
            del self._pulls[old]
        self._pulls[pull.pull_id] = pull
        work = self._carry_through(pull, form, memory, verify=verify)
        pull.task = asyncio.create_task(work, name=pull.pull_id)
        return pull.document()

    def refuse_while_active(self) -> None:
        if self.active is not None:
            message = (
                f"{self.active.model} is being pulled: wait for it, or autotunectl pull --cancel"
            )
            raise Busy(message, pull_id=self.active.pull_id)

    async def wait(self, pull_id: str | None, timeout_s: float | None) -> PullDocument:
        """A pull's document once it has ended, or after `timeout_s` as it is then. Raises NotFound."""
        pull = self._named(pull_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await pull.ended.wait()
        return pull.document()

    async def cancel(self, pull_id: str | None) -> PullDocument:
        """End a pull; its document once it is over. Idempotent. Raises NotFound."""
        pull = self._named(pull_id)
        if pull.task is not None:
            pull.task.cancel()
        return await self.wait(pull.pull_id, ENDING_S)

    async def close(self) -> None:
        if self.active is not None:
            await self.cancel(self.active.pull_id)

    async def models(self) -> ModelsDocument:
        """What is in the cache, and whether this machine's memory holds it. Raises OSError."""
        environ, memory = self._prewarmer.environ, self._machine.facts().ram_bytes
        root = hub_cache(environ)
        found = await asyncio.to_thread(shelf, environ, self._prewarmer.ledger)
        return {
            "cache": str(root),
            "disk_free_bytes": await asyncio.to_thread(disk_free, root),
            "memory_bytes": memory,
            "models": [
                {
                    "model": model.model,
                    "format": model.form,
                    "size_b": candidates.size_b(model.model),
                    "weights_bytes": model.weights_bytes,
                    "complete": model.complete,
                    "reason": model.reason,
                    "fits": model.weights_bytes <= memory,
                    "checked_at": model.checked_at,
                }
                for model in found
            ],
        }

    def _form(self, model: str, provider: str | None) -> WeightsFormat:
        """As the provider reads them; where none is installed yet, as the name says."""
        try:
            return self._choose(provider).weights
        except ProviderMissing:
            return "gguf" if ":" in model or "gguf" in model.lower() else "mlx"

    def _named(self, pull_id: str | None) -> Pull:
        pull = self._pulls.get(pull_id) if pull_id is not None else None
        if pull_id is None:
            pull = self.active or next(reversed(self._pulls.values()), None)
        if pull is None:
            message = f"there is no pull {pull_id}" if pull_id else "nothing has been pulled yet"
            raise NotFound(message, pull_id=pull_id)
        return pull

    async def _carry_through(
        self, pull: Pull, form: WeightsFormat, memory_bytes: int | None, *, verify: bool
    ) -> None:
        named: PullNamed = {"pull_id": pull.pull_id, "model": pull.model}

        def report(**progress: Unpack[PullProgressDocument]) -> None:
            pull.progress = progress
            event: PullPrewarming = {"type": "prewarm.progress", **named, **progress}
            self._events.publish(event, None)

        outcome: Outcome = "internal_error"
        reason: str | None = None
        try:
            found = await self._prewarmer.prewarm(
                pull.model, form, report, memory_bytes=memory_bytes, verify=verify
            )
            if isinstance(found, Failure):
                outcome, reason = _OUTCOMES.get(found.kind, "transient"), found.reason
            else:
                outcome = "ok"
                pull.path, pull.weights_bytes = str(found.path), found.weights_bytes
                done: PullPrewarmed = {
                    "type": "prewarm.done",
                    **named,
                    "bytes": found.weights_bytes,
                }
                self._events.publish(done, None)
        except asyncio.CancelledError:
            outcome, reason = "interrupted", "cancelled; what is here is kept for the next pull"
        except Exception as error:
            log.exception("pull failed", model=pull.model)
            reason = f"{type(error).__name__}: {error}"
        finally:
            pull.outcome, pull.reason = outcome, reason
            pull.ended.set()
            ended: PullFinished = {
                "type": "pull.finished",
                **named,
                "outcome": outcome,
                "reason": reason,
            }
            self._events.publish(ended, None)
            log.info("pull finished", model=pull.model, outcome=outcome, reason=reason)


_OUTCOMES: Mapping[FailureKind, Outcome] = {
    FailureKind.TRANSIENT: "transient",
    FailureKind.INTEGRITY: "integrity",
    FailureKind.STATIC: "static",
}
