"""In small: the program that a developer lets run for hours, for a minute at most."""

from __future__ import annotations

import pytest

from tests.fuzz import frames


@pytest.mark.slow
def test_no_frame_ends_the_agent_fills_its_memory_or_is_answered_by_anything_but_json_rpc() -> None:
    seen = frames.fuzz(20_000, seed=11)
    assert not seen.problems, frames.report(seen)
    assert seen.frames >= 20_000
    assert seen.latency_ms, "the client that behaves was served"
