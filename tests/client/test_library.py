"""The library for other programs: deadlines, events across a killed agent, one exception for each kind of failure."""

from __future__ import annotations

import contextlib
import inspect
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import autotunectl
import autotuned
from autotunectl import client as library
from autotunectl.client import (
    ApplyRefused,
    BadRequest,
    Busy,
    CallError,
    Client,
    ClientError,
    Conflict,
    NoAnswer,
    NotFound,
    RestoreOutstanding,
    ShuttingDown,
    Unknown,
    Unreachable,
    WrongProtocol,
)
from autotuned.shared import wire
from tests.support.home import Home, Y, Z, kill

pytestmark = pytest.mark.slow  # each starts processes of its own

CELL = {"replicates": [{"ttft_ms": 20, "total_ms": 150}]}


@contextlib.contextmanager
def answering(path: Path, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """Something on a socket that says to each line what `answer` makes of it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection, connection.makefile("rb") as lines:
                    for line in lines:
                        connection.sendall(answer(line))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (wire.METHOD_NOT_FOUND, Unknown),
        (wire.INVALID_PARAMS, BadRequest),
        (wire.BUSY, Busy),
        (wire.PROVIDER_CONFLICT, Conflict),
        (wire.NOT_FOUND, NotFound),
        (wire.APPLY_REFUSED, ApplyRefused),
        (wire.RESTORE_OUTSTANDING, RestoreOutstanding),
        (wire.SHUTTING_DOWN, ShuttingDown),
        (wire.INTERNAL_ERROR, CallError),
    ],
)
def test_each_error_of_the_agent_is_an_exception_of_its_kind(
    tmp_path: Path, code: int, kind: type[CallError]
) -> None:
    said = b'{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"no","data":{"a":1}}}\n' % code
    with (
        answering(tmp_path / "s", lambda _: said),
        Client(str(tmp_path / "s")) as client,
        pytest.raises(kind) as refused,
    ):
        client.call("x")
    assert type(refused.value) is kind
    assert isinstance(refused.value, ClientError)
    assert (refused.value.code, str(refused.value), refused.value.data) == (code, "no", {"a": 1})


def test_an_agent_that_says_nothing_in_time_is_told_and_the_next_call_is_a_new_one(
    tmp_path: Path,
) -> None:
    with answering(tmp_path / "s", lambda _: b""), Client(str(tmp_path / "s")) as client:
        with pytest.raises(NoAnswer) as silent:
            client.request("version", {}, timeout_s=0.05)
        assert silent.value.remedy is not None


def test_what_is_no_json_is_no_agent(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "s", lambda _: b"220 mail.example ESMTP\n"),
        Client(str(tmp_path / "s")) as client,
        pytest.raises(WrongProtocol, match="does not speak JSON-RPC"),
    ):
        client.call("version")


@pytest.mark.parametrize(
    ("path", "reason", "remedy"),
    [
        ("absent", "there is no socket", "daemon start"),
        ("left", "it was killed", "daemon start"),
        ("x" * 200, "at most", "AUTOTUNED_SOCKET"),
        ("file/s", "Not a directory", "doctor"),
    ],
)
def test_who_cannot_be_reached_says_why_and_what_to_do(
    tmp_path: Path, path: str, reason: str, remedy: str
) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    with pytest.raises(Unreachable, match=reason) as found:
        Client(str(tmp_path / path), connect_s=0.0).call("version")
    assert remedy in str(found.value.remedy)


def test_a_call_after_a_restart_of_the_agent_connects_again_by_itself(home: Home) -> None:
    kill(home.start_daemon())
    home.start_daemon()
    with Client(str(home.socket)) as client:
        first = client.call("version")["pid"]
        assert home.daemon is not None
        kill(home.daemon)
        with pytest.raises(Unreachable):
            Client(str(home.socket), connect_s=0.0).call("version")
        home.start_daemon()
        with contextlib.suppress(Unreachable):
            client.call("version")  # the connection that died with the agent
        assert client.call("version")["pid"] != first


def test_waiting_ends_at_its_deadline_and_says_so(home: Home) -> None:
    home.provider({Y: {"load_s": 20}})
    run_id = home.begin(Y)
    with Client(str(home.socket)) as client:
        assert client.wait(run_id, timeout_s=0.1) is None
        client.call("cancel", run_id=run_id)
        ended = client.wait(run_id)
    assert ended is not None
    assert ended["exit_reason"] == "interrupted"


def test_a_stream_of_events_ends_when_none_came_for_as_long_as_was_asked(home: Home) -> None:
    home.provider({Y: {}})
    home.tune(Y, stage2_replicates=1)
    with Client(str(home.socket)) as client:
        events = list(client.events(since=0, timeout_s=0.3))
        assert list(client.events(timeout_s=0.05)) == []
    assert events[-1]["type"] == "run.finished"
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def test_a_silent_agent_is_asked_whether_it_lives_and_given_up_when_it_does_not(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = home.start_daemon()
    monkeypatch.setattr(library, "QUIET_S", 0.1)
    monkeypatch.setattr(library, "RECONNECT_S", 0.2)
    with Client(str(home.socket), timeout_s=1.0) as client:
        assert list(client.events(timeout_s=0.5)) == []  # asked twice, and it answered
        stream = client.events(since=0)
        daemon.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(NoAnswer):
                next(stream)
        finally:
            daemon.send_signal(signal.SIGCONT)


def test_an_agent_killed_and_started_under_an_iterating_client_loses_and_doubles_nothing(
    home: Home,
) -> None:
    home.provider({Y: CELL, Z: CELL})
    run_id = home.begin(Y, kv_bits_axis=[None, 4, 8])
    seen: list[dict[str, Any]] = []
    with Client(str(home.socket)) as client:
        for event in client.events(since=0):
            seen.append(event)
            if event["type"] == "replicate" and event["run_id"] == run_id and len(seen) < 20:
                assert home.daemon is not None
                kill(home.daemon)
                home.start_daemon()
                home.begin(Z)
                run_id = ""
            if event["type"] == "run.finished" and event["exit_reason"] == "ok":
                break
    numbers = [event["seq"] for event in seen]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers == [row[0] for row in home.sql("SELECT seq FROM events ORDER BY seq")]
    assert [event["exit_reason"] for event in seen if event["type"] == "run.finished"] == [
        "interrupted",
        "ok",
    ]


@pytest.mark.parametrize("package", [autotunectl, autotuned])
def test_the_packages_tell_their_types_to_other_programs(package: Any) -> None:
    assert (Path(package.__file__).parent / "py.typed").exists()


def test_what_the_library_offers_is_documented() -> None:
    for name in library.__all__:
        assert inspect.getdoc(getattr(library, name)), name
    for name, member in inspect.getmembers(Client, inspect.isfunction):
        assert name.startswith("_") or inspect.getdoc(member), name


def test_a_program_of_others_sees_the_types(tmp_path: Path) -> None:
    program = tmp_path / "theirs.py"
    program.write_text(
        "from autotunectl.client import Client, Busy\n"
        "with Client(host='ssh://mac') as client:\n"
        "    reveal_type(client.wait('x'))\n"
        "    client.events(run_id=3)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Revealed type is "dict[str, Any] | None"' in done.stdout.replace(
        "builtins.", ""
    ).replace("Union[dict[str, Any], None]", "dict[str, Any] | None")
    assert 'incompatible type "int"; expected "str | None"' in done.stdout
    assert "missing library stubs" not in done.stdout
