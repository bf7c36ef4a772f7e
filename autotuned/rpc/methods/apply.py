"""`apply` and `revert`: a recommendation into the provider's configuration, and back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autotuned.documents.provider import ConfigurationResult
from autotuned.engine.apply.consent import Consent
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, RunParams, Services
from autotuned.shared import wire


class ApplyParams(RunParams):
    """Whose recommendation, and what is agreed to beyond the usual."""

    allow_partial: bool = False
    force: bool = False
    restart: bool = False
    dry_run: bool = False
    knobs_only: bool = False
    all_knobs: bool = False
    context: Annotated[int, Field(ge=1)] | None = None


class RevertParams(Params):
    """A backup by its name within the configuration's folder; the newest where it is left out.

    Our keys go back as it has them; with `whole` the whole file does.
    """

    backup: str | None = None
    whole: bool = False
    restart: bool = False


def methods(services: Services) -> list[Method]:
    """Writing the configuration."""
    applier = services.applier

    async def apply(_: Connection, params: ApplyParams) -> ConfigurationResult:
        consent = Consent(**params.model_dump(exclude={"run_id"}))
        return await applier.apply(params.run_id, consent, services.agent.active_run)

    async def revert(_: Connection, params: RevertParams) -> ConfigurationResult:
        active, whole = services.agent.active_run, params.whole
        return await applier.revert(params.backup, active, whole=whole, restart=params.restart)

    also = (wire.NOT_FOUND, wire.BUSY, wire.PROVIDER_CONFLICT, wire.RESTORE_OUTSTANDING)
    write = "write a run's recommendation into the provider's configuration"
    back = "put a backup of the configuration back"
    return [
        Method("apply", write, apply, (wire.APPLY_REFUSED, *also), acts=True),
        Method("revert", back, revert, (wire.APPLY_REFUSED, *also), acts=True),
    ]
