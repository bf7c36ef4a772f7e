"""What is published while things happen, one shape a kind. Subscribers get the fields beside `seq`, `ts` and `run_id`."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from autotuned.documents import Document, Moment
from autotuned.documents.result import BracketDocument
from autotuned.documents.run import CellKnobs, Phase, PrewarmDocument
from autotuned.documents.trial import Stage
from autotuned.documents.weights import PullProgressDocument

LiveKind = Literal["drain.begun", "drain.done", "restore.begun", "restore.done"]


class SubscribedDocument(Document):
    """Notifications `event` carry this subscription; `seq` is the newest event's number now."""

    subscription: str
    seq: int


class EventDocument(Document):
    """What every event has: its place in the agent's one stream, and the run that it is about."""

    seq: int
    ts: Moment
    run_id: str | None


class RunStarted(Document):
    """A run has begun, or goes on; `space`: of how many cells it tries at most `cells`."""

    type: Literal["run.started"]
    candidates: list[str]
    cells: int
    space: NotRequired[int]
    target_context: int
    max_duration_s: float


class RunFinished(Document):
    """A run has ended and its end is written: the last event of the run."""

    type: Literal["run.finished"]
    exit_reason: str


class PhaseEntered(Document):
    """A run has come to another phase."""

    type: Literal["phase"]
    phase: Phase


class LogEvent(Document):
    """Something a person should know."""

    type: Literal["log"]
    level: Literal["note", "warning", "error"]
    message: str


class BudgetWarning(Document):
    """The budget is nearly spent."""

    type: Literal["budget.warning"]
    left_s: float


class TrialNamed(Document):
    """Which trial it is: `cell` and `knobs` null for a probe."""

    stage: Stage
    model: str
    rank: int
    cell: int | None
    knobs: CellKnobs | None
    concurrency: NotRequired[int]
    context: NotRequired[int | None]
    calibrates: NotRequired[Literal["context", "concurrency"]]


class TrialPrewarming(TrialNamed, PrewarmDocument):
    """The weights of a trial are on their way."""

    type: Literal["prewarm.progress"]


class TrialPrewarmed(TrialNamed):
    """The weights of a trial are here and checked."""

    type: Literal["prewarm.done"]
    bytes: int
    fetched_bytes: int


class PullNamed(Document):
    """Which pull it is."""

    pull_id: str
    model: str


class PullPrewarming(PullNamed, PullProgressDocument):
    """The weights of a pull are on their way."""

    type: Literal["prewarm.progress"]


class PullPrewarmed(PullNamed):
    """The weights of a pull are here and checked."""

    type: Literal["prewarm.done"]
    bytes: int


class PullFinished(PullNamed):
    """A pull has ended."""

    type: Literal["pull.finished"]
    outcome: str
    reason: str | None


class ProviderStarting(TrialNamed):
    """A candidate is being started."""

    type: Literal["provider.starting"]
    argv: list[str]
    log: str


class ProviderReady(TrialNamed):
    """A candidate serves."""

    type: Literal["provider.ready"]
    ready_ms: float


class ReplicateMeasured(TrialNamed):
    """A request, or several at once, has been measured."""

    type: Literal["replicate"]
    index: int
    total: int
    ttft_ms: float | None
    tps: float | None
    decode_tps: float | None
    prefill_tps: float | None
    prompt_tokens: int | None
    error: str | None


class PointLeft(Document):
    """Of a point: what is known of its calibration with it."""

    calibration: NotRequired[BracketDocument]


class TrialEnded(TrialNamed, PointLeft):
    """A trial has ended and is in the store."""

    type: Literal["trial"]
    fits: bool
    kept: bool
    tps_median: float | None
    ttft_p95_ms: float | None
    replicates: int
    load_ms: float | None
    reason: str | None


class BestChanged(Document):
    """A cell is the best so far."""

    type: Literal["best"]
    model: str
    knobs: CellKnobs | None
    tps_median: float | None
    ttft_p95_ms: float | None


class Applied(Document):
    """A configuration has been written; `reverted_to` names the backup that it was taken from."""

    type: Literal["applied"]
    config_path: str
    backup_path: str | None
    changed: dict[str, Any]
    warnings: list[str]
    reverted_to: NotRequired[str]


class LiveOutcome(Document):
    """How it went."""

    again: NotRequired[bool]
    restored: NotRequired[bool]
    reason: NotRequired[str | None]
    by: NotRequired[str]


class LiveNamed(Document):
    """Which live provider it is, as its manager names it."""

    target: str
    label: NotRequired[str]
    domain: NotRequired[str]
    unit: NotRequired[str]
    scope: NotRequired[str]
    pid: NotRequired[int | None]
    log: NotRequired[str | None]


class LiveProviderEvent(LiveNamed, LiveOutcome):
    """A live provider is being stopped, or brought back; the fields name it as its manager does."""

    type: LiveKind


TrialReport = (
    TrialPrewarming | TrialPrewarmed | ProviderStarting | ProviderReady | ReplicateMeasured
)
"""What a trial publishes by itself."""
RunEvent = (
    RunStarted | PhaseEntered | TrialReport | TrialEnded | BestChanged | BudgetWarning | LogEvent
    | RunFinished
)  # fmt: skip
AnyEvent = RunEvent | LiveProviderEvent | Applied | PullPrewarming | PullPrewarmed | PullFinished

EVENTS = (
    RunStarted, PhaseEntered, LiveProviderEvent, TrialPrewarming, TrialPrewarmed,
    ProviderStarting, ProviderReady, ReplicateMeasured, TrialEnded, BestChanged, BudgetWarning,
    Applied, LogEvent, RunFinished, PullPrewarming, PullPrewarmed, PullFinished,
)  # fmt: skip
"""Every shape, in the order in which one run may publish them."""
