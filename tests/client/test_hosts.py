"""Agents of other machines: `--host` through ssh, here a stand-in that runs the far command on this machine."""

from __future__ import annotations

import json
import sys

import pytest

from autotunectl.client import Client, Unreachable
from autotunectl.dial import BadHost, Host
from tests.support.home import Home, Y, poll
from tests.support.models import write_gguf

pytestmark = pytest.mark.slow  # each starts an agent of its own


@pytest.fixture
def ssh(home: Home) -> Home:
    """A home whose `ssh` knows the machine `mac` (this home) and no other."""
    script = home.bin / "ssh"
    script.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n'
        'case "$2" in *mac) exec sh -c "$3";; esac\n'
        'echo "ssh: Could not resolve hostname $2" >&2; exit 255\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    client = home.bin / "autotunectl"
    client.write_text(f'#!/bin/sh\nexec {sys.executable} -m autotunectl "$@"\n', encoding="utf-8")
    client.chmod(0o755)
    return home


def test_a_run_on_another_machine_is_started_and_followed_to_its_end(ssh: Home) -> None:
    ssh.provider({Y: {}})
    ssh.start_daemon()
    flags = ["--candidate-models", Y, "--port", str(ssh.port), "--kv-bits-axis", "unset"]
    done = ssh.ctl("--host", "ssh://somebody@mac", "start", "--wait", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RECOMMENDATION")
    assert "finished: ok" in done.stderr


def test_the_far_end_starts_its_agent_where_none_runs(ssh: Home) -> None:
    done = ssh.ctl("--host", "ssh://mac", "status", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] is None


def test_several_machines_are_one_table_and_the_unreachable_one_is_told_apart(ssh: Home) -> None:
    ssh.start_daemon()
    both = ["--host", "ssh://mac", "--host", "ssh://nowhere"]
    done = ssh.ctl(*both, "status")
    assert done.returncode == 9
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["HOST", "ssh://mac"]
    assert done.stderr.splitlines() == [
        "autotunectl: ssh://nowhere: ssh: Could not resolve hostname nowhere",
        "hint: ssh nowhere autotunectl doctor",
    ]
    document = json.loads(ssh.ctl(*both, "status", "--json").stdout)
    assert document["ssh://mac"]["run"] is None
    assert "nowhere" in document["ssh://nowhere"]["error"]["message"]


def test_staleness_of_several_machines_is_one_table_and_exits_with_the_worst(ssh: Home) -> None:
    ssh.start_daemon()
    done = ssh.ctl("--host", "ssh://mac", "--host", "ssh://me@mac", "check-stale")
    assert done.returncode == 21, done.stderr
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [
        ["HOST", "RECIPE"],
        ["ssh://mac", "never tuned: autotunectl start"],
        ["ssh://me@mac", "never tuned: autotunectl start"],
    ]


def test_a_path_for_another_machine_is_below_the_home_of_that_machine(ssh: Home) -> None:
    write_gguf(ssh.path / "tiny-1M.gguf")
    ssh.start_daemon()
    mine = ssh.path / "mine"
    mine.mkdir()
    ssh.environ["HOME"] = str(mine)  # the client's
    script = ssh.bin / "ssh"
    script.write_text(script.read_text().replace("exec sh", f"HOME={ssh.path} exec sh"))
    there = ["--candidate-models", "~/tiny-1M.gguf", "--axis", "draft=~/tiny-1M.gguf"]
    words = ["start", "--dry-run", "--json", "--provider", "llama-server", *there]
    done = ssh.ctl("--host", "ssh://mac", *words, "--port", str(ssh.port))
    assert done.returncode == 0, done.stderr
    assert "~/tiny-1M.gguf" in done.stdout
    assert str(mine) not in done.stdout + done.stderr


def test_a_command_about_one_machine_refuses_several(ssh: Home) -> None:
    done = ssh.ctl("--host", "ssh://mac", "--host", "ssh://other", "cancel")
    assert done.returncode == 2
    assert "one --host" in done.stderr


def test_no_other_machine_says_which_program_starts_on_this_one(ssh: Home) -> None:
    done = ssh.ctl("--host", "ssh://mac", "serve")
    assert done.returncode == 2
    assert "leave out --host" in done.stderr


def test_the_library_reaches_another_machine_too(
    ssh: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh.start_daemon()
    for name, value in ssh.environ.items():
        monkeypatch.setenv(name, value)
    with Client(host="ssh://mac") as client:
        assert client.call("version")["name"] == "autotuned"
    with Client(host="ssh://nowhere") as client, pytest.raises(Unreachable, match="resolve"):
        client.call("version")
    poll(lambda: len(ssh.processes()) == 1, "no ssh is left")


@pytest.mark.parametrize(
    ("text", "target", "port", "program"),
    [
        ("ssh://mac", "mac", None, "autotunectl"),
        ("ssh://me@mac.local:2222", "me@mac.local", "2222", "autotunectl"),
        ("ssh://me@[::1]:22/opt/bin/autotunectl", "me@::1", "22", "/opt/bin/autotunectl"),
    ],
)
def test_a_host_is_read_as_ssh_reads_it(
    text: str, target: str, port: str | None, program: str
) -> None:
    host = Host.parse(text)
    assert (host.target, host.port, host.program) == (target, port, program)


@pytest.mark.parametrize(
    "text", ["mac", "http://mac", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(BadHost, match="--host"):
        Host.parse(text)
