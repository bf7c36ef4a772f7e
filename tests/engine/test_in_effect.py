"""Whether a live server runs a recipe, by what it lists."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from autotuned.engine.live.preflight import lists_another
from autotuned.host.find import Process
from tests.support.home import free_port


@pytest.fixture
def lists() -> Iterator[tuple[int, list[str]]]:
    """A port whose server lists these models."""
    names: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": name} for name in names]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, names
        server.shutdown()


def live(port: int) -> Process:
    argv = ("llama-server", "-m", "/models/tiny-1M.gguf", "--alias", "mine")
    return Process(pid=1, argv=argv, port=port)


@pytest.mark.parametrize(
    "name", ["/models/tiny-1M.gguf", "tiny-1M.gguf", "tiny-1M", "mine", "acme/other", "other"]
)
async def test_a_server_that_lists_what_it_was_started_with_or_the_recipe_is_believed(
    name: str, lists: tuple[int, list[str]]
) -> None:
    port, names = lists
    names.append(name)
    assert await lists_another(live(port), "acme/other") == []


async def test_a_server_that_lists_something_else_is_not_in_effect(
    lists: tuple[int, list[str]],
) -> None:
    port, names = lists
    names += ["another", "and-one-more"]
    told = await lists_another(live(port), "acme/other")
    assert told == ["it lists another, and-one-more as its models"]


async def test_one_that_does_not_answer_yet_says_nothing_against_it() -> None:
    assert await lists_another(live(free_port()), "acme/other") == []
