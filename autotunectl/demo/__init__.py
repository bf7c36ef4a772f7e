"""`autotunectl demo`: the main job with a real server and a real pretrained model, in a minute or two.

Runs an agent of its own in a throw-away home and on a port of its own, beside whatever serves here, so it
never touches the operator's settings, runs or live server. The ladder shows each idea once; everything printed was measured on this machine.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from autotunectl.output import fail

STOP_DEADLINE_S = 30
STORY = """\
Four candidates, largest first. The first that passes the gate is the answer, however fast a smaller one is:
  1. Colossus-70B          twice this machine's memory: rejected without starting it
  2. Babbler-1B            starts and answers, but says its end-of-sequence token aloud: rejected by measurement
  3. SmolLM2-135M-Instruct a real chat model: chosen, measured with each setting, and calibrated: how long a
                           context it serves, and how many requests at once
  4. Tiny-5M               much faster and never tried: it stays an alternate
"""


def run_demo(*, json_output: bool = False, report: str | None = None) -> int:
    """Tune the demo's ladder, and write its report where asked; the exit code of `autotunectl start --wait`, 2 where a package is missing."""
    missing = _missing()
    if missing:
        fail(f"the demo needs {missing}", 2, 'in a clone of the repository: pip install ".[demo]"')
    from autotunectl.demo.models import ladder

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autotuned" / "demo"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        models = ladder(cache, memory)
    except RuntimeError as error:
        fail(str(error), 2)
    print(STORY, file=sys.stderr)
    home = Path(
        tempfile.mkdtemp(prefix="autotuned-demo-", dir="/tmp")
    )  # short: a socket path has 104 bytes
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("AUTOTUNED_")
    }
    environ |= {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    environ["AUTOTUNED_LIVE_HOME"] = str(home)  # what serves on this machine is none of the demo's
    settings = home / ".config" / "macprovider" / "autotuned.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("[live]\nlabels = []\n", encoding="utf-8")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = _tune(models, environ, json_output=json_output)
        if report is not None:
            _ctl(environ, "show", "--report", str(Path(report).absolute()), quiet=json_output)
        return code
    finally:
        _ctl(environ, "--no-autostart", "daemon", "stop", "--cancel", quiet=True)
        shutil.rmtree(home, ignore_errors=True)


def _tune(models: list[Path], environ: Mapping[str, str], *, json_output: bool) -> int:
    flags = {
        "--provider": "llama-server",
        "--candidate-models": ",".join(str(model) for model in models),
        "--target-context": "256",
        "--kv-bits-axis": "unset,8",
        "--max-batch-axis": "1",
        "--stage2-replicates": "2",
        "--context-ceiling": "512",
        "--concurrency-ceiling": "4",
        "--port": str(_free_port()),
    }
    words = [word for pair in flags.items() for word in pair]
    words += ["--calibrate-context", "--calibrate-concurrency"]
    return _ctl(environ, "start", "--wait", *words, *(["--json"] if json_output else []))


def _ctl(environ: Mapping[str, str], *words: str, quiet: bool = False) -> int:
    """Run the client as a user would; Ctrl-C reaches it by itself, and it then cancels the run."""
    command = [sys.executable, "-m", "autotunectl", *words]
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, env=environ, stdout=output, stderr=output) as client:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return client.wait(timeout=STOP_DEADLINE_S if quiet else None)
        except subprocess.TimeoutExpired:
            client.kill()
            return client.wait()
        except SystemExit:  # the demo itself is ended: the client takes its run with it
            client.send_signal(signal.SIGINT)
            raise
        finally:
            signal.signal(signal.SIGINT, previous)


def _missing() -> str | None:
    if importlib.util.find_spec("gguf") is None:
        return "the package gguf"
    if shutil.which("llama-server") is None and importlib.util.find_spec("xllamacpp") is None:
        return "llama-server on the PATH, or the package xllamacpp"
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
