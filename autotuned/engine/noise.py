"""A measurement of noise as a run: which cells it repeats, and with which request.

The same engine carries it through as a tune; what differs is the plan. Must not know what the figures say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autotuned.core import check
from autotuned.core.noise import layout, runner_up
from autotuned.core.pipeline import best_so_far
from autotuned.core.plan import Plan, Repeats
from autotuned.engine.run.records import Records
from autotuned.errors import ConfigError, NotFound
from autotuned.shared.knobs import TABLE, read
from autotuned.store.runs import Details, Which

FIELD, TRIGGER, CHECK, RUN = "trigger", "noise", "check", "run_id"
SAME = (
    "gate_ttft_ms",
    "tps_tie_epsilon",
    "stage2_replicates",
    "provider",
    "static_fit_check",
    "concurrency",
)
"""Fields of the earlier run's request that a cell's figures, or the verdict on them, depend on."""


async def repetition(
    records: Records, run_id: str | None, pairs: int, idle_s: float, wishes: Mapping[str, object]
) -> tuple[dict[str, object], Repeats]:
    """The parameters of a run that repeats the best cells of `run_id`, else of the last good run.

    `wishes` are fields of a request. Raises NotFound, or ConfigError for a run that recommends nothing.
    """
    row = await records.row(run_id) if run_id is not None else await records.last_good()
    if row is None:
        message = "there is no good run whose cells could be repeated: autotunectl start"
        raise NotFound(message, run_id=None)
    history = await records.history(row.run_id)
    best, second = best_so_far(history), runner_up(history)
    if best is None or best.knobs is None:
        raise ConfigError(RUN, row.run_id, "recommends nothing: there is no cell to repeat")
    details = await records.details(row.run_id)
    params = {
        **_same(details, SAME, row.target_context, wishes),
        "candidate_models": [best.model],
        **{knob.axis: [getattr(best.knobs, knob.name)] for knob in TABLE},
        "cooldown_s": idle_s,
        "trigger": TRIGGER,
    }
    pair = layout(best.knobs, None if second is None else second.knobs)
    return params, Repeats(row.run_id, pairs, pair=pair)


async def recheck(
    records: Records, wishes: Mapping[str, object]
) -> tuple[dict[str, object], Repeats]:
    """The parameters of a run that starts the applied recipe once, else that of the last good run.

    `wishes` are fields of a request. Raises NotFound where there is neither.
    """
    row = await records.latest(Which.APPLIED) or await records.last_good()
    if row is None:
        message = "there is no good run whose recipe could be checked: autotunectl start"
        raise NotFound(message, run_id=None)
    details, history = await records.details(row.run_id), await records.history(row.run_id)
    answer, context = json.loads(row.recommendation_json or "{}"), row.target_context
    applied = details.get("applied")
    other = context if applied is None else applied.get("target_context", context)
    if other != context:
        profiles = {each["target_context"]: each for each in details.get("profiles", ())}
        answer, context = profiles[other]["recommendation"], other
        trials = await records.trials(row.run_id)
        history = tuple(trial for trial in trials if trial.profile == context)
    knobs = read(answer["knobs"])
    cell = check.cell_of(history, knobs)
    if cell is None:
        raise ConfigError(RUN, row.run_id, "has no samples of its recipe: start a new run")
    params = {
        **_same(details, SAME, cell.context or context, wishes),
        "concurrency": cell.concurrency,
        "stage2_replicates": max(1, cell.waves_n),
        "candidate_models": [answer["model"]],
        "trigger": CHECK,
    }
    return params, Repeats(row.run_id, 1, check=True, pair=(knobs,))


def _same(
    details: Details, names: Sequence[str], context: int, wishes: Mapping[str, object]
) -> dict[str, object]:
    """These fields of the earlier run's request, for this context, and what is wished instead."""
    stored = details.get("request") or {}
    params = {
        **{name: stored[name] for name in names if name in stored},
        "target_context": context,
        **{name: value for name, value in wishes.items() if value is not None},
    }
    if params.get("provider") in (None, "auto"):  # another server has another noise
        params["provider"] = details.get("provider")
    return params


def planned_again(planned: Plan, again: Repeats | None) -> Plan:
    """`planned` with the cells of a repetition. Raises ConfigError for a tune that calls itself one."""
    if again is None:
        if planned.request.trigger in (TRIGGER, CHECK):
            trigger = planned.request.trigger
            raise ConfigError(FIELD, trigger, f"belongs to the method {trigger}")
        return planned
    return replace(planned, cells=again.pair * again.pairs, repeats=again)
