"""Runs as they are asked for, followed and listed, and the agent itself."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field

from autotuned.documents import Document, Moment
from autotuned.documents.doctor import QuarantineEntry
from autotuned.documents.provider import LeaseDocument, LeftStoppedDocument, LiveProviderDocument
from autotuned.documents.result import (
    BracketDocument,
    ExitReason,
    InfeasibleDocument,
    SearchDocument,
)
from autotuned.documents.schedule import BriefDocument, StaleResult
from autotuned.documents.trial import KnobsDocument
from autotuned.documents.weights import PullDocument
from autotuned.shared.knobs import Value

State = Literal["running", "finished"]
Step = Literal["pause", "prewarm", "load", "warm", "measure", "quality", "stop"]
Phase = Literal[
    "preflight",
    "draining",
    "prewarming",
    "selecting",
    "climbing",
    "calibrating",
    "confirming",
    "applying",
    "restoring",
    "finished",
]


class VersionDocument(Document):
    """Who answers, and where its files are."""

    name: Literal["autotuned"]
    version: str
    protocol: int
    pid: int
    started_at: Moment
    socket: str
    db_path: str
    provider: str
    log_path: str


class CellKnobs(Document):
    """One combination of knobs, as flags name them."""

    kv_bits: Literal[4, 8] | None
    max_batch: int
    max_context: int
    extra: NotRequired[dict[str, Value]]


class PlannedCandidate(Document):
    """A candidate as a dry run sees it; bytes are those of its weight files."""

    model: str
    rank: int
    size_b: float | None
    cached: bool
    weights_bytes: int | None
    fetch_bytes: NotRequired[Annotated[int | None, Field(default=None)]]
    reason: str | None


class FetchDocument(Document):
    """What would be fetched for all candidates that fit: bytes, and seconds at the rate of the last download."""

    candidates: list[PlannedCandidate]
    fetch_bytes: NotRequired[Annotated[int, Field(default=0)]]
    fetch_rate: NotRequired[Annotated[float | None, Field(default=None)]]
    fetch_s: NotRequired[Annotated[float | None, Field(default=None)]]
    disk_free_bytes: int


class PlanDocument(FetchDocument):
    """What a request would do. Nothing has been changed."""

    provider: str
    binary: list[str]
    binary_version: str
    cells: list[CellKnobs]
    search: SearchDocument | None
    """Of a request for more than the contract's axes, or for more cells than `auto` would measure."""
    cell_s: float | None
    """Seconds that a trial took in the last good run."""
    conflicts: list[str]
    estimate_s: float | None
    max_duration_s: float
    warnings: list[str]


class StartedDocument(Document):
    """A run has begun."""

    run_id: str
    state: Literal["running"]
    warnings: list[str]
    apply: NotRequired[bool]
    """True where it applies what it finds; a run that is gone on with does what it was asked for first."""


class DryRunDocument(Document):
    """The plan of a request with `dry_run`."""

    plan: PlanDocument


class Place(Document):
    """Where a run is among its candidates."""

    index: int
    total: int
    model: str | None


class CellPlace(Document):
    """Where a run is among its cells."""

    index: int
    total: int
    knobs: CellKnobs | None
    space: NotRequired[int]
    """How many there are, where a search measures only `total` of them."""


class ContextPlace(Document):
    """Where a run is among its target contexts."""

    tokens: int
    index: int
    total: int


class Count(Document):
    """So many of so many."""

    index: int
    total: int


class PrewarmDocument(Document):
    """How far the weights are: bytes, and bytes a second where they are known."""

    activity: str
    bytes: int
    total: int | None
    rate: float | None


class RunProgressDocument(Document):
    """How far a run is; `eta_s` is null until it can be known, `step` is the part of a trial that goes on."""

    stage: int
    candidate: Place
    cell: CellPlace
    replicate: Count
    fraction: Annotated[float, Field(ge=0, le=1)]
    elapsed_s: float
    eta_s: float | None
    budget_left_s: float
    step: NotRequired[Annotated[Step | None, Field(default=None)]]
    prewarm: PrewarmDocument | None
    calibration: NotRequired[BracketDocument]
    context: NotRequired[ContextPlace]
    """Of a run with several target contexts: the one that is being answered."""


class BestDocument(Document):
    """The best cell so far; of a run that has ended with one, its recommendation."""

    model: str
    knobs: KnobsDocument
    tps_median: float | None
    ttft_p95_ms: float | None


class SummaryDocument(Document):
    """One line of the table of runs. `exit_reason` is null while it runs."""

    run_id: str
    state: State
    exit_reason: ExitReason | None
    started_at: str
    ended_at: str | None
    target_context: int
    candidates: int
    model: str | None
    tps_median: float | None
    ttft_p95_ms: float | None
    partial: bool
    recipe_hash: str | None
    applied: bool


class RunDocument(SummaryDocument):
    """A run, in progress or ended."""

    phase: Phase
    progress: RunProgressDocument | None
    best: BestDocument | None
    infeasible: list[InfeasibleDocument]
    warnings: list[str]
    trigger: str
    provider: str | None
    cancelling: bool


class RefusedDocument(Document):
    """A request that was refused before a run began."""

    run_id: str
    at: Moment
    exit_reason: ExitReason
    message: str


class StatusDocument(Document):
    """The agent and what it does. `run` is the active one, else the latest that searched; `refused` the latest
    refusal if newer."""

    daemon: VersionDocument
    run: RunDocument | None
    live_provider: LiveProviderDocument | None
    lease: LeaseDocument | None
    left_stopped: NotRequired[Annotated[LeftStoppedDocument | None, Field(default=None)]]
    stale: StaleResult | None
    schedule: BriefDocument
    pull: NotRequired[Annotated[PullDocument | None, Field(default=None)]]
    """The pull in progress, as `pull.wait` answers it."""
    refused: NotRequired[Annotated[RefusedDocument | None, Field(default=None)]]
    set_aside: NotRequired[Annotated[list[str], Field(default=[])]]
    """Damaged databases in whose place a new one was begun, until `doctor` acknowledges them."""
    quarantine: NotRequired[Annotated[list[QuarantineEntry], Field(default=[])]]


class CancelDocument(Document):
    """`cancelled` says whether a run is being ended now; a finished one is no error."""

    run_id: str | None
    state: State
    cancelled: bool


class RunsDocument(Document):
    """Runs, newest first; go on with `before` set to the last one's id."""

    runs: list[SummaryDocument]


class TimedOutDocument(Document):
    """The run goes on."""

    timed_out: Literal[True]
