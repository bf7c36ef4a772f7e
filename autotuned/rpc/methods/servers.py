"""`servers`, `servers.show`, `servers.check` and `serve`: the serving programs that are described."""

from __future__ import annotations

from autotuned.documents.servers import ServeDocument, ServerCheck, ServersDocument, ServerText
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, RunParams, Services
from autotuned.shared import wire


class ServerParams(Params):
    """Which server."""

    name: str


class CheckParams(ServerParams):
    """With which model, the smallest of the server's list where it is left out; and on which port."""

    model: str | None = None
    port: int | None = None


def methods(services: Services) -> list[Method]:
    """Look, and try one. None of them can say which program is run."""
    servers = services.servers

    async def listing(_: Connection, __: Params) -> ServersDocument:
        return await servers.list()

    async def show(_: Connection, params: ServerParams) -> ServerText:
        return servers.show(params.name)

    async def check(_: Connection, params: CheckParams) -> ServerCheck:
        return await servers.check(params.name, params.model, params.port)

    async def serve(_: Connection, params: RunParams) -> ServeDocument:
        return await servers.serve(params.run_id)

    looks = "the servers that are described: where each comes from, its program, version and knobs"
    tries = "start a server once with one model, and tell what it does"
    line = "the command line that serves a run's recipe"
    return [
        Method("servers", looks, listing),
        Method("servers.show", "a server's description", show),
        Method("servers.check", tries, check, (wire.BUSY, wire.SHUTTING_DOWN)),
        Method("serve", line, serve, (wire.NOT_FOUND,)),
    ]
