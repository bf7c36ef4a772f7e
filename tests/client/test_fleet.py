"""The Ansible example of docs/fleet.md, against several homes on this machine through the local connection."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.home import Home, Y, Z
from tests.support.home import home as new_home
from tests.support.live import install_launchctl

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "fleet"
PLANS: dict[str, dict[str, Any]] = {
    "mini": {Y: {"exit_code": 1, "log": ["fatal error: too big"]}, Z: {}},
    "old": {Y: {"exit_code": 1}, Z: {"exit_code": 1, "log": ['fatal error: no, "never"']}},
}


class Fleet:
    """Two homes and a machine out of reach, an inventory of them, and the example's playbooks in a folder of their own."""

    def __init__(self, folder: Path, homes: dict[str, Home]) -> None:
        self.folder, self.homes = folder, homes
        hosts: dict[str, Any] = {
            name: {
                "autotuned_environment": made.environ,
                "autotuned_settings_file": str(
                    made.path / ".config" / "macprovider" / "autotuned.toml"
                ),
                "autotuned_ctl": "~/bin/autotunectl",  # of that machine, whatever home Ansible runs in
                "autotuned_request": self.request(made),
            }
            for name, made in homes.items()
        }
        hosts["away"] = {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
        }
        every = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "autotuned_package": [],
            "autotuned_settings": {"provider": {"max_tokens": 32}, "notify": {"on_finish": []}},
            "autotuned_schedule": {"at": "03:30", "drain": True, "days": ["mon", "thu"]},
        }
        inventory = {"autotuned": {"hosts": hosts, "vars": every}}
        (folder / "inventory.yml").write_text(json.dumps(inventory), encoding="utf-8")

    @staticmethod
    def request(home: Home) -> dict[str, Any]:
        axes = {"kv_bits_axis": [None], "max_batch_axis": [1], "stage2_replicates": 1}
        return {"candidate_models": [Y, Z], "port": home.port, **axes}

    def play(self, book: str, *words: str) -> dict[str, dict[str, int]]:
        """Run a playbook; Ansible's own count of what happened, by host."""
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", f"{book}.yml", *words],
            cwd=self.folder,
            env={
                **os.environ,
                "HOME": str(self.folder),
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.said = done.stdout + done.stderr
        self.code = done.returncode
        recap = self.said.partition("PLAY RECAP")[2]
        return {
            line.split()[0]: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}
            for line in recap.splitlines()
            if "ok=" in line
        }


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    shutil.copytree(EXAMPLE, folder)
    with ExitStack() as stack:
        homes = {name: stack.enter_context(new_home()) for name in PLANS}
        for name, made in homes.items():
            made.provider(PLANS[name])
            install_launchctl(made)
            client = made.bin / "autotunectl"
            client.write_text(f'#!/bin/sh\nexec {sys.executable} -m autotunectl "$@"\n')
            client.chmod(0o755)
        yield Fleet(folder, homes)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fleet_is_set_up_once_tuned_two_at_a_time_and_reported(fleet: Fleet) -> None:
    here = ("--limit", "!away")
    first = fleet.play("setup", *here)
    assert fleet.code == 0, fleet.said
    assert all(counts["changed"] >= 3 for counts in first.values()), fleet.said
    for home in fleet.homes.values():
        schedule = home.rpc("schedule.get")
        assert (schedule["at"], schedule["drain"]) == ("03:30", True)
        assert schedule["days"] == ["mon", "thu"]
    again = fleet.play("setup", *here)
    assert fleet.code == 0, fleet.said
    assert all(counts["changed"] == 0 for counts in again.values()), fleet.said

    tuned = fleet.play("tune", "-e", "width=2")
    assert tuned["mini"]["changed"] == tuned["old"]["changed"] == 1, fleet.said
    fresh = fleet.play("tune", "-e", "width=2", *here)
    assert fresh["mini"]["changed"] == 0, fleet.said
    assert fresh["old"]["changed"] == 1  # it has no good run yet, so it is tried again

    fleet.play("report", "-e", "strict=true")
    assert fleet.code != 0
    verdicts = fleet.said.partition("Say who")[2].partition("PLAY RECAP")[0]
    assert "old: failed: no_feasible" in verdicts
    assert "away: unreachable" in verdicts
    assert "mini:" not in verdicts
    with (fleet.folder / "collected" / "fleet.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    models = [(row["host"], row["exit_reason"], row["model"]) for row in rows]
    failed = ("old", "no_feasible", "")
    assert models == [("mini", "ok", Z), failed, failed]
    assert (rows[0]["kv_bits"], rows[1]["kv_bits"]) == ("unset", "")
    kept = fleet.folder / "collected" / "mini" / f"{rows[0]['run_id']}.json"
    assert json.loads(kept.read_text(encoding="utf-8"))["run_id"] == rows[0]["run_id"]
