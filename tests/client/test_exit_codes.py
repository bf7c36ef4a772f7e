"""Every exit code that `autotunectl --help` lists, provoked from outside, with what stands on stderr beside it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from autotunectl import cli
from autotuned.shared import wire
from tests.support.home import Home, Y, poll, whole_model
from tests.support.live import LaunchdJob

pytestmark = pytest.mark.slow  # each starts processes of its own

Done = subprocess.CompletedProcess[str]
SLOWLY: dict[str, Any] = {"load_s": 30}


def start(home: Home, *flags: str) -> list[str]:
    """The words of a run of one candidate and one cell."""
    small = ["--kv-bits-axis", "unset", "--max-batch-axis", "1", "--stage2-replicates", "1"]
    return ["start", "--wait", "--candidate-models", Y, "--port", str(home.port), *small, *flags]


def serve(home: Home, models: Mapping[str, Any] | None = None, **plan: Any) -> None:
    """Install a provider of this home's own name."""
    home.settings(home.private_program())
    home.provider(dict(models or {Y: {}}), **plan)


def ok(home: Home) -> Done:
    serve(home)
    return home.ctl(*start(home))


def internal_error(home: Home) -> Done:
    return home.ctl("show", "--report", str(home.path / "absent" / "x.html"), *tuned(home))


def tuned(home: Home) -> list[str]:
    """A good run; no further words."""
    serve(home)
    assert home.tune(Y, stage2_replicates=1)["exit_reason"] == "ok"
    return []


def bad_request(home: Home) -> Done:
    serve(home)
    return home.ctl(*start(home, "--gate-ttft-ms", "0"))


def nothing_feasible(home: Home) -> Done:
    serve(home, {Y: {"exit_code": 1, "log": ["fatal error: no"]}})
    return home.ctl(*start(home))


def budget_used_up(home: Home) -> Done:
    serve(home, {Y: SLOWLY})
    return home.ctl(*start(home, "--max-duration", "1"))


def partial(home: Home) -> Done:
    serve(home, {Y: {"cells": {"8/1/2000": SLOWLY}}})
    return home.ctl(*start(home, "--kv-bits-axis", "unset,8", "--max-duration", "5"))


def cancelled_by_another(home: Home) -> Done:
    serve(home, {Y: SLOWLY})
    home.start_daemon()
    waiting = home.ctl_begin(*start(home))
    poll(home.starts, "the candidate loads")
    assert home.ctl("cancel").returncode == 0
    return ended(waiting)


def conflict(home: Home) -> Done:
    serve(home)
    with socket.create_server(("127.0.0.1", home.port)):
        return home.ctl(*start(home))


def damaged_weights(home: Home) -> Done:
    serve(home)
    files = whole_model()
    home.cache(Y, files={**files, "model.safetensors": files["model.safetensors"][:-1]})
    return home.ctl(*start(home))


def unreachable(home: Home) -> Done:
    return home.ctl("--no-autostart", "status")


def busy(home: Home) -> Done:
    serve(home, {Y: SLOWLY})
    run_id = home.begin(Y)
    done = home.ctl(*start(home))
    home.rpc("cancel", run_id=run_id)
    return done


def no_such_run(home: Home) -> Done:
    return home.ctl("show", "20260101T000000Z-000000")


def apply_refused(home: Home) -> Done:
    serve(home, {Y: {"exit_code": 1}})
    home.tune(Y)
    return home.ctl("apply")


def restore_outstanding(home: Home) -> Done:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    job.fault("bootstrap", 119)
    home.tune(Y, drain=True, timeout=60)
    done = home.ctl(*start(home))
    job.mend()
    assert home.ctl("provider", "restore").returncode == 0
    return done


def stale(home: Home) -> Done:
    tuned(home)
    serve(home, version="2.0.0")
    return home.ctl("check-stale")


def never_tuned(home: Home) -> Done:
    serve(home)
    return home.ctl("check-stale")


def slower(home: Home) -> Done:
    tuned(home)
    serve(home, {Y: {"replicates": [{"ttft_ms": 50, "total_ms": 500}]}})
    return home.ctl("check", "--port", str(home.port))


def interrupted_here(home: Home) -> Done:
    serve(home, {Y: SLOWLY})
    home.start_daemon()
    waiting = home.ctl_begin(*start(home))
    poll(home.starts, "the candidate loads")
    waiting.send_signal(signal.SIGINT)
    return ended(waiting)


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


CASES: dict[int, tuple[Callable[[Home], Done], str, str | None]] = {
    0: (ok, "finished: ok", None),
    1: (internal_error, "absent", "a folder of yours"),
    2: (bad_request, "--gate-ttft-ms: 0", "autotunectl start --help"),
    3: (nothing_feasible, "fatal error: no", "autotunectl logs"),
    4: (budget_used_up, "--max-duration", "autotunectl start --resume"),
    5: (partial, "budget_exhausted_with_partial", "--allow-partial"),
    6: (cancelled_by_another, "interrupted: the run was cancelled", "autotunectl start --resume"),
    7: (conflict, "port-held-by", "--port"),
    8: (damaged_weights, Y, "autotunectl models"),
    9: (unreachable, "there is no socket at", "autotunectl daemon start"),
    10: (busy, "is active", "autotunectl watch, or autotunectl cancel"),
    11: (no_such_run, "there is no run 20260101T000000Z-000000", "autotunectl runs"),
    12: (apply_refused, "no recommendation", "autotunectl runs"),
    13: (restore_outstanding, "is not back yet", "autotunectl provider restore"),
    20: (stale, "", None),
    21: (never_tuned, "", None),
    22: (slower, "", None),
    130: (interrupted_here, "interrupted: the run was cancelled", "autotunectl start --resume"),
}
"""By exit code: what provokes it, what stderr says of it, and what its hint says."""
FAST = {0, 2, 7, 9, 11, 21}


def test_the_table_and_the_help_hold_every_code_that_there_is() -> None:
    constants = {
        value
        for name, value in vars(wire).items()
        if name.startswith("EXIT_") and isinstance(value, int)
    }
    codes = constants | set(wire.EXIT_CODES.values())
    assert set(CASES) == codes
    assert {int(code) for code in re.findall(r"\b\d+(?= [a-zC])", cli.EXIT_HELP)} == codes


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, marks=() if code in FAST else pytest.mark.slow, id=str(code))
        for code in CASES
    ],
)
def test_each_exit_code_comes_with_what_happened_and_what_to_do(home: Home, code: int) -> None:
    provoke, says, remedy = CASES[code]
    done = provoke(home)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert len(hints) == (remedy is not None), done.stderr
    if remedy is not None:
        assert remedy in hints[0]
        assert done.stderr.splitlines()[-1] == hints[0]
        assert re.search("^autotunectl: ", done.stderr, re.MULTILINE)
