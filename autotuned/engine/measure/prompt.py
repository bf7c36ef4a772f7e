"""Prompts of real prose: an exact number of tokens, and never the same prompt twice.

Two things of a model are learned, from the warm-up and then from each replicate: its characters per
token, and how many tokens its chat template adds. That takes prompts of two lengths. The prose always
runs in the same order behind a first line that is new each time, so that no prompt cache helps and what
was learned of one prompt holds for the next.
"""

from __future__ import annotations

import random
from importlib import resources

GUESS = 4.0
"""Characters per token where nothing plausible was learned."""
PLAUSIBLE_CHARACTERS = (0.5, 16.0)
PLAUSIBLE_OVERHEAD = 0.75
"""Of the target: what a chat template may add around the prompt. Templates of 1,000 tokens are in use."""
REFUSALS = 3
"""So often a model's prompt may be refused for its length, each time for a shorter one, until its length is learned."""
BAND = 0.02
AIM = 0.993
"""Of the target: inside the band, with room above for what differs between first lines."""
QUESTION_TOKENS = 100
HAYSTACK_SHARE, HAYSTACK_STEP = 0.95, 500
"""What differs between two measurements of a token's length must not make another text of it."""
WARMUP_TOKENS = 32
FIRST_WARMUP_TOKENS = (64, 600)


class Calibration:
    """What is known of one model's token lengths, for prompts of `target` tokens."""

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self._observed: dict[int, int] = {}
        self._repeated = False
        self._refusals = REFUSALS
        self._most: int | None = None
        """Characters of the next prompt at most, after a refusal."""

    def aim(self, target: int) -> None:
        if target != self.target:
            self.target, self._repeated, self._refusals, self._most = target, False, REFUSALS, None

    def learn(self, characters: int, tokens: int | None) -> None:
        """A prompt of so many characters was counted as so many tokens, template included."""
        if tokens is not None and tokens > 0:
            self._observed.pop(characters, None)
            self._observed[characters] = tokens
            self._most = None

    def may_shrink(self, characters: int) -> bool:
        """A prompt of so many characters was refused for its length: True when a shorter one may teach more."""
        if self._refusals == 0 or self._repeated:
            return False
        self._refusals -= 1
        taken = max((known for known in self._observed if known < characters), default=0)
        self._most = (taken + characters) // 2
        return True

    def warmup_prompt(self, source: random.Random | None = None) -> str:
        """A short prompt; the very first one is longer, because it teaches how long tokens are."""
        tokens = WARMUP_TOKENS
        if not self._observed:
            low, high = FIRST_WARMUP_TOKENS
            tokens = min(high, max(low, self.target // 4))
        return text_of(self._bounded(tokens * GUESS), source)

    def prompt(self, source: random.Random) -> str:
        """Prose of the target's length in tokens, never above, behind a first line that is new."""
        overhead, characters = self._line()
        return text_of(self._bounded((self.target * AIM - overhead) * characters), source)

    def haystack(self) -> str:
        """Prose with room for a question within the target's length; equal for all cells of a model."""
        overhead, characters = self._line()
        most = (self.target - overhead - QUESTION_TOKENS) * characters * HAYSTACK_SHARE
        return prose(self._bounded(most // HAYSTACK_STEP * HAYSTACK_STEP))

    def _bounded(self, characters: float) -> int:
        return int(characters if self._most is None else min(characters, self._most))

    def should_repeat(self, tokens: int | None) -> bool:
        """True at most once: the prompt missed the band, and the miss has taught how to hit it."""
        if tokens is None or self._repeated or (1 - BAND) * self.target <= tokens <= self.target:
            return False
        if len(self._observed) < 2 or self._two_points() is None:
            return False
        self._repeated = True
        return True

    def _line(self) -> tuple[float, float]:
        """Overhead in tokens, and characters per token: tokens = overhead + characters / this."""
        found = self._two_points()
        if found is not None:
            return found
        if self._observed:
            characters, tokens = max(self._observed.items())
            if PLAUSIBLE_CHARACTERS[0] <= characters / tokens <= PLAUSIBLE_CHARACTERS[1]:
                return 0.0, characters / tokens
            overhead = tokens - characters / GUESS
            if 0.0 <= overhead <= PLAUSIBLE_OVERHEAD * self.target:
                return overhead, GUESS
        return 0.0, GUESS

    def _two_points(self) -> tuple[float, float] | None:
        """The line through the latest observation and the one most unlike it; None where that makes no sense."""
        if len(self._observed) < 2:
            return None
        last, last_tokens = next(reversed(self._observed.items()))
        other = max(self._observed, key=lambda characters: abs(characters - last))
        spread = last_tokens - self._observed[other]
        if spread == 0 or abs(last - other) < WARMUP_TOKENS:
            return None
        characters = (last - other) / spread
        overhead = last_tokens - last / characters
        if not PLAUSIBLE_CHARACTERS[0] <= characters <= PLAUSIBLE_CHARACTERS[1]:
            return None
        if not -BAND * last_tokens <= overhead <= PLAUSIBLE_OVERHEAD * self.target:
            return None
        return overhead, characters


def text_of(characters: int, source: random.Random | None) -> str:
    """Prose of exactly `characters` characters (at least one line), with a random first line from `source`."""
    first = "" if source is None else first_line(source)
    return (first + prose(max(0, characters - len(first)))) or "Hello."


def first_line(source: random.Random) -> str:
    """A sentence of constant length that no earlier prompt began with."""
    word = "".join(source.choice("bdfglmnprst") + source.choice("aeiou") for _ in range(4))
    return f"Note {source.randrange(10**8):08d} from {word}: please read the following and continue it.\n"


def prose(characters: int) -> str:
    """The first `characters` characters of an endless text; each pass begins at another paragraph."""
    text = resources.files("autotuned.engine.measure").joinpath("prose.txt").read_text("utf-8")
    paragraphs = [
        paragraph.replace("\n", " ").strip() + "\n\n"
        for paragraph in text.split("\n\n")
        if paragraph.strip()
    ]
    passes = characters // sum(map(len, paragraphs)) + 1
    shifts = (turn % len(paragraphs) for turn in range(passes))
    made = ("".join(paragraphs[shift:] + paragraphs[:shift]) for shift in shifts)
    return "".join(made)[:characters]
