"""What a run says about its own doubts: each a sentence among the warnings of its document. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from autotuned.core import load, noise, quality
from autotuned.core.model import STAGE_CLIMB, MachineFacts, Trial
from autotuned.core.pipeline import Finish, best_so_far
from autotuned.core.plan import Plan
from autotuned.core.stats import median
from autotuned.shared.knobs import UNSET, Knobs

BUSY = 0.2
"""A share of the processors that other programs take, from which the machine counts as busy."""
STRAY, STRAY_MS = 0.15, 50.0
"""Replicates of one cell that stray by more, and by more than any timer's own fault."""
NEARLY_ALL = 0.9
LENGTH_SHARE = 0.1
"""Answers that differ in length by more are not compared by end-to-end tokens per second without a word."""


def of_run(
    plan: Plan,
    facts: MachineFacts,
    history: Sequence[Trial],
    finish: Finish,
) -> list[str]:
    best = finish.best
    if best is None:
        return busy(history)
    warnings = [*load.skew_warning(history), *_pressure(best, facts), *busy(history)]
    warnings += tie(history, plan.request.tps_tie_epsilon)
    mode = plan.request.quality
    found = None if mode == "off" else quality.document(mode, history)
    warnings += quality.warnings(found, best.knobs)
    if best.knobs is not None and (found is None or found["reason"] is not None):
        warnings += not_compared(best.knobs, plan.lossy)
    warnings += sorted({remark for each in best.replicates for remark in each.remarks})
    if finish.partial:
        warnings.append("the recommendation is partial: not every cell was measured")
    return [*warnings, *uneven_lengths(best, history)]


def _pressure(best: Trial, facts: MachineFacts) -> Iterable[str]:
    strain = best.strain
    if strain.worst_pressure != "normal":
        yield f"memory pressure reached {strain.worst_pressure}: the model may fail on a busier day"
    if strain.peak_rss_bytes is not None and strain.peak_rss_bytes > NEARLY_ALL * facts.ram_bytes:
        share = strain.peak_rss_bytes / facts.ram_bytes
        yield f"the model took {share:.0%} of memory: it may fail on a busier day"


def not_compared(knobs: Knobs, lossy: Collection[str]) -> list[str]:
    """That answers with these knobs may not be those without them."""
    return [
        f"{name} {value} is lossy and its answers were not compared with those of {UNSET}: start --quality veto"
        for name, value in knobs.chosen().items()
        if name in lossy
    ]


def tie(history: Sequence[Trial], epsilon: float) -> list[str]:
    """That noise explains the winner's lead, and what the rule of the lower TTFT has made of that."""
    best, second = best_so_far(history), noise.runner_up(history)
    lead = noise.of_run(history).get("lead")
    if best is None or second is None or lead is None or lead["verdict"] not in noise.TIES:
        return []
    interval = "" if lead["low"] is None else f", {lead['low']:+.1%} to {lead['high']:+.1%}"
    sides = f"the best cell against {second.knobs}: {lead['relative']:+.1%}{interval}"
    first, later = sorted((best, second), key=history.index)  # as they were compared
    within = abs((later.tps_median or 0.0) / (first.tps_median or 1.0) - 1) <= epsilon
    ours, theirs = best.ttft_p95_ms or 0.0, second.ttft_p95_ms or 0.0
    rule = f"beyond {epsilon:.0%} the faster one is chosen"
    if within and ours < theirs:
        rule = f"within {epsilon:.0%} the lower TTFT decides, {ours:.0f} against {theirs:.0f} ms"
    elif within:
        rule = f"within {epsilon:.0%}, and without a lower TTFT, the one measured first stays"
    if lead["verdict"] == "tie":
        return [f"a tie: noise explains the difference ({sides}); {rule}"]
    return [f"the runner-up is the faster cell ({sides}); {rule}"]


def busy(history: Sequence[Trial]) -> list[str]:
    """That other programs took a part of the machine, or that requests of one cell were answered unevenly."""
    measured = [trial for trial in history if trial.replicates]
    share, names = max(
        ((trial.conditions.others_share or 0.0, trial.conditions.busiest) for trial in measured),
        default=(0.0, ()),
    )
    strays = [(stray(trial), trial) for trial in measured if trial.stage == STAGE_CLIMB]
    worst, cell = max(strays, key=lambda each: each[0], default=(0.0, None))
    others = f"other programs took up to {share:.0%} of the processors"
    if names:
        others += f" ({', '.join(names)})"
    if worst > STRAY and cell is not None:
        return [f"requests of one cell ({cell.knobs}) stray by {worst:.0%}: {others}"]
    return [f"the machine was busy: {others}"] if share > BUSY else []


def stray(trial: Trial) -> float:
    """How far a request is from its cell's median, relative; 0 where that is no more than a few milliseconds.

    Of several at once a whole wave is: that its streams wait for one another is no doubt.
    """
    good = [each for each in load.waves(trial.replicates) if load.aggregate_tps(each) is not None]
    took = [load.took_ms(each) for each in good]
    tps = load.figures(trial.replicates)
    if len(tps) < 2 or max(took) - min(took) <= STRAY_MS:
        return 0.0
    middle = median(tps)
    return max(abs(value / middle - 1) for value in tps)


def same_length(a: float | None, b: float | None) -> bool:
    """Whether answers of so many tokens may be compared end to end; one that is not known may be."""
    return a is None or b is None or abs(a - b) <= LENGTH_SHARE * max(a, b)


def answer_tokens(trial: Trial) -> float | None:
    """The median length of a trial's answers; None where there is none."""
    counts = [r.completion_tokens for r in trial.replicates if r.completion_tokens is not None]
    return median(counts) if counts else None


def uneven_lengths(best: Trial, history: Sequence[Trial]) -> list[str]:
    """A warning where answers of other feasible cells are longer or shorter than those of the best cell.

    The end-to-end rate of a short answer is mostly prefill, so that it says little of a longer one.
    """
    wanted = answer_tokens(best)
    cells = [trial for trial in history if trial.stage == STAGE_CLIMB and trial.fits]
    others = sorted({answer_tokens(cell) or 0 for cell in cells})
    uneven = [f"{count:g}" for count in others if count and not same_length(wanted, count)]
    if not uneven:
        return []
    return [
        f"answers differ in length: {wanted:g} tokens in the best cell, {', '.join(uneven)} in others; "
        "end to end tok/s do not compare, set decode and prefill tok/s beside each other"
    ]
