"""Which command lines are the live provider, where it listens, and what a drain cannot clear."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

import pytest

from autotuned import settings
from autotuned.core.request import TuneRequest
from autotuned.engine.live.preflight import conflict, recipe, undrainable
from autotuned.host.find import (
    Finder,
    Found,
    Process,
    port_of,
)
from autotuned.host.managers import Managers
from autotuned.host.ports import Listener, Ports
from autotuned.shared.knobs import Knobs
from autotuned.shared.launchctl import Launchd, LoadedJob, Presence

LABEL = "live.malibu.provider"


@pytest.mark.parametrize(
    ("words", "config", "port"),
    [
        (["--port", "81"], "port: 82\n", 81),
        (["--port=81"], "port: 82\n", 81),
        ([], "model: x\nport: 82 # mine\n", 82),
        ([], 'port: "83"\n', 83),
        ([], "idle_prewarm:\n  port: 84\n", 8080),
        ([], None, 8080),
        (["--port", "many"], None, 8080),
        (["--port", "99999"], "port: 99999\n", 8080),
    ],
)
def test_the_port_is_in_the_arguments_else_in_the_configuration_else_8080(
    tmp_path: Path, words: list[str], config: str | None, port: int
) -> None:
    path = tmp_path / "config.yaml"
    if config is not None:
        path.write_text(config, encoding="utf-8")
    assert port_of(["macprovider-cli", "serve", "--config", str(path), *words], tmp_path) == port
    assert port_of(["macprovider-cli", "serve", *words], path) == port


def managed(tmp_path: Path, job: LoadedJob, content: Any = None, given: str | None = None) -> Found:
    """What a preflight makes of this job, with this plist in its usual place."""
    if content is not None:
        agents = tmp_path / "Library" / "LaunchAgents"
        agents.mkdir(parents=True, exist_ok=True)
        (agents / f"{LABEL}.plist").write_bytes(plistlib.dumps(content))
    chosen = settings.load({"HOME": str(tmp_path)})
    if given is not None:
        chosen = chosen.model_copy(update={"live": settings.LiveSettings(plist=Path(given))})

    class Scripted(Launchd):
        def find(self, labels: Any) -> LoadedJob | None:
            return job

    finder = Finder(Managers({}, launchd=Scripted({})), Ports(), lambda: chosen, "AUTOTUNED_TEST")
    return finder.look([("no-such-program", "serve")], 0)


def refused(found: Found, **fields: Any) -> str:
    """The sentence of a refusal."""
    refusal = conflict(found, TuneRequest(**fields))
    assert refusal is not None
    return refusal.message


PLIST = {"Label": LABEL, "ProgramArguments": ["/x/macprovider-cli", "serve", "--port", "81"]}
LOADED = LoadedJob("gui/501", LABEL, state="running", program="/x/macprovider-cli")


def test_a_job_of_the_provider_can_be_drained_and_is_named_with_its_domain(tmp_path: Path) -> None:
    found = managed(tmp_path, LOADED, PLIST)
    assert undrainable(found) is None
    assert found.names == [f"launchd-managed (gui/501/{LABEL})"]
    assert found.live is not None
    assert found.live.port == 81


@pytest.mark.parametrize(
    ("job", "content", "why"),
    [
        (LOADED, None, "plist"),
        (LoadedJob("system", LABEL, program="/x/macprovider-cli"), PLIST, "root"),
        (LoadedJob("gui/501", LABEL, program="/bin/nginx"), PLIST, "is not the provider"),
        (LoadedJob("gui/501", LABEL), {**PLIST, "Label": "somebody.else"}, "somebody.else"),
        (LoadedJob("gui/501", LABEL, Presence.UNKNOWN, reason="hangs"), PLIST, "hangs"),
    ],
)
def test_a_job_that_could_not_be_brought_back_or_is_something_else_is_left_alone(
    tmp_path: Path, job: LoadedJob, content: Any, why: str
) -> None:
    found = managed(tmp_path, job, content)
    refusal = undrainable(found)
    assert refusal is not None
    assert why in refusal
    assert why in refused(found, drain=True)


def test_a_plist_that_strict_xml_refuses_is_the_jobs_and_one_that_nobody_reads_is_a_sentence(
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "elsewhere.plist"
    job = LoadedJob("gui/501", LABEL, path=str(elsewhere))
    odd = plistlib.dumps(PLIST).replace(b"<dict>", b"<!-- add --max-batch 2 & more --><dict>")
    elsewhere.write_bytes(odd)
    found = managed(tmp_path, job)
    assert undrainable(found) is None
    assert found.live is not None
    assert found.live.port == 81
    for content in (odd[:-30], b"\xff\xfe\0"):
        elsewhere.write_bytes(content)
        refusal = undrainable(managed(tmp_path, job))
        assert refusal is not None
        assert f"{elsewhere} is no property list" in refusal
    for key in ("ProgramArguments", "Program", "Label"):
        elsewhere.write_bytes(plistlib.dumps({**PLIST, key: 7}))
        assert managed(tmp_path, job).managed is not None


def test_the_plist_that_launchd_reports_comes_before_the_usual_one(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.plist"
    elsewhere.write_bytes(plistlib.dumps({**PLIST, "ProgramArguments": ["/x/y", "--port", "82"]}))
    found = managed(tmp_path, LoadedJob("gui/501", LABEL, path=str(elsewhere)), PLIST)
    assert found.managed is not None
    assert (found.managed.plist, found.managed.port) == (elsewhere, 82)


def test_strangers_and_a_crowd_are_never_drained() -> None:
    stranger = Found(strangers=(Listener(18080, 5, "nginx"),))
    assert undrainable(stranger) is not None
    assert stranger.names == ["port-held-by nginx pid 5"]
    assert "--port" in refused(stranger, drain=True)
    one, two = Process(1, (), 8080), Process(2, (), 8081)
    assert undrainable(Found(processes=(one,))) is None
    assert "more than one" in (undrainable(Found(processes=(one, two))) or "")
    crowd = refused(Found(processes=(one, two)))
    assert "more than one" in crowd
    assert "--drain" not in crowd
    assert "--drain" in refused(Found(processes=(one,)))
    assert not Found()


def test_a_server_in_a_terminal_is_stopped_only_by_whoever_is_told_that_it_stays_stopped() -> None:
    found = Found(processes=(Process(1, (), 8080),))
    unasked = refused(found)
    assert "--drain --restart-foreground" in unasked
    assert "stays stopped" in unasked
    assert conflict(found, TuneRequest(drain=True)) is None
    assert "schedule set --drain --restart-foreground" in refused(
        found, drain=True, trigger="schedule"
    )
    permitted = TuneRequest(drain=True, restart_foreground=True, trigger="schedule")
    assert conflict(found, permitted) is None


def test_what_the_live_provider_is_configured_to_serve_is_read_where_it_is_known(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    found = Found(processes=(Process(7, ("macprovider-cli", "serve"), 8080),))
    assert recipe(found, config, 2000) is None
    config.write_text("model: acme/x-7B\nkv_bits: 8\nmax_context_override: 32000\nothers: [1]\n")
    assert recipe(found, config, 2000) == ("acme/x-7B", Knobs(8, 1, 32_000))
    assert recipe(Found(), config, 2000) is None
    config.write_text("model: acme/x-7B\n")
    assert recipe(found, config, 2000) is None
    config.write_text("model: [\n")
    assert recipe(found, config, 2000) is None
