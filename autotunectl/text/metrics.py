"""The agent's state in the Prometheus text format (0.0.4), for the node exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from autotunectl.text import provider
from autotuned.shared.knobs import listed, shown

PREFIX = "autotuned_"
NONE: Mapping[str, str] = {}


def text(samples: Iterable[Mapping[str, Any]]) -> str:
    """One page of them."""
    lines: list[str] = []
    for each in samples:
        name = each["name"]
        if f"# TYPE {name} gauge" not in lines:
            lines += [f"# HELP {name} {each['help']}", f"# TYPE {name} gauge"]
        inside = ",".join(f'{key}="{_escaped(word)}"' for key, word in each["labels"].items())
        labels = f"{{{inside}}}" if inside else ""
        lines.append(f"{name}{labels} {each['value']!r}")
    return "\n".join(lines)


def samples(
    status: Mapping[str, Any] | None, best: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Gauges: `status` as the agent gave it (None: no agent answers), `best` the newest good result."""
    return list(_samples(status, best))


def _sample(
    name: str, help_text: str, value: float, labels: Mapping[str, str] = NONE
) -> dict[str, Any]:
    """`value` as a number: what is true is 1."""
    number = float(value) if isinstance(value, bool) else value
    return {"name": PREFIX + name, "help": help_text, "value": number, "labels": labels}


def _samples(
    status: Mapping[str, Any] | None, best: Mapping[str, Any] | None
) -> Iterator[dict[str, Any]]:
    yield _sample("up", "Whether the agent answers.", status is not None)
    if status is None:
        return
    agent = {"version": status["daemon"]["version"], "protocol": str(status["daemon"]["protocol"])}
    yield _sample("build_info", "The agent that answers.", 1.0, agent)
    yield from _of_runs(status.get("run"))
    yield from _of_the_recipe(best)
    stale = status.get("stale") or {}
    changed = "Whether the machine has changed since the last good run."
    yield _sample("stale", changed, bool(stale.get("stale")))
    yield _sample(
        "never_tuned", "Whether there is no good run yet.", bool(stale.get("never_tuned"))
    )
    owed = provider.owed(status)
    yield _sample(
        "restore_outstanding", "Whether a live provider is still to be brought back.", owed
    )
    schedule = status.get("schedule") or {}
    on, paused = bool(schedule.get("enabled")), bool(schedule.get("paused"))
    yield _sample("schedule_enabled", "Whether the nightly re-tune is on.", on)
    yield _sample("schedule_paused", "Whether it has paused itself after failures.", paused)
    if schedule.get("next_run_at"):
        due = _seconds(schedule["next_run_at"])
        yield _sample("schedule_next_run_timestamp_seconds", "When it is due next.", due)


def _of_runs(run: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    running = run is not None and run["state"] == "running"
    yield _sample("run_active", "Whether a run is in progress.", running)
    if run is None or running:
        return
    labels = {"run_id": run["run_id"], "exit_reason": run["exit_reason"], "trigger": run["trigger"]}
    yield _sample("last_run_info", "How the last run ended.", 1.0, labels)
    ok = run["exit_reason"] == "ok"
    yield _sample("last_run_ok", "Whether it ended with a recommendation.", ok)
    if run.get("ended_at"):
        yield _sample("last_run_end_timestamp_seconds", "When it ended.", _seconds(run["ended_at"]))


def _of_the_recipe(best: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
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
    yield _sample("recommendation_info", "The last good recommendation.", 1.0, labels)
    tps, ttft_s = answer["tps_median"], answer["ttft_p95_ms"] / 1000
    yield _sample("recommendation_tokens_per_second", "Its median, end to end.", tps)
    yield _sample("recommendation_ttft_p95_seconds", "Its time to the first token.", ttft_s)
    calibration = best.get("calibration") or {}
    streams = (calibration.get("concurrency") or {}).get("recommended")
    if streams is not None:
        yield _sample("recommended_concurrency", "Requests at once that are worth it.", streams)
    tokens = (calibration.get("context") or {}).get("answer")
    if tokens is not None:
        yield _sample("useful_context_tokens", "The longest useful context.", tokens)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
