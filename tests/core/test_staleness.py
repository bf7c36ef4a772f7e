"""What makes a recipe stale, in words; and what does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from autotuned.core.staleness import Fingerprint, Verdict, compare, repeated

THEN = Fingerprint(
    os_version="macOS 26.3",
    os_build="25D10",
    provider="macprovider",
    binary_version="macprovider-cli 1.4.0",
    chip="Apple M4",
    ram_gb=16,
    candidate_models=("acme/big-32B", "acme/small-1B"),
    target_context=2000,
)


def test_nothing_changed_is_fresh() -> None:
    verdict = compare(THEN, THEN, "r1")
    assert verdict.fresh
    assert verdict.document() == {
        "stale": False,
        "never_tuned": False,
        "reasons": [],
        "last_run_id": "r1",
    }


def test_never_tuned_is_neither_fresh_nor_stale() -> None:
    verdict = Verdict((), None)
    assert not verdict.fresh
    assert verdict.document()["stale"] is False
    assert verdict.document()["never_tuned"] is True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"os_version": "macOS 26.4"}, "macOS 26.3 -> 26.4"),
        ({"os_version": "macOS 26.4", "os_build": "25E5"}, "macOS 26.3 -> 26.4"),
        ({"os_build": "25D11"}, "macOS 26.3 build 25D10 -> 25D11"),
        ({"binary_version": "macprovider-cli 1.5.0"}, "provider macprovider-cli 1.4.0 -> 1.5.0"),
        ({"binary_version": ""}, "provider macprovider-cli 1.4.0 -> not found"),
        (
            {"provider": "mlx-lm", "binary_version": "mlx-lm 0.32"},
            "provider macprovider macprovider-cli 1.4.0 -> mlx-lm mlx-lm 0.32",
        ),
        ({"binary_version": "sha256:ab"}, "provider macprovider-cli 1.4.0 -> sha256:ab"),
        ({"chip": "Apple M5"}, "chip Apple M4 -> M5"),
        ({"ram_gb": 32}, "RAM 16 GB -> 32 GB"),
        ({"target_context": 4000}, "target context 2000 -> 4000 tokens"),
        (
            {"candidate_models": ("acme/new-70B", "acme/small-1B")},
            "candidate list: + acme/new-70B; - acme/big-32B",
        ),
        (
            {"candidate_models": ("acme/small-1B", "acme/big-32B")},
            "candidate list in another order",
        ),
        (
            {"candidate_models": (*THEN.candidate_models, "a", "b", "c", "d")},
            "candidate list: + a, b, c and 1 more",
        ),
    ],
)
def test_each_difference_is_a_reason_in_words(change: dict[str, Any], reason: str) -> None:
    verdict = compare(THEN, dataclasses.replace(THEN, **change), "r1")
    assert verdict.reasons == (reason,)
    assert verdict.document()["stale"] is True
    assert verdict.os_changed == ("os_version" in change or "os_build" in change)


@pytest.mark.parametrize(
    "change",
    [
        {"os_version": "macOS unknown"},
        {"os_build": ""},
        {"chip": ""},
        {"ram_gb": 0},
        {"candidate_models": ()},
        {"candidate_models": ("ACME/Big-32B", "acme/small-1B")},
    ],
)
def test_what_cannot_be_told_apart_is_no_difference(change: dict[str, Any]) -> None:
    assert compare(THEN, dataclasses.replace(THEN, **change), "r1").fresh
    assert compare(dataclasses.replace(THEN, **change), THEN, "r1").fresh


def test_reasons_of_the_caller_come_last() -> None:
    now = dataclasses.replace(THEN, ram_gb=8)
    assert compare(THEN, now, "r1", "refused").reasons == ("RAM 16 GB -> 8 GB", "refused")


def test_a_re_tune_repeats_the_last_good_request_but_none_of_its_consents() -> None:
    last = {
        "candidate_models": ["a"],
        "port": 1234,
        "drain": True,
        "apply": True,
        "restart_foreground": True,
        "trigger": "manual",
        "resume": "latest",
        "gone_in_this_version": 1,
    }
    assert repeated(last, {}) == {"candidate_models": ["a"], "port": 1234}
    assert repeated(last, {"port": 1})["port"] == 1


def test_fields_of_its_own_replace_those_that_they_make_meaningless() -> None:
    last = {"candidate_models": ["a"], "target_context": 2000, "max_context_axis": [2000]}
    assert repeated(last, {"max_model_size": "8B"}) == {
        "target_context": 2000,
        "max_context_axis": [2000],
        "max_model_size": "8B",
    }
    assert repeated({"max_model_size": "8B"}, {"candidate_models": ["b"]}) == {
        "candidate_models": ["b"]
    }
    assert repeated(last, {"target_context": 4000}) == {
        "candidate_models": ["a"],
        "target_context": 4000,
    }


@pytest.mark.parametrize(
    ("change", "others", "checkable"),
    [
        ({"os_version": "macOS 26.4"}, (), True),
        ({"binary_version": "macprovider-cli 1.5.0"}, (), True),
        ({}, (), False),
        ({"binary_version": ""}, (), False),
        ({"provider": "mlx-lm"}, (), False),
        ({"os_version": "macOS 26.4", "target_context": 4000}, (), False),
        ({"os_version": "macOS 26.4"}, ("the last good request would be refused now",), False),
    ],
)
def test_a_check_answers_for_a_changed_machine_but_not_for_a_changed_question(
    change: dict[str, Any], others: tuple[str, ...], *, checkable: bool
) -> None:
    now = dataclasses.replace(THEN, **change)
    assert compare(THEN, now, "r1", *others).checkable is checkable
