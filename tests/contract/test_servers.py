"""What every description promises, the shipped ones and one that stands only in a test's settings."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from autotuned import providers
from autotuned.core.command_line import is_server
from autotuned.descriptions import Descriptions, catalogue, shipped
from autotuned.engine.servers import Servers
from autotuned.errors import ConfigError
from autotuned.providers.server import Binary, Launch
from autotuned.server_spec import ServerSpec, as_toml
from autotuned.shared.knobs import Knobs
from tests.engine import inside
from tests.support.home import Home
from tests.support.models import write_gguf

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
EXAMPLE = PAGE.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
MINE = ServerSpec.model_validate(tomllib.loads(EXAMPLE)["servers"]["mine"])
OWN = Descriptions({"mine": MINE})
SPECS = OWN.all()
PORT = 18_431


def launch(knobs: Knobs | None) -> Launch:
    return Launch("acme/m-1B", Path("/w/m"), knobs, PORT, 2000, Path("/private"), 77)


def test_the_page_of_servers_names_every_one_that_is_shipped_and_how_it_was_tried() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, spec in shipped().items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert spec.tried in row
        assert all(f"`{knob}`" in row for knob in spec.knobs)


async def test_the_packages_of_a_module_are_asked_of_the_python_that_runs_it() -> None:
    command = [sys.executable, "-m", "served", "{weights}", "--port", "{port}"]
    spec = MINE.model_copy(
        update={"command": command, "version": None, "packages": ["pydantic"], "places": []}
    )
    server = providers.made("mine", own=Descriptions({"mine": spec}))
    assert (await server.locate()).version.startswith("pydantic 2.")


@pytest.mark.parametrize("name", SPECS)
def test_a_description_is_whole(name: str) -> None:
    spec = SPECS[name]
    assert spec.tried
    assert spec.candidates in catalogue()
    assert all(knob.help for knob in spec.knobs.values())
    assert {"max_batch", "max_context"} <= set(spec.knobs)
    assert ServerSpec.model_validate(tomllib.loads(as_toml(name, spec))["servers"][name]) == spec


@pytest.mark.parametrize("name", SPECS)
def test_a_candidate_listens_on_the_loopback_at_its_port_and_is_recognised(name: str) -> None:
    server = providers.made(name, own=OWN)
    binary = Binary((f"/bin/{server.spec.command[0]}",), "1")
    for knobs in (None, Knobs(None, 1, 4000)):
        argv = server.command(binary, launch(knobs)).argv
        assert str(PORT) in argv
        assert "acme/m-1B" in argv or "/w/m" in argv
        assert not {"0.0.0.0", "::"} & set(argv)
        assert is_server(argv, server.commands)
        served = server.serve_argv(binary, launch(knobs))
        assert str(PORT) not in served
        assert "/private" not in " ".join(served)
        assert is_server(served, server.commands)


@pytest.mark.parametrize("name", SPECS)
def test_every_value_of_every_knob_becomes_words_that_its_flags_name(name: str) -> None:
    spec = SPECS[name]
    names = {"max_batch": 2, "max_context": 4000}
    for knob in spec.knobs.values():
        for value in knob.values or knob.default_axis:
            assert knob.rule(value) is None
            words = knob.words(value, names)
            written = [word.partition("=")[0] for word in words if word.startswith("-")]
            assert set(written) <= set(knob.flags)
        assert (knob.rule("no such value") is None) == (knob.type == "text" and not knob.values)


def install(home: Home, name: str) -> Path:
    """The scripted server under the name of this one's program, with an interpreter that tells versions."""
    spec = SPECS[name]
    python = home.bin / "python3"
    answer = 'case "$1" in -I) echo "$4 1.2.3";; *)'
    python.write_text(f'#!/bin/sh\n{answer} exec {sys.executable} -S "$@";; esac\n')
    script = home.bin / spec.command[0]
    source = Path(__file__).parents[1] / "support" / "any_server.py"
    script.write_text(f"#!{python}\n{source.read_text(encoding='utf-8')}")
    for path in (python, script):
        path.chmod(0o755)
    return script


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mine" else pytest.mark.slow) for name in SPECS]
)
async def test_a_server_is_started_tried_and_stopped_by_its_description_alone(
    name: str, home: Home
) -> None:
    program = install(home, name)
    home.settings(f'[provider]\nkind = "{name}"\nbinary = "{program}"\n{EXAMPLE}')
    model = "acme/m-1B"
    if SPECS[name].weights == "gguf":
        model = str(write_gguf(home.path / "m-1M.gguf"))
    else:
        home.cache(model)
    async with inside.agent(home) as agent:
        servers = Servers(agent._configuration, agent, agent._host, agent._records, agent._live)
        listed = {server["name"]: server for server in (await servers.list())["servers"]}
        assert listed[name]["problem"] is None
        assert listed[name]["version"] is not None
        assert listed[name]["source"] == ("settings" if name == "mine" else "shipped")
        found = await servers.check(name, model, home.port)
    assert found["reason"] is None
    assert found["argv"][0] == str(program)
    assert (found["completion_tokens"], found["cached_tokens"]) == (5, 0)
    for figure in (found["ready_ms"], found["ttft_ms"], found["tps"], found["stop_ms"]):
        assert figure is not None
        assert figure > 0


async def test_nothing_of_a_description_comes_over_the_socket(home: Home) -> None:
    words: dict[str, Any] = {"command": ["sh"], "servers": {"x": {"command": ["sh"]}}}
    async with inside.agent(home) as agent:
        for field, value in words.items():
            with pytest.raises(ConfigError, match="is not a parameter of start"):
                await agent.start({field: value})
