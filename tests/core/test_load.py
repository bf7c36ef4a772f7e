"""Waves out of streams, and what they come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core import gate, load
from autotuned.core.model import CUT_WITH_WAVE, Replicate, Trial
from autotuned.core.request import parse
from autotuned.errors import ConfigError


def stream(
    wave: int | None,
    number: int = 1,
    tps: float = 50.0,
    sent_ms: float = 0.0,
    ttft_ms: float = 100.0,
) -> Replicate:
    """48 tokens in 960 ms at 50 tok/s."""
    return Replicate(
        tps=tps,
        ttft_ms=ttft_ms,
        total_ms=48_000 / tps,
        completion_tokens=48,
        wave=wave,
        stream=wave and number,
        sent_ms=None if wave is None else sent_ms,
    )


def trial(*replicates: Replicate) -> Trial:
    return Trial(2, "m", 1, None, replicates, None)


def test_requests_one_at_a_time_are_waves_of_their_own() -> None:
    alone = [stream(None, tps=50), stream(None, tps=60), Replicate(error="HTTP 500")]
    assert [len(wave) for wave in load.waves(alone)] == [1, 1, 1]
    assert load.figures(alone) == [50, 60]
    assert trial(*alone).waves_n == 3
    assert load.fairness(trial(*alone)) is None
    assert load.dispatch_skew_ms(trial(*alone)) is None


def test_a_wave_has_the_tokens_of_all_streams_over_its_whole_time() -> None:
    one, other = stream(1, 1, tps=50), stream(1, 2, tps=40, sent_ms=3.0)
    assert load.aggregate_tps([one, other]) == pytest.approx(96 / 1.203)
    both = trial(one, other, stream(2, 1), stream(2, 2))
    assert (both.waves_n, len(load.figures(both.replicates))) == (2, 2)
    assert load.fairness(both) == 0.8
    assert load.dispatch_skew_ms(both) == 3.0


def test_a_wave_with_a_failed_stream_has_no_rate_and_its_error_is_the_one_that_decided() -> None:
    cut = Replicate(error=CUT_WITH_WAVE, ttft_ms=90.0, wave=1, stream=1)
    bad = Replicate(error="HTTP 500", wave=1, stream=2)
    assert load.figures([cut, bad]) == []
    assert load.ttft_p95_ms([cut, bad]) is None
    assert load.fairness(trial(cut, bad)) is None
    assert trial(cut, bad).n_err == 1
    failure = gate.judge([cut, bad], 1000)
    assert failure is not None
    assert failure.reason == "1 of 2 requests failed: HTTP 500"


def test_of_all_streams_one_in_twenty_may_be_late() -> None:
    assert load.late_allowed(16, [], 1000) == 0
    assert load.late_allowed(48, [], 1000) == 2
    assert load.late_allowed(48, [stream(1, ttft_ms=1001)], 1000) == 1
    assert load.late_allowed(20, [stream(1, ttft_ms=1001)] * 3, 1000) == 0


def test_requests_that_were_not_sent_at_once_are_a_warning() -> None:
    assert load.skew_warning([trial(stream(1, sent_ms=5.0)), trial(stream(None))]) == []
    (warning,) = load.skew_warning([trial(stream(1, sent_ms=5.1))])
    assert "5.1 ms apart" in warning


@pytest.mark.parametrize(
    ("field", "value", "more"),
    [
        ("concurrency", 0, {}),
        ("concurrency", 257, {}),
        ("concurrency_ceiling", 0, {}),
        ("context_quantum", 0, {}),
        ("min_gain", 1.0, {}),
        ("context_ceiling", 3999, {"target_context": 4000, "calibrate_context": True}),
        ("context_ceiling", 3999, {"target_context": 4000}),
        ("ttft_ceiling_ms", 9001, {"gate_ttft_ms": 9000}),
    ],
)
def test_a_load_that_cannot_be_is_refused_by_name_value_and_rule(
    field: str, value: float, more: dict[str, object]
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse({field: value, **more})
    assert (refused.value.field, refused.value.value) == (field, value)


def test_the_ceiling_is_the_gate_where_nobody_says_less() -> None:
    assert parse({"gate_ttft_ms": 9000}).ceiling_ms == 9000
    assert parse({"ttft_ceiling_ms": 700}).ceiling_ms == 700
    assert parse({"target_context": 200_000}).context_ceiling == 131_072


def test_what_is_published_is_nothing_for_requests_one_at_a_time() -> None:
    assert load.document(trial(stream(None))) == {}
    assert load.point_document(trial(stream(None))) == {}
    both = replace(
        trial(stream(1, 1, tps=50), stream(1, 2, tps=40, sent_ms=2.0)),
        concurrency=2,
        itl_p50_ms=20.0,
        itl_p95_ms=25.0,
        calibrates="concurrency",
        context=4000,
    )
    figures = {"itl_p50_ms": 20.0, "itl_p95_ms": 25.0, "fairness": 0.8, "dispatch_skew_ms": 2.0}
    assert load.document(both) == figures
    point = {"concurrency": 2, "calibrates": "concurrency", "context": 4000, "confirms": False}
    assert load.point_document(both) == {**figures, **point}
