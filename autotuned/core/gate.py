"""The gate: the yes/no test that makes a trial feasible, the same in both stages.

Strict: one failed replicate makes a trial infeasible, whatever the others say.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotuned.core.model import CUT_WITH_WAVE, Failure, FailureKind, Replicate
from autotuned.core.stats import p95_nearest_rank
from autotuned.shared.text import one_line

REASON_MAX = 480

STOP_TOKENS = (
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "</s>",
    "<end_of_turn>",
    "<|return|>",
)
"""What no visible answer may hold, whatever the model; its own special tokens come on top."""


def stop_tokens(special: Sequence[str]) -> tuple[str, ...]:
    """The usual list and a model's own special tokens; those that are blanks alone are layout, and no leak."""
    return (*STOP_TOKENS, *(token for token in special if token.strip()))


def judge(replicates: Sequence[Replicate], gate_ttft_ms: float) -> Failure | None:
    """None when feasible, else why not. TTFT is judged by its p95 in milliseconds."""
    reason = _reason(replicates, gate_ttft_ms)
    return Failure(FailureKind.GATE, bounded(reason)) if reason else None


def is_final(replicate: Replicate) -> bool:
    """True when measuring on can teach nothing: the provider died, or the gate was missed."""
    return replicate.gate_missed or not replicate.alive_after


def bounded(reason: str) -> str:
    """`reason` on one line of at most 480 characters; halves of characters, and what a terminal acts upon, replaced.

    A server chooses its words, and these are shown to people.
    """
    line = one_line(reason, lost="?")
    return line if len(line) <= REASON_MAX else line[: REASON_MAX - 3] + "..."


def _reason(replicates: Sequence[Replicate], gate_ttft_ms: float) -> str | None:
    if not replicates:
        return "no request was measured"
    errors = [
        error
        for error in (replicate.error for replicate in replicates)
        if error is not None and error != CUT_WITH_WAVE
    ]
    if errors:
        count = (
            f"{len(errors)} of {len(replicates)} requests failed: " if len(replicates) > 1 else ""
        )
        return count + errors[0]
    if not all(replicate.alive_after for replicate in replicates):
        return "the provider answered and then died"
    leaked = [
        replicate.leaked_token for replicate in replicates if replicate.leaked_token is not None
    ]
    if leaked:
        return f"stop token leaked into the answer: {leaked[0]}"
    p95 = p95_nearest_rank([replicate.ttft_ms or 0.0 for replicate in replicates])
    if p95 > gate_ttft_ms:
        return f"TTFT p95 {p95:.0f} ms is above the gate of {gate_ttft_ms:.0f} ms"
    return None
