"""`servers`, `servers.show`, `servers.check` and `serve`: the serving programs that are described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

    async def listing(_: Connection, __: Mapping[str, Any]) -> ServersDocument:
        return await servers.list()

    async def show(_: Connection, params: Mapping[str, Any]) -> ServerText:
        return servers.show(params["name"])

    async def check(_: Connection, params: Mapping[str, Any]) -> ServerCheck:
        return await servers.check(**params)

    async def serve(_: Connection, params: Mapping[str, Any]) -> ServeDocument:
        return await servers.serve(params["run_id"])

    looks = "the servers that are described: where each comes from, its program, version and knobs"
    tries = "start a server once with one model, and tell what it does"
    begin = (wire.BUSY, wire.SHUTTING_DOWN)
    return [
        Method("servers", looks, listing, result=ServersDocument),
        Method("servers.show", "a server's description", show, ServerParams, ServerText),
        Method("servers.check", tries, check, CheckParams, ServerCheck, begin),
        Method(
            "serve",
            "the command line that serves a run's recipe",
            serve,
            RunParams,
            ServeDocument,
            (wire.NOT_FOUND,),
        ),
    ]
