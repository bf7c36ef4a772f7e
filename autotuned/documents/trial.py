"""One trial, its knobs and its samples."""

from __future__ import annotations

from typing import Literal

from autotuned.documents import Document


class KnobsDocument(Document):
    """Knobs under the names of the provider's configuration file; `kv_bits` null means unset."""

    kv_bits: Literal[4, 8] | None
    max_concurrency_override: int
    max_context_override: int


class SampleDocument(Document):
    """One replicate as measured."""

    error: str | None
    ttft_ms: float | None
    tps: float | None
    decode_tps: float | None
    prefill_tps: float | None
    total_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    leaked_token: str | None
    remarks: list[str]


class TrialDocument(Document):
    """One probe (stage 1, `knobs` null) or cell (stage 2) with every request that was measured."""

    stage: Literal[1, 2]
    model: str
    rank: int
    knobs: KnobsDocument | None
    fits: bool
    kept: bool
    n_err: int
    failure: str | None
    reason: str | None
    tps_median: float | None
    ttft_p95_ms: float | None
    load_ms: float | None
    peak_rss_bytes: int | None
    worst_pressure: str
    nice: int | None
    priority: int | None
    spent: dict[str, float | None]
    started_at: str
    ended_at: str
    samples: list[SampleDocument]


class TrialsDocument(Document):
    """The trials of a run, oldest first."""

    trials: list[TrialDocument]
