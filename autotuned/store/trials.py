"""The trials of a run: one function a question, core values in and out.

`tune_trials` is a public format; what a Trial has beyond it stands in tables of ours, so that the
history that comes back is equal to what went in.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Mapping, Sequence

from autotuned.core.gate import bounded
from autotuned.core.model import (
    Conditions,
    Failure,
    FailureKind,
    PhaseTimings,
    Replicate,
    ResourceUsage,
    Trial,
)
from autotuned.core.stats import median
from autotuned.shared.knobs import TABLE, Knobs
from autotuned.store.database import insert, json_text, transaction

_SAMPLE_FIELDS = tuple(
    field.name for field in dataclasses.fields(Replicate) if field.name != "remarks"
)
_LOAD_COLUMNS = ("itl_p50_ms", "itl_p95_ms", "calibrates", "confirms", "profile")
_SPENT_COLUMNS = tuple(f"spent_{field.name}" for field in dataclasses.fields(PhaseTimings))


def append(
    db: sqlite3.Connection, run_id: str, trial: Trial, target_context: int, max_tokens: int
) -> int:
    """Write one ended trial with its samples; its id."""
    knobs = trial.knobs
    told = (replicate.prompt_tokens for replicate in trial.replicates)
    prompts = [tokens for tokens in told if tokens is not None]
    values = {
        "ts_utc": trial.ended_at,
        "run_id": run_id,
        "stage": trial.stage,
        "model": trial.model,
        "target_context": trial.context or target_context,
        "measured_prompt_tokens": round(median(prompts)) if prompts else None,
        "max_tokens": max_tokens,
        "agg_throughput_tps": trial.tps_median,
        "ttft_p95_ms": trial.ttft_p95_ms,
        "fits": int(trial.fits),
        "n_err": trial.n_err,
        "kept": int(trial.kept),
        "notes": _notes(trial),
        **({knob.column: None for knob in TABLE} if knobs is None else knobs.columns()),
        "replicates_n": trial.waves_n,
        "concurrency": trial.concurrency if trial.concurrency > 1 else None,
        "extra_knobs_json": json_text(knobs.extra) if knobs and knobs.extra else None,
    }
    with transaction(db):
        trial_id = insert(db, "tune_trials", values)
        failure, strain = trial.failure, trial.strain
        details = {
            "trial_id": trial_id,
            "rank": trial.rank,
            "failure_kind": failure and failure.kind.value,
            "failure_reason": failure and failure.reason,
            "load_ms": trial.load_ms,
            "peak_rss_bytes": strain.peak_rss_bytes,
            "worst_pressure": strain.worst_pressure,
            "nice": strain.nice,
            "priority": strain.priority,
            "started_at_utc": trial.started_at,
            "ended_at_utc": trial.ended_at,
            **{name: getattr(trial, name) for name in _LOAD_COLUMNS},
            "serve_argv_json": json_text(trial.serve_argv) if trial.serve_argv else None,
            "answers_json": json_text(trial.answers) if trial.answers else None,
            "vetoed": trial.vetoed,
            "conditions_json": json_text(dataclasses.asdict(trial.conditions)),
            **dict(zip(_SPENT_COLUMNS, dataclasses.astuple(trial.spent), strict=True)),
        }
        insert(db, "trial_details", details)
        for index, sample in enumerate(trial.replicates):
            fields = {name: getattr(sample, name) for name in _SAMPLE_FIELDS}
            belongs = {"trial_id": trial_id, "idx": index}
            remarks = {"remarks_json": json_text(list(sample.remarks))}
            insert(db, "samples", belongs | remarks | fields)
    return trial_id


def history(db: sqlite3.Connection, run_id: str) -> tuple[Trial, ...]:
    """The trials of a run, oldest first, equal to those that were appended."""
    # A column of a prototype's own that is called like one of ours comes last, and is not the one that is found.
    cursor = db.execute(
        "SELECT d.*, t.* FROM tune_trials t LEFT JOIN trial_details d ON d.trial_id = t.id "
        "WHERE t.run_id = ? ORDER BY t.id",
        (run_id,),
    )
    rows = [sqlite3.Row(cursor, row) for row in cursor]
    samples = _samples(db, run_id)
    return tuple(_trial(row, tuple(samples.get(row["id"], ()))) for row in rows)


def _notes(trial: Trial) -> str | None:
    if trial.failure is not None or trial.vetoed is not None:
        return bounded(trial.failure.reason if trial.failure else trial.vetoed or "")
    remarks = sorted({remark for replicate in trial.replicates for remark in replicate.remarks})
    return bounded("; ".join(remarks)) or None


def _trial(row: sqlite3.Row, samples: tuple[Replicate, ...]) -> Trial:
    knobs = [row[knob.column] for knob in TABLE]
    whole = all(
        value is not None or knob.optional for knob, value in zip(TABLE, knobs, strict=True)
    )
    kind, pressure = row["failure_kind"], row["worst_pressure"] or "normal"
    failure = Failure(FailureKind(kind), row["failure_reason"]) if kind else None
    if row["rank"] is None and not row["fits"]:  # a prototype's: its reason is only in the notes
        failure = Failure(FailureKind.GATE, row["notes"] or "")
    extra = tuple(map(tuple, json.loads(row["extra_knobs_json"] or "[]")))
    return Trial(
        stage=row["stage"],
        model=row["model"],
        rank=row["rank"] or 0,
        knobs=Knobs(*knobs)._replace(extra=extra) if whole else None,
        replicates=samples,
        failure=failure,
        tps_median=row["agg_throughput_tps"],
        ttft_p95_ms=row["ttft_p95_ms"],
        load_ms=row["load_ms"],
        kept=bool(row["kept"]),
        strain=ResourceUsage(row["peak_rss_bytes"], pressure, row["nice"], row["priority"]),
        conditions=_conditions(row["conditions_json"]),
        spent=PhaseTimings(*(row[column] for column in _SPENT_COLUMNS)),
        started_at=row["started_at_utc"] or row["ts_utc"],
        ended_at=row["ts_utc"],
        concurrency=row["concurrency"] or 1,
        itl_p50_ms=row["itl_p50_ms"],
        itl_p95_ms=row["itl_p95_ms"],
        calibrates=row["calibrates"],
        context=row["target_context"] if row["calibrates"] else None,
        confirms=bool(row["confirms"]),
        profile=row["profile"],
        serve_argv=tuple(json.loads(row["serve_argv_json"] or "[]")),
        answers=tuple(map(tuple, json.loads(row["answers_json"] or "[]"))),
        vetoed=row["vetoed"],
    )


def _samples(db: sqlite3.Connection, run_id: str) -> Mapping[int, Sequence[Replicate]]:
    """The samples of a run's trials, by trial."""
    names = ", ".join(_SAMPLE_FIELDS)
    rows = db.execute(
        f"SELECT trial_id, remarks_json, {names} FROM samples "
        "WHERE trial_id IN (SELECT id FROM tune_trials WHERE run_id = ?) ORDER BY trial_id, idx",
        (run_id,),
    )
    found: dict[int, list[Replicate]] = {}
    for trial_id, remarks, *values in rows:
        fields = dict(zip(_SAMPLE_FIELDS, values, strict=True))
        for name in ("alive_after", "gate_missed"):
            fields[name] = bool(fields[name])
        found.setdefault(trial_id, []).append(
            Replicate(**fields, remarks=tuple(json.loads(remarks)))
        )
    return found


def _conditions(text: str | None) -> Conditions:
    fields = json.loads(text or "{}")
    return Conditions(**{**fields, "busiest": tuple(fields.get("busiest", ()))})
