"""`subscribe` and `unsubscribe`: events as notifications on the connection that asks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autotuned.documents import Empty
from autotuned.documents.events import SubscribedDocument
from autotuned.engine.events import Subscription
from autotuned.errors import NotFound
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, RunParams, Services
from autotuned.shared import wire


class SubscribeParams(RunParams):
    """Events of one run or of all; `since` replays what is kept after that number."""

    since: Annotated[int, Field(ge=0)] | None = None


class UnsubscribeParams(Params):
    """Which subscription to end."""

    subscription: str


def methods(services: Services) -> list[Method]:
    """Following what happens."""
    records = services.records

    async def subscribe(connection: Connection, params: SubscribeParams) -> SubscribedDocument:
        if params.run_id is not None:
            await records.row(params.run_id)
        connection.refuse_more()
        seq = services.events.seq
        subscription = services.events.subscribe(params.run_id, params.since)
        connection.keep(subscription.id, lambda: services.events.unsubscribe(subscription))
        connection.later(_forward(connection, subscription))
        return {"subscription": subscription.id, "seq": seq}

    async def unsubscribe(connection: Connection, params: UnsubscribeParams) -> Empty:
        if not connection.end(params.subscription):
            message = f"this connection has no subscription {params.subscription!r}"
            raise NotFound(message, subscription=params.subscription)
        return {}

    follow = "events as notifications on this connection"
    end = "end a subscription of this connection"
    return [
        Method("subscribe", follow, subscribe, (wire.NOT_FOUND, wire.BUSY)),
        Method("unsubscribe", end, unsubscribe, (wire.NOT_FOUND,)),
    ]


async def _forward(connection: Connection, subscription: Subscription) -> None:
    """Send a subscription's events at the pace at which the client reads them."""
    async for event in subscription:
        connection.notify("event", {"subscription": subscription.id, **event.document()})
        await connection.drained()
    connection.end(subscription.id)
