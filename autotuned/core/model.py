"""The frozen values that everything else passes around, in the field's own words.

Pure data: no clock, no IO. A value here is complete or does not exist; a failure is a value too.
Units are in the names: `_ms`, `_s`, `_bytes`, `_tps` (tokens per second), `_b` (billions of parameters).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from autotuned.documents.trial import Stage
from autotuned.shared.knobs import Knobs

WeightsFormat = Literal["mlx", "gguf"]
"""A model folder as mlx reads it, or one `.gguf` file."""

Axis = Literal["context", "concurrency"]
"""What a point of stage 3 calibrates."""
STAGE_SELECTION: Final = 1
STAGE_CLIMB: Final = 2
STAGE_CALIBRATION: Final = 3
STAGE_CONFIRM: Final = 4


class FailureKind(StrEnum):
    """Why a trial is not feasible; programs compare these, people read the reason."""

    TRANSIENT = "pre_warm_transient"
    INTEGRITY = "pre_warm_integrity"
    STATIC = "static"
    START = "start"
    GATE = "gate"
    MEMORY = "memory"
    QUARANTINE = "quarantine"
    INTERRUPTED = "interrupted"
    BUDGET = "budget"
    INTERNAL = "internal"


CUT_SHORT = (FailureKind.INTERRUPTED, FailureKind.BUDGET, FailureKind.INTERNAL)
"""Kinds of trials that say nothing about their candidate: somebody or something ended them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model id (or local path) in the ordered list; `rank` 1 is tried first."""

    model: str
    rank: int
    size_b: float | None


CUT_WITH_WAVE = "ended with its wave"
"""The error of a stream that was cut because another one had decided against the wave."""


@dataclass(frozen=True, slots=True)
class Replicate:
    """One measured request. `error` None means that it is complete; otherwise no figure counts.

    `ttft_ms`: request sent to first visible text. `tps`: completion tokens over the whole request,
    prefill included. `decode_tps`: tokens after the first over the time after the first.
    `prefill_tps`: prompt tokens over TTFT. `remarks` are doubts that do not make it fail
    (`no visible text`, `tokens counted from chunks`). `gate_missed`: abandoned, no text within the gate.
    With several requests at once it is one `stream` of a `wave`, both from 1; `sent_ms`: how long after
    the first of its wave it was sent. One that was cut with its wave has the `ttft_ms` of its first text.
    """

    error: str | None = None
    ttft_ms: float | None = None
    tps: float | None = None
    decode_tps: float | None = None
    prefill_tps: float | None = None
    total_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    leaked_token: str | None = None
    alive_after: bool = True
    gate_missed: bool = False
    remarks: tuple[str, ...] = ()
    wave: int | None = None
    stream: int | None = None
    sent_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What a candidate did to the machine: peak resident bytes of its group and worst pressure level.

    And how it ran: its nice value, and the scheduler's priority where the system tells it (macOS).
    """

    peak_rss_bytes: int | None = None
    worst_pressure: str = "normal"
    nice: int | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a trial ran under: power and load at its start, and what other programs took of the processors
    while it was measured, with the names of the busiest. None: not known."""

    power_source: str | None = None
    low_power: bool | None = None
    load_average: float | None = None
    others_share: float | None = None
    busiest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PhaseTimings:
    """Where a trial's time went, in ms, in this order; None for a part that it never came to.

    `pause`: the cool-down before a cell. `prewarm`: bringing the weights in and checking them. `load`:
    from the start of the program until it serves. `warm`: the disposable request. `measure`: all
    replicates. `stop`: until the program is gone and its port free. A part cut short counts as far as
    it came.
    """

    pause_ms: float | None = None
    prewarm_ms: float | None = None
    load_ms: float | None = None
    warm_ms: float | None = None
    measure_ms: float | None = None
    stop_ms: float | None = None


Answers = tuple[str | None, ...]
"""What was answered to each question of the quality guard, in their order; None where a request failed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial is not feasible. `reason` is a sentence of at most 480 characters."""

    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluated configuration: a probe (stage 1, `knobs` None), a cell (stage 2) or a point (stage 3).

    `failure` None means feasible. `kept` True means: became the best at that moment (stage 2 only).
    `load_ms` is start, readiness and warm-up together, of a trial that came so far; `spent` has every part.
    `concurrency` requests were in flight at once, each a replicate of its wave; then `itl` are the times
    between two tokens of all streams. A point calibrates the `context` or the `concurrency`, at this
    `context`; it `confirms` with a start of its own.
    """

    stage: Stage
    model: str
    rank: int
    knobs: Knobs | None
    replicates: tuple[Replicate, ...]
    failure: Failure | None
    tps_median: float | None = None
    ttft_p95_ms: float | None = None
    load_ms: float | None = None
    kept: bool = False
    strain: ResourceUsage = ResourceUsage()
    conditions: Conditions = Conditions()
    spent: PhaseTimings = PhaseTimings()
    started_at: str = ""
    ended_at: str = ""
    concurrency: int = 1
    itl_p50_ms: float | None = None
    itl_p95_ms: float | None = None
    calibrates: Axis | None = None
    context: int | None = None
    confirms: bool = False
    profile: int | None = None
    """The target context that it is for, in a run with several."""
    serve_argv: tuple[str, ...] = ()
    """The command line that serves this cell without us."""
    answers: tuple[Answers, ...] = ()
    """Of each round in which the quality guard asked this cell."""
    vetoed: str | None = None
    """Why this cell cannot win though it fits."""

    @property
    def fits(self) -> bool:
        return self.failure is None

    @property
    def n_err(self) -> int:
        """How many replicates failed; one for a candidate that never came up."""
        if not self.replicates and self.failure is not None:
            return int(self.failure.kind is FailureKind.START)
        good = (None, CUT_WITH_WAVE)
        return sum(1 for replicate in self.replicates if replicate.error not in good)

    @property
    def waves_n(self) -> int:
        """How many times it was measured: with one request at a time, its replicates."""
        return max((replicate.wave or 0 for replicate in self.replicates), default=0) or len(
            self.replicates
        )


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What the recipe is valid for. `ram_bytes` is physical memory, `ram_gb` the rounded figure.

    `os_build` is finer than the version and no part of the recipe; empty where the system does not tell.
    """

    ram_gb: int
    chip: str
    os_version: str
    ram_bytes: int
    os_build: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """`seq` is dense over the agent's life, so that a gap shows loss; `ts` is UTC with `Z`."""

    seq: int
    ts: str
    run_id: str | None
    type: str
    fields: Mapping[str, object]

    def document(self) -> dict[str, object]:
        """The flat object that subscribers get."""
        return {
            **self.fields,
            "seq": self.seq,
            "ts": self.ts,
            "run_id": self.run_id,
            "type": self.type,
        }
