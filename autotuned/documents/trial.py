"""One trial, its knobs and its samples."""

from __future__ import annotations

from typing import Literal, NotRequired

from autotuned.documents import Document
from autotuned.shared.knobs import Value

Stage = Literal[1, 2, 3, 4]


class KnobsDocument(Document):
    """Knobs under the names of the provider's configuration file; `kv_bits` null means unset."""

    kv_bits: Literal[4, 8] | None
    max_concurrency_override: int
    max_context_override: int
    extra: NotRequired[dict[str, Value]]
    """The server's own knobs, where any were asked for; null means its default."""


class SampleDocument(Document):
    """One replicate as measured. Of several at once it is a `stream` of a `wave`, sent so long after its first."""

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
    wave: NotRequired[int]
    stream: NotRequired[int]
    sent_ms: NotRequired[float]


class ConditionsDocument(Document):
    """What a trial ran under. `power_source` is `ac` or `battery`; `others_share` what other programs took of the
    processors while it was measured, `busiest` the names of those that took most. Null: not known."""

    power_source: str | None
    low_power: bool | None
    load_average: float | None
    others_share: float | None
    busiest: list[str]


class LoadDocument(Document):
    """Of several requests at once: inter-token latency of all streams, the slowest stream's share of the
    fastest one's rate, and the longest time between the first and the last request of a wave being sent."""

    itl_p50_ms: NotRequired[float]
    itl_p95_ms: NotRequired[float]
    fairness: NotRequired[float]
    dispatch_skew_ms: NotRequired[float]


class PointDocument(LoadDocument):
    """Of a trial with several requests at once, or of a point, whose context may be longer than the target."""

    concurrency: NotRequired[int]
    calibrates: NotRequired[Literal["context", "concurrency"]]
    context: NotRequired[int]
    confirms: NotRequired[bool]


class TrialDocument(PointDocument):
    """One probe (stage 1, `knobs` null), cell (stage 2) calibrated point (stage 3) or start
    of a confirmation (stage 4) with every request."""

    stage: Stage
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
    conditions: ConditionsDocument
    spent: dict[str, float | None]
    started_at: str
    ended_at: str
    samples: list[SampleDocument]


class TrialsDocument(Document):
    """The trials of a run, oldest first."""

    trials: list[TrialDocument]
