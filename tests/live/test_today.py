"""`start --apply --drain` against today's binary under a launchd that keeps alive: what is written, and that it serves."""

from __future__ import annotations

import fcntl
import json
import os
from typing import NamedTuple

import pytest

from tests.support.home import Home, Y, poll
from tests.support.live import LaunchdJob

BOUND = "".join(
    f"{key}: mine\n"
    for key in (
        "model_artifact_sha256",
        "model_artifact_path",
        *(
            f"model_catalog_{n}"
            for n in ("key", "model_id", "revision", "sha256", "version", "hash")
        ),
    )
)
TWO_SLOTS = ("--max-batch-axis", "2,1")
EIGHT_BITS = ("--kv-bits-axis", "unset,8")


class Situation(NamedTuple):
    """What stands in the file beside model and port, which flags the run has, and what comes of it.

    With flags the first cell of the default is slow, so the other one is recommended.
    """

    config: str
    flags: tuple[str, ...]
    code: int
    present: tuple[str, ...]
    absent: tuple[str, ...] = ()
    says: str = ""


SITUATIONS = {
    "a plain file": Situation(
        "kv_bits: 4\n",
        (),
        0,
        (f"model: {Y}", "max_concurrency_override: 1"),
        ("kv_bits", "max_concurrency_source"),
    ),
    "a bound file": Situation(
        BOUND, (), 12, ("model: mine",), ("max_concurrency_override",), "model_artifact_sha256"
    ),
    "a bound file and the knobs alone": Situation(
        BOUND,
        ("--knobs-only", *TWO_SLOTS),
        0,
        ("model: mine", "max_concurrency_override: 2", "max_concurrency_source: owner"),
        ("max_context_override",),
    ),
    "a draft model": Situation(
        "draft_model: small\n",
        TWO_SLOTS,
        0,
        (f"model: {Y}",),
        ("max_concurrency_override",),
        "draft_model",
    ),
    "batching that is on": Situation(
        "continuous_batching: on\n",
        EIGHT_BITS,
        0,
        (f"model: {Y}",),
        ("kv_bits",),
        "continuous_batching",
    ),
    "slots that the provider owns": Situation(
        "max_concurrency_override: 1\nmax_concurrency_source: autotune\n",
        TWO_SLOTS,
        0,
        ("max_concurrency_override: 2", "max_concurrency_source: owner"),
    ),
    "a context with its provenance": Situation(
        "max_context_override: 32000\nmax_context_override_provenance: {source: measured, value: 32000}\n",
        (),
        0,
        ("max_context_override: 32000", "max_context_override_provenance"),
        (),
        "max_context_override 32000",
    ),
    "a context that the run has searched": Situation(
        "max_context_override: 32000\nmax_context_override_provenance: {source: measured, value: 32000}\n",
        ("--max-context-axis", "2000,3000"),
        0,
        ("max_context_override: ",),
        ("provenance", "32000"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SITUATIONS)
def test_the_live_provider_serves_with_what_an_apply_has_left_in(home: Home, name: str) -> None:
    case = SITUATIONS[name]
    slow = {"unset/1/2000": {"replicates": [{"total_ms": 400}]}} if case.flags else {}
    home.provider({Y: {"cells": slow}}, today={"binds": case.config == BOUND})
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0, config=case.config)
    home.start_daemon()
    axes = ("--max-batch-axis", "1", "--kv-bits-axis", "unset")
    done = home.ctl(
        "start", "--wait", "--json", "--drain", "--apply", "--port", str(home.port),
        "--candidate-models", Y, "--stage2-replicates", "1", *axes, *case.flags, timeout=110,
    )  # fmt: skip
    text = job.config.read_text(encoding="utf-8")
    assert done.returncode == case.code, done.stderr
    assert [line for line in case.present if line not in text] == [], text
    assert [line for line in case.absent if line in text] == [], text
    assert case.says in done.stderr + done.stdout
    assert f"port: {job.port}" in text
    poll(job.serving, "the live provider serves again")
    assert home.rpc("status")["lease"] is None
    assert (json.loads(done.stdout)["applied"] is None) == (case.code != 0)


@pytest.mark.slow
def test_a_lock_that_somebody_keeps_costs_the_apply_and_not_the_live_provider(home: Home) -> None:
    home.provider({Y: {}}, today={})
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    before = job.config.read_bytes()
    home.start_daemon()
    lock = os.open(job.config.parent / ".config.yaml.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = home.ctl(
            "start", "--wait", "--json", "--drain", "--apply", "--port", str(home.port),
            "--candidate-models", Y, "--stage2-replicates", "1", "--max-batch-axis", "1",
            "--kv-bits-axis", "unset", timeout=110,
        )  # fmt: skip
    finally:
        os.close(lock)
    assert done.returncode == 12, done.stderr
    assert ".config.yaml.lock" in done.stderr + done.stdout
    assert job.config.read_bytes() == before
    poll(job.serving, "the live provider serves again")
