"""Waiting until a candidate serves: its own group listens, and the paths that its adapter names answer.

Each look is bounded in time and bytes, whatever the server sends. A fatal error in the candidate's log
ends the wait: some servers live on after a load that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

import httpx

from autotuned.engine.measure.context import Bench, read_log, with_telling_line
from autotuned.host.children.process import Child
from autotuned.providers import log_reason
from autotuned.providers.server import Launch, Provider

POLL_S = 0.05
LOG_POLL_S = 0.5
FATAL_GRACE_S = 2.0
"""After a fatal line in its log a server has this long to exit, or to serve all the same."""
LOOK_TIMEOUT_S = 2.0
BODY_MAX_BYTES = 1024 * 1024


async def reason_not_ready(
    bench: Bench, client: httpx.AsyncClient, child: Child, launch: Launch, log: Path
) -> str | None:
    """Wait until the candidate's own group serves the model, or has ended: None. Else why it never did."""
    began = time.monotonic()
    log_due, fatal, fatal_at = began + LOG_POLL_S, None, 0.0
    waiting_for = ""
    while (now := time.monotonic()) < began + bench.settings.ready_timeout_s:
        if child.exit_code is not None:
            return None
        state = await _state(bench, client, child, launch)
        if state is None:
            return None
        waiting_for = state
        if fatal is not None and now >= fatal_at + FATAL_GRACE_S:
            return f"failed to load: {bench.provider.telling_line(fatal) or fatal}"
        if fatal is None and now >= log_due:
            text = await asyncio.to_thread(read_log, log)
            fatal, fatal_at = log_reason.fatal_line(text, bench.provider.fatal), now
            log_due = now + LOG_POLL_S
        try:
            async with asyncio.timeout(POLL_S):
                await child.exited()
        except TimeoutError:
            continue
    reason = f"not ready within {bench.settings.ready_timeout_s:g} s: {waiting_for}"
    return await asyncio.to_thread(with_telling_line, reason, bench.provider, log)


async def _state(
    bench: Bench, client: httpx.AsyncClient, child: Child, launch: Launch
) -> str | None:
    """None when ready, else what is still missing."""
    if not bench.ports.listens(child.pid, launch.port):
        holder = bench.ports.holder(launch.port)
        if holder is None:
            return f"nothing listens on port {launch.port}"
        return f"port {launch.port} is held by {holder.name or 'another program'} pid {holder.pid}"
    return await missing(client, bench.provider, launch.port, launch.model)


async def missing(
    client: httpx.AsyncClient, provider: Provider, port: int, model: str
) -> str | None:
    """None when the server on `port` says that it serves `model`, else what is still missing, in words."""
    for path in provider.readiness:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                status, body = await _get(client, f"http://127.0.0.1:{port}{path}")
        except TimeoutError:
            return f"GET {path}: no whole answer within {LOOK_TIMEOUT_S:g} s"
        except httpx.HTTPError as error:
            return f"GET {path}: {type(error).__name__}"
        if status != 200:
            return f"GET {path}: HTTP {status}"
        if path == "/v1/models":
            with contextlib.suppress(ValueError, RecursionError):
                if provider.serves(json.loads(body), model):
                    continue
            return "GET /v1/models does not list the model"
    return None


async def listing(port: int) -> object:
    """What `/v1/models` of any server on `port` answers, decoded; None where nothing usable comes."""
    try:
        async with (
            asyncio.timeout(LOOK_TIMEOUT_S),
            httpx.AsyncClient(trust_env=False) as client,
        ):
            _, body = await _get(client, f"http://127.0.0.1:{port}/v1/models")
            found: object = json.loads(body)
            return found
    except (TimeoutError, httpx.HTTPError, ValueError, RecursionError):
        return None


async def _get(client: httpx.AsyncClient, url: str) -> tuple[int, bytes]:
    body = bytearray()
    async with client.stream("GET", url) as response:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > BODY_MAX_BYTES:
                return response.status_code, b""  # no list of models is that long
        return response.status_code, bytes(body)
