"""The agent's state in the Prometheus text format (0.0.4), for the node exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from autotunectl.text import provider
from autotuned.shared.knobs import listed, shown

Sample = tuple[str, str, float, Mapping[str, str]]
"""Name without the prefix, help, value, labels. Every metric is a gauge."""

PREFIX = "autotuned_"


def text(status: Mapping[str, Any] | None, best: Mapping[str, Any] | None) -> str:
    """One page: `status` as the agent gave it (None: no agent answers), `best` the newest good result."""
    lines: list[str] = []
    told: set[str] = set()
    for name, help_text, value, labels in _samples(status, best):
        if name not in told:
            told.add(name)
            lines += [f"# HELP {PREFIX}{name} {help_text}", f"# TYPE {PREFIX}{name} gauge"]
        inside = ",".join(f'{key}="{_escaped(word)}"' for key, word in labels.items())
        lines.append(
            f"{PREFIX}{name}{{{inside}}} {value!r}" if inside else f"{PREFIX}{name} {value!r}"
        )
    return "\n".join(lines)


def samples(
    status: Mapping[str, Any] | None, best: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {"name": PREFIX + name, "help": help_text, "value": value, "labels": labels}
        for name, help_text, value, labels in _samples(status, best)
    ]


def _samples(status: Mapping[str, Any] | None, best: Mapping[str, Any] | None) -> Iterator[Sample]:
    yield "up", "Whether the agent answers.", float(status is not None), {}
    if status is None:
        return
    agent = {"version": status["daemon"]["version"], "protocol": str(status["daemon"]["protocol"])}
    yield "build_info", "The agent that answers.", 1.0, agent
    yield from _of_runs(status.get("run"))
    yield from _of_the_recipe(best)
    stale = status.get("stale") or {}
    yield (
        "stale",
        "Whether the machine has changed since the last good run.",
        _flag(stale.get("stale")),
        {},
    )
    yield "never_tuned", "Whether there is no good run yet.", _flag(stale.get("never_tuned")), {}
    owed = _flag(provider.owed(status))
    yield "restore_outstanding", "Whether a live provider is still to be brought back.", owed, {}
    schedule = status.get("schedule") or {}
    yield (
        "schedule_enabled",
        "Whether the nightly re-tune is on.",
        _flag(schedule.get("enabled")),
        {},
    )
    yield (
        "schedule_paused",
        "Whether it has paused itself after failures.",
        _flag(schedule.get("paused")),
        {},
    )
    if schedule.get("next_run_at"):
        due = _seconds(schedule["next_run_at"])
        yield "schedule_next_run_timestamp_seconds", "When it is due next.", due, {}


def _of_runs(run: Mapping[str, Any] | None) -> Iterator[Sample]:
    yield "run_active", "Whether a run is in progress.", _flag(_running(run)), {}
    if run is None or _running(run):
        return
    labels = {"run_id": run["run_id"], "exit_reason": run["exit_reason"], "trigger": run["trigger"]}
    yield "last_run_info", "How the last run ended.", 1.0, labels
    yield (
        "last_run_ok",
        "Whether it ended with a recommendation.",
        _flag(run["exit_reason"] == "ok"),
        {},
    )
    if run.get("ended_at"):
        yield "last_run_end_timestamp_seconds", "When it ended.", _seconds(run["ended_at"]), {}


def _of_the_recipe(best: Mapping[str, Any] | None) -> Iterator[Sample]:
    answer = best and best.get("recommendation")
    if best is None or not answer:
        return
    knobs = answer["knobs"]
    labels = {
        "model": answer["model"],
        **{knob.name: shown(value) for knob, value in listed(knobs)},
        "recipe_hash": best.get("recipe_hash") or "",
        "run_id": best["run_id"],
    }
    yield "recommendation_info", "The last good recommendation.", 1.0, labels
    tps, ttft_s = answer["tps_median"], answer["ttft_p95_ms"] / 1000
    yield "recommendation_tokens_per_second", "Its median, end to end.", tps, {}
    yield "recommendation_ttft_p95_seconds", "Its time to the first token.", ttft_s, {}
    calibration = best.get("calibration") or {}
    streams = (calibration.get("concurrency") or {}).get("recommended")
    if streams is not None:
        yield "recommended_concurrency", "Requests at once that are worth it.", streams, {}
    tokens = (calibration.get("context") or {}).get("answer")
    if tokens is not None:
        yield "useful_context_tokens", "The longest useful context.", tokens, {}


def _running(run: Mapping[str, Any] | None) -> bool:
    return run is not None and run["state"] == "running"


def _flag(value: Any) -> float:
    return 1.0 if value else 0.0


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
