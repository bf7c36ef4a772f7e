"""Does a server that listens also serve? One look at the paths that its adapter names.

Each look is bounded in time and bytes, whatever the server sends. Must not know whose process listens.
"""

from __future__ import annotations

import asyncio
import json

import httpx

from autotuned.providers.interface import Provider

LOOK_TIMEOUT_S = 2.0
BODY_MAX_BYTES = 1024 * 1024


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
        if path == "/v1/models" and not _lists(provider, body, model):
            return "GET /v1/models does not list the model"
    return None


async def _get(client: httpx.AsyncClient, url: str) -> tuple[int, bytes]:
    body = bytearray()
    async with client.stream("GET", url) as response:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > BODY_MAX_BYTES:
                return response.status_code, b""  # no list of models is that long
        return response.status_code, bytes(body)


def _lists(provider: Provider, body: bytes, model: str) -> bool:
    try:
        return provider.serves(json.loads(body), model)
    except (ValueError, RecursionError):
        return False
