"""The answers of the methods about runs, as published: the models behind the OpenRPC document.

The engine builds these objects as plain dictionaries; a test holds every answer of a real agent against
its model, so neither can change alone. Fields are added, never changed or removed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autotuned.core.model import ExitReason
from autotuned.core.result import InfeasibleDocument, KnobsDocument, SampleDocument

State = Literal["running", "finished"]
Phase = Literal[
    "preflight",
    "draining",
    "prewarming",
    "selecting",
    "climbing",
    "applying",
    "restoring",
    "finished",
]
Moment = Annotated[
    str, Field(description="UTC, ISO 8601 with Z", examples=["2026-01-31T03:30:00.000Z"])
]


class Document(BaseModel):
    """What an answer holds, and nothing else."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Empty(Document):
    """Nothing to tell."""


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


class PlannedCandidate(Document):
    """A candidate as a dry run sees it; bytes are those of its weight files."""

    model_config = ConfigDict(extra="allow")

    model: str
    rank: int
    size_b: float | None
    cached: bool
    weights_bytes: int | None
    reason: str | None


class PlanDocument(Document):
    """What a request would do. Nothing has been changed."""

    model_config = ConfigDict(extra="allow")

    provider: str
    binary: list[str]
    binary_version: str
    candidates: list[PlannedCandidate]
    cells: list[CellKnobs]
    conflicts: list[str]
    disk_free_bytes: int
    estimate_s: float | None
    max_duration_s: float
    warnings: list[str]


class StartedDocument(Document):
    """A run has begun."""

    run_id: str
    state: Literal["running"]
    warnings: list[str]


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
    step: Literal["pause", "prewarm", "load", "warm", "measure", "stop"] | None = None
    prewarm: PrewarmDocument | None


class BestDocument(Document):
    """The best cell so far."""

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


class LiveProviderDocument(Document):
    """The operator's own server, as seen a moment ago. `healthy`: its port answers.

    `loaded`: launchd has its job; `since` and `runs`: when its process was started, and how often launchd has
    done so. Null where that cannot be known.
    """

    kind: Literal["launchd", "foreground"]
    state: str
    port: int
    pid: int | None
    healthy: bool
    loaded: bool | None = None
    running: bool | None = None
    since: str | None = None
    runs: int | None = None
    label: str | None = None
    domain: str | None = None
    plist: str | None = None
    age_s: float | None = None
    """How long ago it was seen."""


class LeaseDocument(Document):
    """A live provider that was stopped for a run. `outstanding`: it is still to be brought back."""

    lease_id: str
    run_id: str
    state: str
    outstanding: bool
    since: str
    updated_at: str
    attempts: int
    reason: str | None
    holder_pid: int
    by: str
    port: int
    kind: Literal["launchd", "foreground"]
    pid: int | None
    label: str | None = None
    domain: str | None = None
    plist: str | None = None
    restart: bool | None = None
    command: str | None = None
    log: str | None = None
    new_pid: int | None = None


class LeftStoppedDocument(Document):
    """A server that a run has stopped and nobody has started again; `command` does, secrets masked."""

    run_id: str
    name: str
    command: str


class RefusedDocument(Document):
    """A request that was refused before a run began."""

    run_id: str
    at: Moment
    exit_reason: ExitReason
    message: str


class QuarantineEntry(Document):
    """A configuration that is not started again: the machine went down while it ran. `knobs` null: a probe."""

    entry: int
    at: Moment
    run_id: str
    provider: str
    binary_version: str
    model: str
    knobs: KnobsDocument | None
    target_context: int


class QuarantineDocument(Document):
    """All entries, oldest first; `cleared` are the numbers of those that were lifted."""

    entries: list[QuarantineEntry]
    cleared: list[int] = []


class StatusDocument(Document):
    """The agent and what it does. `run` is the active one, else the latest that searched; `refused` the latest
    refusal if newer."""

    daemon: VersionDocument
    run: RunDocument | None
    live_provider: LiveProviderDocument | None
    lease: LeaseDocument | None
    left_stopped: LeftStoppedDocument | None = None
    stale: dict[str, Any] | None
    schedule: dict[str, Any]
    pull: dict[str, Any] | None = None
    """The pull in progress, as `pull.wait` answers it."""
    refused: RefusedDocument | None = None
    set_aside: list[str] = []
    """Damaged databases in whose place a new one was begun, until `doctor` acknowledges them."""
    quarantine: list[QuarantineEntry] = []


class CancelDocument(Document):
    """`cancelled` says whether a run is being ended now; a finished one is no error."""

    run_id: str | None
    state: State
    cancelled: bool


class RunsDocument(Document):
    """Runs, newest first; go on with `before` set to the last one's id."""

    runs: list[SummaryDocument]


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


class TimedOutDocument(Document):
    """The run goes on."""

    timed_out: Literal[True]


class SubscribedDocument(Document):
    """Notifications `event` carry this subscription; `seq` is the newest event's number now."""

    subscription: str
    seq: int


class RestoreDocument(Document):
    """Whether nothing is owed any more, else what."""

    restored: bool
    lease: LeaseDocument | None


class ForgetDocument(Document):
    """Whether the lease was dropped, what a restore would have done, and what is still owed."""

    forgotten: bool
    would: list[str]
    lease: LeaseDocument | None
