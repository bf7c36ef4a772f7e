"""The result of a run. Frozen: fields are added, never changed or removed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, WithJsonSchema

from autotuned.documents import Document
from autotuned.documents.noise import NoiseDocument
from autotuned.documents.trial import (
    ConditionsDocument,
    KnobsDocument,
    LoadDocument,
    SampleDocument,
)

_MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"
Timestamp = Annotated[str, WithJsonSchema({"type": "string", "pattern": _MOMENT})]
"""UTC, ISO 8601, with `Z`. Published, not enforced: what a prototype wrote down must stay readable."""


class ExitReason(StrEnum):
    """The closed list of ways in which a run can end."""

    OK = "ok"
    NO_FEASIBLE = "no_feasible"
    BUDGET_NONE = "budget_exhausted_no_model_selected"
    BUDGET_PARTIAL = "budget_exhausted_with_partial_recommendation"
    INTERRUPTED = "interrupted"
    PROVIDER_CONFLICT = "provider_conflict"
    INTEGRITY = "pre_warm_integrity_failure"
    CONFIG_ERROR = "config_error"
    INTERNAL_ERROR = "internal_error"


class MachineDocument(Document):
    """The machine that the recipe is for."""

    ram_gb: int
    chip: str
    os_version: str
    binary_version: str


class InputsDocument(Document):
    """What was asked for."""

    target_context: int
    candidate_models: list[str]
    stage1_replicates: int
    stage2_replicates: int
    gate_ttft_ms: int
    tps_tie_epsilon: float
    concurrency: NotRequired[int]
    """Where it is not 1."""


class RecommendationDocument(Document):
    """The answer. `partial` is present, and true, only where cells were left out; `serve_note` where the
    command does less than the live server does."""

    model: str
    target_context: int
    knobs: KnobsDocument
    tps_median: float
    ttft_p95_ms: float
    replicates: int
    serve_command: str
    serve_note: NotRequired[
        Annotated[str | None, WithJsonSchema({"type": "string"}), Field(default=None)]
    ]
    partial: NotRequired[
        Annotated[Literal[True] | None, WithJsonSchema({"const": True}), Field(default=None)]
    ]


class ProfileDocument(Document):
    """The answer for one target context, in a run with several; `reason`: why there is none."""

    target_context: int
    recommendation: RecommendationDocument | None
    recipe_hash: str | None
    reason: str | None


class InfeasibleDocument(Document):
    """A candidate that did not pass, and why."""

    model: str
    rank: int
    reason: str


class CellDocument(LoadDocument):
    """One cell of the hill climb."""

    knobs: KnobsDocument
    tps_median: float | None
    ttft_p95_ms: float | None
    decode_tps: float | None
    prefill_tps: float | None
    load_ms: float | None
    peak_rss_bytes: NotRequired[Annotated[int | None, Field(default=None)]]
    fits: bool
    kept: bool
    reason: str | None
    conditions: NotRequired[ConditionsDocument]
    samples: list[SampleDocument]


class SearchDocument(Document):
    """How a space is searched: at most `trials` of its `cells`; there only where more than the contract was asked for.

    `auto`: how many `--search auto` would measure. `left_out`: cells that were dropped since a knob of
    theirs would do nothing. `untried`: what a run that has ended never came to.
    """

    kind: Literal["grid", "tpe"]
    cells: int
    trials: int
    auto: int
    left_out: int
    seed: int | None
    untried: NotRequired[list[KnobsDocument]]


class ErrorDocument(Document):
    """Why there is no whole recommendation: a sentence, and the reasons behind it."""

    code: str
    message: str
    detail: NotRequired[Annotated[list[str] | None, Field(default=None)]]


class AppliedDocument(Document):
    """What was written into the provider's configuration; `hint` holds the commands that make it live, one a line.

    `recipe` has the owned keys as they are in the file then: values that were kept among them.
    """

    config_path: str
    backup_path: str | None
    changed: dict[str, Any]
    hint: NotRequired[Annotated[str | None, Field(default=None)]]
    recipe: NotRequired[Annotated[dict[str, str | int | None], Field(default={})]]
    target_context: NotRequired[int]
    """Whose recommendation it is, where that is not the smallest target context's."""


class ConfirmationDocument(Document):
    """The meeting that decided: the winner of the climb against the `defaults` or what the `live` provider runs,
    started in turns. `difference`: how much faster the winner is, relative, with its 95 % interval."""

    against: str
    knobs: dict[str, Any]
    difference: float
    interval: list[float] | None
    verdict: str


