"""Rows and trials for tests of the store."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from autotuned.core.model import Failure, FailureKind, Replicate, ResourceUsage, Trial
from autotuned.shared.knobs import Knobs
from autotuned.store.runs import RunRow


def row(run_id: str, started: str = "2026-01-01T00:00:00.000Z", **fields: Any) -> RunRow:
    """A run as it is begun."""
    values = {
        "spec_version": "SPEC-013 v0.3",
        "binary_version": "1.4.0",
        "machine_ram_gb": 16,
        "machine_chip": "chip",
        "machine_os_version": "os",
        "target_context": 2000,
        "candidate_models_json": '["m"]',
        "stage1_replicates": 1,
        "stage2_replicates": 3,
        "gate_ttft_ms": 60_000,
        "tps_tie_epsilon": 0.02,
        **fields,
    }
    return RunRow(run_id=run_id, started_at_utc=started, ended_at_utc=None, **values)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
figures = st.none() | st.floats(0, 1e9)
counts = st.none() | st.integers(0, 2**31)
replicates = st.builds(
    Replicate,
    error=st.none() | words,
    ttft_ms=figures,
    tps=figures,
    decode_tps=figures,
    prefill_tps=figures,
    total_ms=figures,
    prompt_tokens=counts,
    completion_tokens=counts,
    cached_tokens=counts,
    leaked_token=st.none() | words,
    alive_after=st.booleans(),
    gate_missed=st.booleans(),
    remarks=st.lists(words, max_size=2).map(tuple),
)
knobs = st.builds(
    Knobs,
    kv_bits=st.sampled_from([None, 4, 8]),
    max_batch=st.integers(1, 64),
    max_context=st.integers(1, 10**6),
    extra=st.lists(
        st.tuples(
            words,
            st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from([0.5, 1e9]) | words,
        ),
        max_size=3,
    ).map(tuple),
)
"""Every field that the store keeps; times are texts that it does not read."""
trials = st.builds(
    Trial,
    stage=st.sampled_from([1, 2]),
    model=words,
    rank=st.integers(1, 99),
    knobs=st.none() | knobs,
    replicates=st.lists(replicates, max_size=3).map(tuple),
    failure=st.none() | st.builds(Failure, kind=st.sampled_from(FailureKind), reason=words),
    tps_median=figures,
    ttft_p95_ms=figures,
    load_ms=figures,
    kept=st.booleans(),
    strain=st.builds(
        ResourceUsage,
        peak_rss_bytes=counts,
        worst_pressure=st.sampled_from(["normal", "warning", "critical"]),
        nice=st.none() | st.integers(-20, 20),
    ),
    started_at=st.just("2026-01-01T00:00:00.000Z"),
    ended_at=st.just("2026-01-01T00:00:09.000Z"),
)
