"""Prompts hit their length in tokens whatever the model's tokens are like, and are never the same twice."""

from __future__ import annotations

import random
from collections.abc import Callable

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


@given(
    rate=st.floats(2.5, 6.0),
    share=st.floats(0.0, 0.5),
    target=st.integers(400, 40_000),
    limit=st.floats(1.03, 1.1),
)
def test_a_template_of_any_size_and_refusals_without_a_count_are_learned_from(
    rate: float, share: float, target: int, limit: float
) -> None:
    """A server refuses beyond its limit, template included, and counts only what it takes."""
    source, known = random.Random(1), Calibration(target)
    counted: list[int] = []

    def ask(make: Callable[[], str]) -> int:
        for _ in range(6):
            prompt = make()
            tokens = int(len(prompt) / rate + share * target)
            if tokens <= limit * target:
                known.learn(len(prompt), tokens)
                return tokens
            assert known.may_shrink(len(prompt))
        raise AssertionError

    ask(known.warmup_prompt)
    for _ in range(3):
        tokens = ask(lambda: known.prompt(source))
        if known.should_repeat(tokens):
            tokens = ask(lambda: known.prompt(source))
        counted.append(tokens)
    assert all(0.98 * target <= tokens <= target for tokens in counted)


def test_a_refusal_of_the_right_length_is_the_servers_answer_in_the_end() -> None:
    known = Calibration(2000)
    known.learn(400, 100)
    refused, prompt = 0, ""
    for _ in range(10):
        prompt = known.prompt(random.Random(1))
        if len(prompt) <= 4000:
            known.learn(len(prompt), len(prompt) // 4)
            assert known.should_repeat(len(prompt) // 4)
        elif known.may_shrink(len(prompt)):
            refused += 1
        else:
            break
    assert refused == 2  # the first guess, and one shorter prompt; then the length was known
    assert 0.98 * 2000 <= len(prompt) / 4 <= 2000


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
