"""A live server in a unit of a real `systemd --user`: found, refused, drained, brought back, whoever dies."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autotuned.providers.llama_server import LAUNCHER
from tests.e2e.test_kills import (
    BRIEF,
    IN_A_RUN,
    LASTING,
    ROLLING_BACK,
    assert_sound,
    candidates,
    die_at,
    drained_and_dead,
    end,
)
from tests.support import any_server
from tests.support.home import DEADLINE_S, Home, RpcError, Y, home, poll
from tests.support.live import own_name
from tests.support.models import write_gguf
from tests.support.systemd import Systemd, SystemdUnit

pytestmark = pytest.mark.slow
POINTS = [name for name in IN_A_RUN if not name.startswith("apply.")]
REFUSES_TWO = """
if "LIVE" in os.environ and "-np 2" in " ".join(sys.argv):
    time.sleep(0.3)
    sys.exit(1)
"""
"""What keeps the live server, and no candidate, from starting with the recipe."""


@pytest.fixture
def own() -> Iterator[Home]:
    with home() as made:
        made.provider({Y: BRIEF})
        yield made


def test_a_unit_is_refused_by_its_name_drained_and_brought_back(own: Home) -> None:
    unit = SystemdUnit(Systemd(own))
    with pytest.raises(RpcError) as refused:
        own.begin(Y)
    assert "systemd-managed (user unit llama.service)" in refused.value.message
    live = own.rpc("status")["live_provider"]
    assert (live["kind"], live["unit"], live["scope"]) == ("systemd", "llama.service", "user")
    [seen] = [one for one in own.rpc("doctor")["checks"] if one["name"] == "live-provider"]
    assert seen["detail"].startswith("llama.service (user unit): running since "), seen
    before = unit.pid()
    done = own.tune(Y, drain=True)
    assert done["exit_reason"] == "ok", done
    assert unit.back()
    assert unit.pid() != before
    assert len(unit.starts()) == 2
    assert own.rpc("status")["lease"] is None


def test_a_named_unit_that_does_not_run_fails_doctor_with_its_own_remedy(own: Home) -> None:
    unit = SystemdUnit(Systemd(own), settings="")
    own_name(own, '[live]\nservice = "systemd:llama"\n')
    unit.systemd.must("stop", unit.name)
    own.start_daemon()
    [seen] = [one for one in own.rpc("doctor")["checks"] if one["name"] == "live-provider"]
    assert seen["level"] == "error", seen
    assert "systemctl --user start llama.service" in seen["remedy"]


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with its guardian"])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_of_a_run_loses_no_unit(own: Home, point: str, together: bool) -> None:
    unit = SystemdUnit(Systemd(own))
    die_at(own, f"{point}:hang:1")
    own.start_daemon()
    flags = ["--port", str(own.port), "--stage2-replicates", "1", "--max-batch-axis", "1"]
    client = own.ctl_begin("start", "--drain", "--candidate-models", Y, *flags)
    end(own, together=together)
    client.communicate(timeout=DEADLINE_S)
    if not together:
        poll(lambda: not candidates(own), "the candidate is gone")
        poll(unit.back, "the unit is back without anybody's help")
    own.start_daemon()
    assert_sound(own, unit)


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with its guardian"])
@pytest.mark.parametrize(
    "point", [*[name for name in IN_A_RUN if name.startswith("apply.")], *ROLLING_BACK]
)
def test_a_kill_while_a_drop_in_is_taken_back_leaves_the_operators_command_in_force(
    own: Home, point: str, together: bool
) -> None:
    unit = with_a_recipe_that_it_refuses(own)
    before = unit.file.read_bytes()
    die_at(own, f"{point}:hang")
    own.start_daemon()
    begin_apply(own)
    end(own, together=together)
    if not together:
        poll(unit.back, "the unit serves without anybody's help")
    own.start_daemon()
    poll(lambda: own.rpc("status")["lease"] is None, "nothing is owed")
    assert_sound(own, unit)
    assert psutil.Process(unit.pid()).cmdline()[-len(unit.argv) :] == unit.argv
    assert unit.file.read_bytes() == before
    assert not drop_in(unit).exists()
    assert own.sql("SELECT applied FROM tune_runs") == [(0,)]


def test_after_a_reboot_in_the_middle_systemd_has_started_the_unit_and_nobody_starts_it_again(
    own: Home,
) -> None:
    own.provider({Y: LASTING})
    unit = SystemdUnit(Systemd(own))
    boot = own.path / "boot"
    boot.write_text("before", encoding="ascii")
    own.environ["AUTOTUNED_BOOT_ID_FILE"] = str(boot)
    drained_and_dead(own)
    for candidate in candidates(own):
        candidate.kill()
    boot.write_text("after", encoding="ascii")
    unit.systemd.must("start", unit.name)  # what an enabled unit gets with the boot
    poll(unit.back, "it serves")
    started = unit.pid()
    own.start_daemon()
    poll(lambda: own.rpc("status")["lease"] is None, "nothing is owed")
    assert unit.pid() == started
    assert len(unit.starts()) == 2
    assert own.sql("SELECT exit_reason FROM tune_runs") == [("interrupted",)]
    assert [entry["model"] for entry in own.rpc("quarantine")["entries"]] == [Y]


def with_a_recipe_that_it_refuses(own: Home) -> SystemdUnit:
    """A scripted llama-server in a unit, which does not start with two slots."""
    source = Path(any_server.__file__).read_text(encoding="utf-8")
    program = own.bin / "llama-server"
    beginning = source.replace("\ndef main()", f"\nimport os\n{REFUSES_TWO}\n\ndef main()")
    program.write_text(f"#!{sys.executable} -S\n{beginning}", encoding="utf-8")
    program.chmod(0o755)
    own.settings('[provider]\nkind = "llama-server"\n')
    model = write_gguf(own.path / "tiny-1M.gguf")
    settings = "Environment=LIVE=yes\nRestart=always"
    return SystemdUnit(Systemd(own), settings=settings, argv=[str(program), "-m", str(model)])


def begin_apply(own: Home) -> None:
    """A run that writes two slots into the unit of `with_a_recipe_that_it_refuses`."""
    model = str(own.path / "tiny-1M.gguf")
    own.begin(model, drain=True, apply=True, max_batch_axis=[2], concurrency=1, stage2_replicates=1)


def drop_in(unit: SystemdUnit) -> Path:
    """Where the recipe of a unit goes."""
    return unit.file.with_name(f"{unit.name}.d") / "50-autotuned.conf"


def test_break_glass_brings_a_unit_back_without_an_agent(own: Home) -> None:
    own.provider({Y: LASTING})
    unit = SystemdUnit(Systemd(own))
    drained_and_dead(own)
    assert unit.show("ActiveState") == "inactive"
    done = own.ctl("--no-autostart", "provider", "restore")
    assert "restored: llama.service" in done.stdout, done.stderr
    assert unit.back()
    assert not candidates(own)


def test_a_mask_in_the_middle_is_told_and_the_restore_goes_on_until_it_is_gone(own: Home) -> None:
    systemd = Systemd(own)
    unit = SystemdUnit(systemd, settings="Restart=always\nRestartSec=1")
    run_id = own.begin(Y, drain=True)
    poll(lambda: unit.show("ActiveState") == "inactive", "it is drained")
    aside = unit.file.with_suffix(".aside")
    unit.file.rename(aside)
    unit.file.symlink_to("/dev/null")
    systemd.must("daemon-reload")
    own.rpc("wait", run_id=run_id, timeout_s=100)
    lease = poll(lambda: own.rpc("status")["lease"], "the restore is owed")
    assert "systemctl --user unmask llama.service" in lease["reason"]
    aside.replace(unit.file)
    systemd.must("daemon-reload")
    own.rpc("provider.restore")
    poll(unit.back, "the unit is back")


@pytest.mark.timeout(400)
def test_a_llama_server_in_a_unit_goes_the_whole_way(own: Home) -> None:
    """Refused by name, drained, tuned, applied with a drop-in that is in effect, and taken back."""
    model = str(write_gguf(own.path / "tiny-1M.gguf"))
    own.settings('[provider]\nkind = "llama-server"\n')
    command = [sys.executable, "-P", str(LAUNCHER), "-m", model, "-np", "1", "-c", "700"]
    unit = SystemdUnit(Systemd(own), argv=command)
    before = unit.file.read_bytes()
    with pytest.raises(RpcError) as refused:
        own.begin(model)
    assert "systemd-managed (user unit llama.service)" in refused.value.message
    done = own.tune(
        model, drain=True, apply=True, max_batch_axis=[2], target_context=600, concurrency=1,
        stage2_replicates=1, timeout=300,
    )  # fmt: skip
    assert done["exit_reason"] == "ok", done["error"]
    poll(unit.back, "the unit serves again")
    assert done["applied"], done["warnings"]
    assert done["applied"]["config_path"] == str(drop_in(unit))
    line = psutil.Process(unit.pid()).cmdline()
    assert line[line.index("-np") + 1] in ("1", "2")
    told = json.loads(own.ctl("apply", "--all-knobs", "--restart", "--json", timeout=100).stdout)
    assert told["in_effect"], told
    line = psutil.Process(unit.pid()).cmdline()
    assert line[line.index("-np") + 1] == "2"
    again = json.loads(own.ctl("apply", "--all-knobs", "--json").stdout)
    assert (again["changed"], again["diff"]) == ({}, "")
    taken = own.ctl("revert", "--restart", timeout=100)
    assert taken.returncode == 0, taken.stderr
    assert not drop_in(unit).exists()
    assert psutil.Process(unit.pid()).cmdline() == unit.argv
    assert unit.file.read_bytes() == before
