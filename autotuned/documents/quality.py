"""Whether lossy cells answer as the lossless one does; there only of a run that was asked to compare."""

from __future__ import annotations

from typing import Any

from autotuned.documents import Document


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
