"""What the trials of a run are made with, and which trial is asked for. Values only."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotuned.core.model import Axis, Failure, Trial
from autotuned.core.quarantine import Configuration
from autotuned.core.result import cell_knobs
from autotuned.documents.events import TrialNamed, TrialReport
from autotuned.documents.run import Step
from autotuned.documents.trial import Stage
from autotuned.engine.measure.prompt import Calibration
from autotuned.engine.measure.watchdog import Watchdog
from autotuned.engine.quarantine import Inflight
from autotuned.host.children.process import Child, Processes
from autotuned.host.machine import Machine
from autotuned.host.ports import Ports
from autotuned.providers.server import Binary, Provider
from autotuned.settings import ProviderSettings
from autotuned.shared.knobs import Knobs
from autotuned.weights.cache import Weights


@dataclass(slots=True)
class Standing:
    """A server that a trial has left running, so that the next point is measured on it."""

    child: Child | None = None
    model: str = ""
    knobs: Knobs | None = None
    log: Path = Path()

    def take(self, model: str, knobs: Knobs | None) -> Child | None:
        """The server, no longer standing, where it lives and was started like this."""
        child = self.child
        if (
            child is None
            or child.exit_code is not None
            or (model, knobs) != (self.model, self.knobs)
        ):
            return None
        self.child = None
        return child


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials of one run share."""

    provider: Provider
    binary: Binary
    settings: ProviderSettings
    processes: Processes
    ports: Ports
    machine: Machine
    watchdog: Watchdog
    prewarm: Callable[[str, Callable[..., Any]], Awaitable[Weights | Failure]]
    """Model and a listener for progress; a Failure also where the weights exceed the memory."""
    refusal: Callable[[Configuration], Awaitable[Failure | None]]
    """Why a configuration is not started at all."""
    inflight: Inflight
    """Where it is written down that one is."""
    run_id: str
    publish: Callable[[TrialReport], None]
    enter: Callable[[Step], None]
    """Gets the part of a trial that begins; only for showing."""
    environ: Mapping[str, str]
    logs: Path
    folder: Path
    port: int
    target_context: int
    gate_ttft_ms: int
    thermal_gate: bool = False
    logs_before: int = 0
    """Provider logs that a run that goes on has already written."""
    mask: Callable[[str], str] = str
    """What a candidate has said is quoted without any secret in it: a server may print what it was given."""
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    standing: Standing = field(default_factory=Standing)

    def configuration(self, asked: Asked) -> Configuration:
        """What a trial starts, as the quarantine knows it."""
        version = self.binary.version
        return Configuration(
            self.provider.kind,
            version,
            asked.model,
            asked.started,
            asked.context or asked.profile or self.target_context,
        )

    def calibration(self, model: str, context: int) -> Calibration:
        """What is known of a model's characters per token, for prompts of this context; one for all its trials."""
        known = self.calibrations.setdefault(model, Calibration())
        known.aim(context - self.settings.max_tokens)
        return known


@dataclass(frozen=True, slots=True)
class Asked:
    """Which trial is asked for. `cell` is the cell's index from 1 in stage 2."""

    stage: Stage
    model: str
    rank: int
    knobs: Knobs | None
    replicates: int
    cell: int | None = None
    pause_s: float = 0.0
    """How long the machine rests before the cell."""
    settled: Callable[[Sequence[float]], bool] | None = None
    """With adaptive replicates: whether these tokens per second are enough; `replicates` is then the usual number."""
    concurrency: int = 1
    calibrates: Axis | None = None
    """Of a point (stage 3): what it calibrates, `context` or `concurrency`."""
    context: int | None = None
    ceiling_ms: int | None = None
    confirms: bool = False
    slots: int | None = None
    """What the server is started with in place of the knobs' `max_batch`."""
    profile: int | None = None
    """The target context that it is for, in a run with several."""
    battery: Callable[[Trial], int] | None = None
    """How often the quality guard asks it, once its replicates are whole."""

    @property
    def continues(self) -> bool:
        """Whether it may be measured on the server of the point before, and leave it to the next one."""
        return self.slots is not None or (self.calibrates == "context" and not self.confirms)

    @property
    def started(self) -> Knobs | None:
        """The knobs that the server is started with."""
        if self.knobs is None or self.slots is None:
            return self.knobs
        return self.knobs._replace(max_batch=self.slots)

    def named(self) -> TrialNamed:
        named: TrialNamed = {
            "stage": self.stage,
            "model": self.model,
            "rank": self.rank,
            "cell": self.cell,
            "knobs": None if self.knobs is None else cell_knobs(self.knobs),
        }
        if self.concurrency > 1:
            named["concurrency"] = self.concurrency
        if self.profile is not None:
            named["context"] = self.profile
        if self.calibrates:
            named |= {"context": self.context, "calibrates": self.calibrates}
        return named


LOG_PART_BYTES = 256 * 1024
"""Of a long provider log the first and the last part of this size are searched for the reason."""


def log_name(number: int, stage: int, model: str) -> str:
    """A file name of at most 100 bytes for a trial's provider log; model ids can be long paths."""
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rsplit("/", 1)[-1]).strip("-.")[:60] or "model"
    return f"{number:03d}-stage{stage}-{word}-{digest}.log"


def read_log(path: Path) -> str:
    """Its beginning and its end; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            text = file.read(LOG_PART_BYTES)
            if size > LOG_PART_BYTES:
                file.seek(max(LOG_PART_BYTES, size - LOG_PART_BYTES))
                text += b"\n" + file.read(LOG_PART_BYTES)
            return text.decode("utf-8", errors="replace")
    except OSError:
        return ""


def with_telling_line(reason: str, provider: Provider, log: Path) -> str:
    """`reason`, and the line of the candidate's log that says best why it failed."""
    line = provider.telling_line(read_log(log))
    return f"{reason}: {line}" if line else reason
