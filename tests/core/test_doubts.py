"""What a run says about its own doubts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core import doubts
from autotuned.core.model import (
    STAGE_CLIMB,
    STAGE_SELECTION,
    Conditions,
    MachineFacts,
    Replicate,
    ResourceUsage,
    Trial,
)
from autotuned.core.pipeline import Finish
from autotuned.documents.result import ExitReason
from autotuned.shared.knobs import Knobs
from tests.core.test_quality import BASELINE, asked
from tests.core.test_quality import LOSSY as BITS
from tests.core.worlds import GOOD, cell, planned
from tests.support.battery import answers

FACTS = MachineFacts(16, "Apple M2", "macOS 15.1", 16 * 2**30)
LOSSY = frozenset({"kv_bits"})


def trial(
    *tps: float,
    knobs: Knobs | None = None,
    ttft: float = 100.0,
    kept: bool = False,
    total_ms: float = 4800.0,
) -> Trial:
    """A cell with these requests."""
    samples = tuple(
        Replicate(tps=each, ttft_ms=ttft, total_ms=total_ms * 10 / each) for each in tps
    )
    middle = sorted(tps)[len(tps) // 2]
    knobs = knobs or Knobs(None, 1, 2000)
    return Trial(STAGE_CLIMB, "m", 1, knobs, samples, None, middle, ttft, kept=kept)


def said(
    best: Trial | None, *history: Trial, compared: bool = False, partial: bool = False
) -> list[str]:
    plan = replace(planned("a-7B", quality="warn" if compared else "off"), lossy=LOSSY)
    finish = Finish(ExitReason.OK, plan.candidates[0], best, partial=partial)
    return doubts.of_run(plan, FACTS, history, finish)


def test_a_strained_machine_remarks_and_a_partial_search_are_doubts() -> None:
    plan = planned("a-7B")
    strain = ResourceUsage(peak_rss_bytes=15 * 2**30, worst_pressure="warning")
    remark = replace(GOOD, remarks=("no visible text",))
    best = replace(cell(plan, 1, 0), strain=strain, replicates=(remark, remark))
    warnings = said(best, best, partial=True)
    assert [word for word in warnings if "pressure reached warning" in word]
    assert [word for word in warnings if "94% of memory" in word]
    assert warnings.count("no visible text") == 1
    assert "partial" in warnings[-1]
    assert said(cell(plan, 1, 0)) == []
    assert said(None) == []
    assert said(replace(cell(plan, 1, 0), knobs=None)) == []


def test_a_lossy_winner_whose_answers_nobody_compared_is_a_doubt() -> None:
    best = trial(10.0, 10.0, knobs=Knobs(8, 1, 2000, (("threads", 4),)))
    warning = "kv_bits 8 is lossy and its answers were not compared with those of unset: start --quality veto"
    assert said(best) == [warning]
    assert warning in said(best, compared=True), "there was nothing to compare with"
    guarded = asked(BITS, answers())
    assert warning not in said(guarded, BASELINE, guarded, compared=True)
    assert said(trial(10.0, 10.0)) == []


A, B = Knobs(None, 1, 2000), Knobs(None, 2, 2000)


@pytest.mark.parametrize(
    ("best", "other", "words"),
    [
        (
            trial(10.0, 10.5, 9.5, knobs=A, ttft=90.0, kept=True),
            trial(10.1, 10.6, 9.6, knobs=B),
            ("a tie: noise explains", "within 2% the lower TTFT decides, 90 against 100 ms"),
        ),
        (
            trial(10.1, 10.6, 9.6, knobs=A, ttft=100.0, kept=True),
            trial(10.0, 10.5, 9.5, knobs=B),
            ("a tie: noise explains", "the one measured first stays"),
        ),
        (
            trial(11.0, 12.5, 9.5, knobs=A, kept=True),
            trial(10.0, 11.4, 8.6, knobs=B),
            ("a tie: noise explains", "beyond 2% the faster one is chosen"),
        ),
        (
            trial(10.0, 10.001, 9.999, knobs=A, ttft=90.0, kept=True),
            trial(10.15, 10.151, 10.149, knobs=B),
            ("the runner-up is the faster cell", "the lower TTFT decides"),
        ),
    ],
)
def test_a_winner_that_noise_explains_says_what_decided(
    best: Trial, other: Trial, words: tuple[str, str]
) -> None:
    (warning,) = said(best, best, other)
    assert all(word in warning for word in words)
    assert "max_batch 2" in warning


def test_the_width_of_a_tie_is_told_of_the_cell_that_was_measured_first() -> None:
    older = trial(9.9, 9.8, 10.0, knobs=B, kept=True)
    newer = trial(10.1, 9.6, 10.6, knobs=A, kept=True)
    assert older.tps_median == pytest.approx(0.98 * 10.1, abs=0.01)
    (warning,) = said(newer, older, newer)
    assert "beyond 2% the faster one is chosen" in warning


def test_a_clear_winner_and_one_that_cannot_be_told_are_no_tie() -> None:
    best, other = trial(12.0, 12.1, 11.9, kept=True), trial(10.0, 10.1, 9.9, knobs=B)
    assert said(best, best, other) == []
    assert said(best, best) == []
    single, lonely = trial(12.0, kept=True), trial(11.9, knobs=B)
    assert said(single, single, lonely) == []


def test_a_busy_machine_is_told_with_its_share_and_the_busiest_programs() -> None:
    conditions = Conditions(others_share=0.45, busiest=("backupd", "mds"))
    probe = replace(trial(10.0), stage=STAGE_SELECTION, conditions=conditions)
    assert doubts.busy([probe, trial(10.0)]) == [
        "the machine was busy: other programs took up to 45% of the processors (backupd, mds)"
    ]
    assert doubts.busy([trial(10.0)]) == doubts.busy([]) == []
    (warning,) = said(None, probe)
    assert "busy" in warning


def test_requests_that_stray_are_told_with_what_ran_beside_them() -> None:
    (warning,) = doubts.busy([trial(10.0, 8.0, 10.1)])
    assert warning.startswith(
        "requests of one cell (kv_bits unset, max_batch 1, max_context 2000) stray by 20%"
    )
    assert "took up to 0% of the processors" in warning


def test_streams_that_wait_for_one_another_do_not_stray_and_waves_that_differ_do() -> None:
    def wave(number: int, last_ms: float) -> tuple[Replicate, ...]:
        return tuple(
            Replicate(
                tps=48_000 / took,
                total_ms=took,
                ttft_ms=100.0,
                completion_tokens=48,
                wave=number,
                stream=stream,
                sent_ms=0.0,
            )
            for stream, took in ((1, 500.0), (2, last_ms))
        )

    even = replace(trial(10.0), replicates=wave(1, 1000.0) + wave(2, 1010.0), concurrency=2)
    assert doubts.busy([even]) == []
    odd = replace(even, replicates=even.replicates + wave(3, 1500.0))
    (warning,) = doubts.busy([odd])
    assert "stray by 33%" in warning


@pytest.mark.parametrize(
    "even",
    [
        trial(10.0, 9.0, 10.1),
        trial(10.0, 5.0, total_ms=40.0),
        trial(10.0),
        replace(
            trial(10.0, 5.0),
            replicates=(Replicate(error="HTTP 500"), Replicate(tps=1.0), Replicate(tps=2.0)),
        ),
    ],
    ids=["within 15 %", "a few milliseconds", "one request", "no durations"],
)
def test_requests_that_do_not_stray_are_not_told_of(even: Trial) -> None:
    assert doubts.stray(even) <= doubts.STRAY
    assert doubts.busy([even]) == []