class CheckedDocument(Document):
    """A recipe measured again, against its cell in an earlier run: `same`, `faster`, `slower` or `fails`.
    `difference` is relative to then, with its 97 % interval; null where nothing could be compared."""

    of_run: str
    verdict: str
    difference: float | None
    interval: list[float] | None
    tps_before: float | None
    tps_median: float | None
    ttft_p95_before_ms: float | None
    ttft_p95_ms: float | None
    reason: str | None


class CalibrationPoint(Document):
    """One measured point; `passes`: every request succeeded, with its TTFT p95 under the ceiling."""

    passes: bool
    ttft_p95_ms: float | None
    tps: float | None
    reason: str | None


class ContextPoint(CalibrationPoint):
    """A length of the context in tokens, in the order asked."""

    context: int


class ConcurrencyPoint(CalibrationPoint):
    """So many requests at once, in the order asked."""

    concurrency: int


class ContextDocument(Document):
    """The largest useful context, null where none was found; `bound` is the most that could be asked for."""

    answer: int | None
    ceiling_ms: int
    bound: int
    quantum: int
    points: list[ContextPoint]


class ConcurrencyDocument(Document):
    """The largest number of requests at once that passes, and the smallest with nearly the best throughput."""

    largest: int | None
    recommended: int | None
    ceiling_ms: int
    points: list[ConcurrencyPoint]
    reason: NotRequired[str]
    """Why it was not measured but is 1."""


class CalibrationDocument(Document):
    """Both, null where it was not asked for."""

    context: ContextDocument | None
    concurrency: ConcurrencyDocument | None


class BracketDocument(Document):
    """How far a calibration is: the largest value that passes, the smallest that does not."""

    calibrates: Literal["context", "concurrency"]
    points: int
    passes: int | None
    fails: int | None


class BaselineQuality(Document):
    """The lossless cell: how many tasks both its rounds solved, and the share of questions on which they agree."""

    knobs: dict[str, Any]
    solved: int
    agreement: float


class CellQuality(Document):
    """A lossy cell: `same`, `differs` or `broken`. `needles` and `structured`: how many of these it solved;
    `agreement`: the share of answers that begin as the baseline's do; `lost`: what the baseline solved twice."""

    knobs: dict[str, Any]
    verdict: str
    reason: str | None
    solved: int
    needles: int
    structured: int
    agreement: float
    lost: list[str]


class QualityDocument(Document):
    """What came of comparing answers. `reason`: why nothing could be judged."""

    mode: str
    tasks: int
    baseline: BaselineQuality | None
    cells: list[CellQuality]
    reason: str | None


class AnswerDocument(Document):
    """One answer; null where the request failed. `solved`: of each task of the question."""

    knobs: dict[str, Any]
    round: int
    text: str | None
    solved: list[bool]


class AnsweredTask(Document):
    """A question and its answers, side by side."""

    task: str
    prompt: str
    answers: list[AnswerDocument]


class AnswersDocument(Document):
    """All answers of a run; empty where none were compared."""

    tasks: list[AnsweredTask]


class ResultDocument(Document):
    """The result of one run, finished or not."""

    spec_version: Literal["SPEC-013 v0.3"]
    run_id: str
    started_at: Timestamp
    ended_at: Timestamp | None
    machine: MachineDocument
    inputs: InputsDocument
    recommendation: RecommendationDocument | None
    alternates: list[str]
    infeasible: list[InfeasibleDocument]
    recipe_hash: Annotated[str | None, Field(pattern="^sha256:[0-9a-f]{64}$")]
    db_path: str
    exit_reason: ExitReason
    state: Literal["running", "finished"]
    trigger: str
    provider: str | None
    warnings: list[str]
    error: ErrorDocument | None
    applied: NotRequired[Annotated[AppliedDocument | None, Field(default=None)]]
    live_model: NotRequired[Annotated[str | None, Field(default=None)]]
    """The candidate that was asked for as `live`: what the live provider served at the start."""
    left_stopped: NotRequired[Annotated[str | None, Field(default=None)]]
    """The command line that starts a server in a terminal that this run has stopped for good."""
    profiles: NotRequired[list[ProfileDocument]]
    quality: NotRequired[QualityDocument]
    confirmation: NotRequired[ConfirmationDocument]
    check: NotRequired[CheckedDocument]
    timings: dict[str, float]
    stage2: list[CellDocument]
    calibration: NotRequired[CalibrationDocument]
    noise: NoiseDocument
    search: NotRequired[SearchDocument]
