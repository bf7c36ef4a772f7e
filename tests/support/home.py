"""A home of its own for one test: the real `autotuned`, the real `autotunectl`, a scripted provider.

Everything lives below one short temporary folder; leaving it stops the agent and checks that no
process of this home is left and that the candidates' port is free.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

DEADLINE_S = 30.0
WAIT_SLICE_S = 20.0
PORTS = (11_000, 32_000)
X, Y, Z = "acme/big-32B", "acme/middle-7B", "acme/small-1B"


class Home:
    """One operator's home folder, with helpers to act in it as that operator would."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
        self.bin = self.path / "bin"
        self.bin.mkdir()
        self.port = free_port()
        if shutil.which(
            "launchctl"
        ):  # on a Mac: nor asks the real one; tests that want one install it
            (self.bin / "launchctl").write_text("#!/bin/sh\nexit 113\n", encoding="utf-8")
            (self.bin / "launchctl").chmod(0o755)
        self.environ = {
            "HOME": str(self.path),
            "PATH": f"{self.bin}:{os.environ.get('PATH', os.defpath)}",
            "XDG_STATE_HOME": str(self.path / "state"),
            "HF_HUB_OFFLINE": "1",  # no test asks the real hub
            "AUTOTUNED_LIVE_HOME": str(self.path),  # nor sees who really serves on this machine
        }
        self.others()
        self.program = "macprovider-cli"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.at_end: list[Callable[[], object]] = []
        """What a live provider or another installed thing has to take down, once the agent is gone."""

    def others(self, share: float = 0.0, *busiest: str) -> None:
        """What other programs take of the processors, whatever really runs beside this test."""
        file = self.path / "busy.json"
        file.write_text(json.dumps({"share": share, "busiest": busiest}), encoding="utf-8")
        self.environ["AUTOTUNED_BUSY_FILE"] = str(file)

    # --- what the test sets up ---------------------------------------------------------------------

    def provider(self, models: dict[str, Any], *, cached: bool = True, **plan: Any) -> None:
        """Install the scripted macprovider-cli with this plan; its models are in the cache unless told."""
        script = self.bin / self.program
        source = Path(__file__).with_name("fake_macprovider.py").read_text(encoding="utf-8")
        script.write_text(f"#!{sys.executable} -S\n{source}", encoding="utf-8")
        script.chmod(0o755)
        (self.bin / "plan.json").write_text(
            json.dumps({"models": models, **plan}), encoding="utf-8"
        )
        for model in models if cached else ():
            if model != "*":
                self.cache(model)

    def private_program(self) -> str:
        """Give the provider a name of this home's own, so that homes beside it never see its live server.

        Returns the `[provider]` table to put into the settings.
        """
        self.program = f"macprovider-{self.path.name}"
        return f'[provider]\nkind = "macprovider"\nbinary = "{self.bin / self.program}"\n'

    def cache(self, model: str, *, files: dict[str, bytes] | None = None) -> Path:
        """Stage a complete repository in the Hugging Face cache; its snapshot folder."""
        root = self.path / ".cache" / "huggingface" / "hub" / f"models--{model.replace('/', '--')}"
        snapshot = root / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True, exist_ok=True)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text("a" * 40, encoding="ascii")
        for name, content in (files if files is not None else whole_model()).items():
            (snapshot / name).write_bytes(content)
        return snapshot

    def settings(self, text: str) -> None:
        """Write autotuned.toml."""
        folder = self.path / ".config" / "macprovider"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "autotuned.toml").write_text(text, encoding="utf-8")

    # --- what the operator does --------------------------------------------------------------------

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """Start the real agent and wait until it answers."""
        (self.path / "state").mkdir(exist_ok=True)
        output = (self.path / "state" / "agent.log").open("ab")
        with output:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "autotuned"],
                env=self.environ,
                stdout=output,
                stderr=output,
                cwd="/",
            )
        poll(self._answers, f"the agent answers: {(self.path / 'state' / 'agent.log')}")
        return self.daemon

    def _answers(self) -> bool:
        """Our agent, and no other, answers."""
        try:
            return self.daemon is not None and self.rpc("version")["pid"] == self.daemon.pid
        except (OSError, ValueError):
            return False

    def ctl(self, *words: str, timeout: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """Run the real client to its end."""
        return subprocess.run(
            [sys.executable, "-m", "autotunectl", *words],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )

    def ctl_begin(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start the real client and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", "autotunectl", *words],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            **options,
        )

    def tune(self, *models: str, timeout: float = DEADLINE_S, **fields: Any) -> dict[str, Any]:
        """Start a run over these candidates and wait for its end; the result document."""
        run_id = self.begin(*models, **fields)
        deadline = time.monotonic() + timeout
        while self.rpc("wait", run_id=run_id, timeout_s=WAIT_SLICE_S).get("timed_out"):
            assert time.monotonic() < deadline, f"run {run_id} has not ended within {timeout:g} s"
        document: dict[str, Any] = self.rpc("result", run_id=run_id)
        return document

    def begin(self, *models: str, **fields: Any) -> str:
        """Start a small run over these candidates; its id. One cell unless told otherwise."""
        if self.daemon is None:
            self.start_daemon()
        request = {"kv_bits_axis": [None], "max_batch_axis": [1], "port": self.port, **fields}
        if models:
            request["candidate_models"] = list(models)
        return str(self.rpc("start", **request)["run_id"])

    def rpc(self, method: str, **params: Any) -> Any:
        """One raw call. Raises RpcError."""
        with self.connect() as connection, connection.makefile("rb") as lines:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            connection.settimeout(DEADLINE_S + float(params.get("timeout_s") or 0.0))
            connection.sendall(json.dumps(message).encode() + b"\n")
            answer = json.loads(lines.readline())
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def connect(self) -> socket.socket:
        """A raw connection to the agent."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(DEADLINE_S)
        try:
            made.connect(str(self.socket))
        except OSError:
            made.close()
            raise
        return made

    # --- what the test looks at --------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.path / ".config" / "macprovider" / "run" / "autotuned.sock"

    @property
    def database(self) -> Path:
        """The database."""
        return self.path / ".config" / "macprovider" / "autotune.sqlite"

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the database from outside."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            return db.execute(query, values).fetchall()

    def calls(self, key: str | None = None) -> list[dict[str, Any]]:
        """What the scripted provider has seen; only entries that have `key`, where given."""
        log = self.bin / "calls.jsonl"
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [entry for entry in map(json.loads, lines) if key is None or key in entry]

    def starts(self) -> list[str]:
        """The models that were started, in order."""
        return [entry["started"] for entry in self.calls("started")]

    def processes(self) -> list[psutil.Process]:
        """Live processes whose HOME is this one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if (
                    process.environ().get("HOME") == str(self.path)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def close(self) -> None:
        """Stop the agent; nothing of this home may be left."""
        with contextlib.suppress(OSError, RpcError, ValueError):
            self.rpc("shutdown")
        if self.daemon is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(DEADLINE_S)
        try:
            for end in self.at_end:
                end()
            poll(lambda: not self.processes(), "no process of this home is left")
            poll(lambda: port_is_free(self.port), "the port is free again")
        finally:
            for process in self.processes():
                process.kill()
            shutil.rmtree(self.path, ignore_errors=True)


class RpcError(Exception):
    """The agent answered with an error object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: dict[str, Any] = error.get("data") or {}


def poll(
    condition: Callable[[], T], what: str = "the condition holds", deadline_s: float = DEADLINE_S
) -> T:
    """Return the first truthy value of `condition`; fail when there is none in time."""
    deadline = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            message = f"not within {deadline_s:g} s: {what}"
            raise AssertionError(message)
        time.sleep(0.01)


def far() -> str:
    """A time of day half a day from now: a schedule that has it does not come while a test runs."""
    return (datetime.now(UTC).astimezone() + timedelta(hours=12)).strftime("%H:%M")


def free_port() -> int:
    """A port that nobody uses now, below those that the system gives to connections of its own choice.

    One of the latter may be taken by any client on the machine as soon as this returns.
    """
    while True:
        port = random.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def port_is_free(port: int) -> bool:
    """Nobody answers there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def whole_model() -> dict[str, bytes]:
    """The files of the smallest model folder that passes every check."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b'{"added_tokens": [{"content": "<|special|>", "special": true}]}',
        "model.safetensors": struct.pack("<Q", len(header)) + header + bytes(8),
    }


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """A home that cleans up after itself."""
    made = Home()
    try:
        yield made
    finally:
        made.close()


def kill(process: subprocess.Popen[Any]) -> None:
    """SIGKILL, and wait for its end."""
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE_S)
