"""`version`, `doctor`, `reload` and `shutdown`: the agent itself."""

from __future__ import annotations

import asyncio

from autotuned.documents import Empty
from autotuned.documents.doctor import DoctorDocument, ReloadDocument
from autotuned.documents.run import VersionDocument
from autotuned.engine import doctor as checks
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, Services
from autotuned.store.database import acknowledge


class DoctorParams(Params):
    """`acknowledge`: tell no more of damaged databases that were set aside."""

    acknowledge: bool = False


def methods(services: Services) -> list[Method]:
    """Who answers, how it is, and how to stop it."""
    one_at_a_time = asyncio.Lock()

    async def version(_: Connection, __: Params) -> VersionDocument:
        return services.version()

    async def shutdown(_: Connection, __: Params) -> Empty:
        after = 0.05  # once this answer has gone out
        asyncio.get_running_loop().call_later(after, services.shut_down)
        return {}

    async def doctor(_: Connection, params: DoctorParams) -> DoctorDocument:
        if params.acknowledge:
            await asyncio.to_thread(acknowledge, services.records.database.path)
        async with one_at_a_time:  # each looks at everything with threads and programs of its own
            return await checks.examine(await services.context())

    async def reload(_: Connection, __: Params) -> ReloadDocument:
        return await services.configuration.reload()

    who, stop = "who answers, and where its files are", "stop the agent gracefully, as SIGTERM does"
    looks = "everything that a run needs, each with its remedy"
    return [
        Method("version", who, version),
        Method("shutdown", stop, shutdown),
        Method("doctor", looks, doctor),
        Method("reload", "read the settings file again", reload, acts=True),
    ]
