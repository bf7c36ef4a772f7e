"""Which configurations are not started again after the machine went down with one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from autotuned.core.model import FailureKind
from autotuned.core.quarantine import Configuration, Entry, parse, refusal
from autotuned.shared.knobs import Knobs

CELL = Configuration("mlx-lm", "0.31", "acme/Big", Knobs(8, 2, 8000), 4000)
PROBE = dataclasses.replace(CELL, knobs=None)


def entry(down: Configuration) -> Entry:
    return Entry(down, "2026-03-01T03:31:00Z", "r1", "boot-1", "boot-2", 7)


@pytest.mark.parametrize(
    ("down", "wanted", "refused"),
    [
        (CELL, CELL, True),
        (CELL, dataclasses.replace(CELL, model="ACME/big"), True),
        (CELL, dataclasses.replace(CELL, context=4001), True),
        (CELL, dataclasses.replace(CELL, knobs=Knobs(8, 2, 8001)), True),
        (CELL, dataclasses.replace(CELL, context=3999), False),
        (CELL, dataclasses.replace(CELL, knobs=Knobs(8, 2, 7999)), False),
        (CELL, dataclasses.replace(CELL, knobs=Knobs(8, 1, 8000)), False),
        (CELL, dataclasses.replace(CELL, binary_version="0.32"), False),
        (CELL, dataclasses.replace(CELL, provider="llama-server"), False),
        (CELL, dataclasses.replace(CELL, model="acme/small"), False),
        (CELL, PROBE, False),
        (PROBE, CELL, False),
        (PROBE, PROBE, True),
        (PROBE, dataclasses.replace(PROBE, context=8000), True),
        (PROBE, dataclasses.replace(PROBE, context=1000), False),
    ],
)
def test_the_same_and_larger_contexts_are_refused_and_nothing_else(
    down: Configuration, wanted: Configuration, refused: bool
) -> None:
    failure = refusal([entry(down)], wanted)
    assert (failure is not None) is refused
    if failure is not None:
        assert failure.kind is FailureKind.QUARANTINE
        assert failure.reason == "quarantined: the machine went down while it ran on 2026-03-01"


def test_without_an_entry_everything_may_be_started() -> None:
    assert refusal([], CELL) is None


@pytest.mark.parametrize(
    "down",
    [
        CELL,
        PROBE,
        dataclasses.replace(CELL, knobs=Knobs(None, 1, 8000, (("threads", 4),))),
    ],
)
def test_what_is_written_down_is_read_as_it_was(down: Configuration) -> None:
    assert parse(json.loads(json.dumps(down.document()))) == down
    shown = entry(down).document()
    assert (shown["entry"], shown["at"]) == (7, "2026-03-01T03:31:00Z")
    assert parse(shown) == down
