"""`models` and `pull`: what is in the cache of weights, and bringing one model into it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autotuned.documents.weights import ModelsDocument, PullDocument
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, Services
from autotuned.shared import wire


class PullParams(Params):
    """Which model; `verify` reads again what was checked before."""

    model: str
    provider: str | None = None
    verify: bool = False
    static_fit_check: bool = True


class OnePullParams(Params):
    """A pull; the one in progress, else the newest, where it is left out."""

    pull_id: str | None = None


class PullWaitParams(OnePullParams):
    """Which pull to wait for, and how many seconds at most."""

    timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


def methods(services: Services) -> list[Method]:
    """Everything about weights outside of a run."""
    pulls = services.agent.pulls

    async def models(_: Connection, __: Params) -> ModelsDocument:
        return await pulls.models()

    async def pull(_: Connection, params: PullParams) -> PullDocument:
        return services.agent.pull(**params.model_dump())

    async def wait(_: Connection, params: PullWaitParams) -> PullDocument:
        return await pulls.wait(params.pull_id, params.timeout_s)

    async def cancel(_: Connection, params: OnePullParams) -> PullDocument:
        return await pulls.cancel(params.pull_id)

    starts = "bring a model's weights into the cache; joins a pull of the same model"
    waits = "a pull once it has ended, or as it is after timeout_s"
    return [
        Method("models", "what is in the cache of weights", models),
        Method("pull", starts, pull, (wire.BUSY, wire.SHUTTING_DOWN)),
        Method("pull.wait", waits, wait, (wire.NOT_FOUND,)),
        Method("pull.cancel", "end a pull", cancel, (wire.NOT_FOUND,)),
    ]
