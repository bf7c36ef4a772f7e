"""Prompts hit their length in tokens whatever the model's tokens are like, and are never the same twice."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from autotuned.engine.measure.prompt import Calibration, first_line, prose, text_of


@given(
    rate=st.floats(1.2, 8.0),
    overhead=st.integers(0, 300),
    target=st.integers(1000, 40_000),
    seed=st.integers(0, 9),
)
def test_after_the_warm_up_and_at_most_one_repeat_every_prompt_is_within_2_percent_and_never_above(
    rate: float, overhead: int, target: int, seed: int
) -> None:
    source, known = random.Random(seed), Calibration(target)

    def tokens(prompt: str) -> int:
        return int(len(prompt) / rate) + overhead

    warm = known.warmup_prompt()
    known.learn(len(warm), tokens(warm))
    first = known.prompt(source)
    known.learn(len(first), tokens(first))
    if known.should_repeat(tokens(first)):
        assert not known.should_repeat(tokens(first))  # once a model
    for _ in range(3):
        prompt = known.prompt(source)
        assert 0.98 * target <= tokens(prompt) <= target
        known.learn(len(prompt), tokens(prompt))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.none() | st.integers(-5, 10**7)), max_size=6))
def test_whatever_a_server_counts_a_prompt_comes_out(
    observed: list[tuple[int, int | None]],
) -> None:
    known = Calibration(500)
    for characters, count in observed:
        known.learn(characters, count)
        known.should_repeat(count)
    prompt = known.prompt(random.Random(1))
    assert prompt
    assert len(prompt) <= 500 * 16 + 200  # its own first line, and the last word whole
    assert known.warmup_prompt()


def test_a_prompt_never_begins_like_another() -> None:
    source = random.SystemRandom()
    lines = {first_line(source) for _ in range(500)}
    assert len(lines) == 500
    assert len({len(line) for line in lines}) == 1


@given(st.integers(0, 100_000))
def test_prose_has_its_length_to_the_character(characters: int) -> None:
    assert len(prose(characters)) == characters
    assert text_of(characters, None).startswith(prose(min(characters, 50)) or "Hello.")
