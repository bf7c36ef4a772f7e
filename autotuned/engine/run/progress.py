"""How far a run is: the phase, what is being tried now, and when it may be over.

Only for showing: nothing is decided here, and what the store holds stays the truth about results.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autotuned.core.calibrate import POINTS
from autotuned.core.model import STAGE_CALIBRATION, Trial
from autotuned.core.plan import Plan
from autotuned.core.result import cell_knobs
from autotuned.documents.result import BracketDocument
from autotuned.documents.run import CellPlace, Phase, PrewarmDocument, RunProgressDocument, Step
from autotuned.shared.knobs import Knobs

CONTEXT_POINTS = 9
"""A context is found in about so many points."""


@dataclass(slots=True)
class Progress:
    """The moving part of a run document. Times are seconds of `clock`."""

    plan: Plan
    """Of the target context that is being answered."""
    began: float = field(default_factory=time.monotonic)
    clock: Callable[[], float] = time.monotonic
    """Counts the time asleep, so that a budget is one of wall time."""
    phase: Phase = "preflight"
    stage: int = 0
    candidate: int = 0
    model: str | None = None
    cell: int = 0
    knobs: Knobs | None = None
    replicate: int = 0
    replicates: int = 0
    prewarm: PrewarmDocument | None = None
    points: int = 0
    """Calibrated so far."""
    bracket: BracketDocument | None = None
    """How far a calibration is."""
    step: Step | None = None
    """What the trial in progress does: the name of its part in `PhaseTimings`."""
    cells_seconds: list[float] = field(default_factory=list)
    cell_s: float | None = None
    """What a cell is expected to take, before one of this run was measured."""

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self.began

    @property
    def budget_left_s(self) -> float:
        """Until the budget ends the run; never negative."""
        return max(0.0, self.plan.request.max_duration - self.elapsed_s)

    def document(self) -> RunProgressDocument:
        """The `progress` object of a run document. `eta_s` is null while nothing like this was measured."""
        place: CellPlace = {
            "index": self.cell,
            "total": self.plan.most,
            "knobs": None if self.knobs is None else cell_knobs(self.knobs),
        }
        if self.plan.trials is not None:
            place["space"] = len(self.plan.cells)
        document: RunProgressDocument = {
            "stage": self.stage,
            "candidate": {
                "index": self.candidate,
                "total": len(self.plan.candidates),
                "model": self.model,
            },
            "cell": place,
            "replicate": {"index": self.replicate, "total": self.replicates},
            "step": self.step,
            "prewarm": self.prewarm,
            "fraction": round(self._fraction(), 4),
            "elapsed_s": round(self.elapsed_s, 1),
            "eta_s": self._eta_s(),
            "budget_left_s": round(self.budget_left_s, 1),
        }
        if self.bracket is not None:
            document["calibration"] = self.bracket
        contexts = self._contexts
        if len(contexts) > 1:
            document["context"] = {
                "tokens": contexts[self._answered],
                "index": self._answered + 1,
                "total": len(contexts),
            }
        return document

    @property
    def _contexts(self) -> list[int]:
        """The target contexts of the run, ascending."""
        return [part.request.target_context for part in self.plan.parts()]

    @property
    def _answered(self) -> int:
        """How many of them are done with."""
        return self._contexts.index(self.plan.request.target_context)

    @property
    def _points_to_come(self) -> int:
        """About so many points are measured after the cells."""
        request = self.plan.request
        asked = request.calibrate_context * CONTEXT_POINTS + request.calibrate_concurrency * POINTS
        return max(0, asked - self.points)

    def _fraction(self) -> float:
        """Trials done over all that may come: the probes so far and every cell."""
        if self.phase == "finished":
            return 1.0
        return (self._answered + self._fraction_here()) / len(self._contexts)

    def _fraction_here(self) -> float:
        """The same for the target context that is being answered."""
        cells, points = self.plan.most, self.points + self._points_to_come
        if self.stage == 1:
            return max(0, self.candidate - 1) / (len(self.plan.candidates) + cells + points)
        if self.stage == STAGE_CALIBRATION:
            return (self.candidate + cells + self.points) / (self.candidate + cells + points)
        within = self.replicate / self.replicates if self.replicates else 0.0
        done = self.candidate + max(0, self.cell - 1) + min(1.0, within)
        return min(1.0, done / (self.candidate + cells + points))

    def _eta_s(self) -> float | None:
        """By the cells measured so far, else by what one is expected to take; a probe counts as a cell."""
        each = self.cell_s
        if self.cells_seconds:
            each = sum(self.cells_seconds) / len(self.cells_seconds)
        if each is None:
            return None
        within = self.replicate / self.replicates if self.replicates else 0.0
        cells = 0 if self.stage == STAGE_CALIBRATION else self.plan.most - self.cell + 1
        trials = (1 + self.plan.most if self.stage < 2 else cells) + self._points_to_come
        trials += sum(1 + part.most for part in self.plan.parts()[self._answered + 1 :])
        return round(min(each * max(0.0, trials - min(1.0, within)), self.budget_left_s), 1)

    def learn(self, probe: Trial) -> None:
        """What a cell will take, by the probe of the candidate that was chosen; its download is not repeated."""
        if not self.cells_seconds and probe.fits:
            spent, request = probe.spent, self.plan.request
            asked = (spent.measure_ms or 0.0) / max(1, probe.waves_n)
            once = sum(part or 0.0 for part in (spent.load_ms, spent.warm_ms, spent.stop_ms))
            self.cell_s = request.cooldown_s + (once + asked * request.stage2_replicates) / 1000
