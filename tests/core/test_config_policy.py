"""What of a recipe goes into a file of today's provider, what is said about the rest, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.config.diff import LEFT, diff, lines, reverted
from autotuned.core.config.edit import Edited, edit
from autotuned.core.config.policy import (
    WHOLE,
    Bound,
    Selection,
    Terms,
    bound_warning,
    decided,
    select,
)
from autotuned.core.config.reader import WRITTEN, Refused
from tests.core.test_configedit import WANTED, files, says

NOTHING = Terms(decided=frozenset({"model"}))
BOUND = "model: acme/old-3B\nmodel_artifact_path: /x\nmodel_catalog_key: k\n"
TODAY = "continuous_batching: off\n"
RECIPE: dict[str, Any] = {
    "model": "acme/new-7B",
    "kv_bits": None,
    "max_concurrency_override": 2,
    "max_context_override": 2000,
}


def selected(text: str, terms: Terms = WHOLE, **recipe: Any) -> Selection:
    found = select(text, {**RECIPE, **recipe}, terms)
    assert isinstance(found, Selection), found
    return found


def written(text: str, terms: Terms = WHOLE, **recipe: Any) -> str:
    found = edit(text, selected(text, terms, **recipe).wanted)
    assert isinstance(found, Edited), found
    return found.text


# --- what a run decides -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        ({}, set()),
        ({"kv_bits_axis": [8], "max_batch_axis": [1], "max_context_axis": []}, set()),
        ({"kv_bits_axis": [None, 8]}, {"kv_bits"}),
        ({"max_batch_axis": [1, 2]}, {"max_concurrency_override"}),
        ({"max_batch_axis": [4], "concurrency": 2}, {"max_concurrency_override"}),
        ({"max_batch_axis": [4], "concurrency": 1}, set()),
        ({"calibrate_concurrency": True}, {"max_concurrency_override"}),
        ({"max_context_axis": [2000, 8000]}, {"max_context_override"}),
        ({"max_context_axis": [2000]}, set()),
        ({"calibrate_context": True}, {"max_context_override"}),
    ],
)
def test_a_run_decides_the_knobs_that_it_chose_among_values_and_the_model_always(
    request_: dict[str, Any], keys: set[str]
) -> None:
    assert decided(request_) == {"model"} | keys


# --- knobs that were not decided ----------------------------------------------------------------------


def test_a_value_that_the_run_did_not_decide_stays_in_a_file_of_today_and_is_told() -> None:
    text = TODAY + "max_context_override: 32000\n"
    found = selected(
        text, Terms(decided=frozenset({"model", "kv_bits", "max_concurrency_override"}))
    )
    assert "max_context_override" not in found.wanted
    assert found.remarks == (
        "kept: max_context_override 32000 (this run measured at 2000 and did not search it); "
        "--all-knobs writes it",
    )


def test_a_knob_that_stands_nowhere_is_not_forced_on_a_file_of_today_either() -> None:
    found = selected(TODAY, NOTHING, kv_bits=8)
    assert found.wanted == {"model": "acme/new-7B"}
    assert [remark.partition(" (")[0] for remark in found.remarks] == [
        "kept: kv_bits unset",
        "kept: max_concurrency_override unset",
        "kept: max_context_override unset",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "model_artifact_sha256: ab\n",
        "model_catalog_hash: ab\n",
        "max_concurrency_source: autotune\n",
        "max_concurrency_depth_override: 4\n",
        "max_context_override_provenance: {source: probe, value: 32000}\n",
        "continuous_batching: canary\n",
    ],
)
def test_any_of_the_newer_keys_makes_it_a_file_of_today(text: str) -> None:
    found = selected(f"model: acme/new-7B\nmax_context_override: 32000\n{text}", NOTHING)
    assert "max_context_override" not in found.wanted
    assert "kept: max_context_override 32000" in " ".join(found.remarks)


@pytest.mark.parametrize("terms", [Terms(), Terms(NOTHING.decided, all_knobs=True)])
def test_what_was_decided_and_what_all_knobs_asks_for_is_written_over_it(terms: Terms) -> None:
    text = TODAY + "max_context_override: 32000\nmax_concurrency_override: 8\n"
    after = says(written(text, terms))
    assert (after["max_context_override"], after["max_concurrency_override"]) == (2000, 2)


def test_a_plain_file_is_written_whole_with_one_warning_for_each_value_that_is_lowered() -> None:
    text = "max_context_override: 32000\nmax_concurrency_override: 1\nkv_bits: 8\n"
    found = selected(text, NOTHING)
    assert found.wanted == RECIPE
    assert found.remarks == (
        "max_context_override is lowered from 32000 to 2000: this run measured at 2000 "
        "and did not search it",
    )
    assert selected(text).remarks == ()


def test_a_value_that_is_the_recipes_already_is_nothing_to_tell() -> None:
    text = TODAY + "max_context_override: 2000\nmax_concurrency_override: 2\n"
    assert selected(text, NOTHING).remarks == ()


# --- bound files ----------------------------------------------------------------------------------------


def test_another_model_is_refused_where_the_file_binds_its_own() -> None:
    found = select(BOUND, RECIPE, Terms())
    assert isinstance(found, Bound)
    assert found.keys == ("model_artifact_path", "model_catalog_key")
    for word in (*found.keys, "--knobs-only", "macprovider-cli autotune --recommend --apply"):
        assert word in found.reason


def test_the_same_model_and_knobs_alone_are_written_into_a_bound_file() -> None:
    same = written(BOUND, model="acme/old-3B")
    knobs = written(BOUND, Terms(knobs_only=True))
    assert same == knobs
    assert knobs == BOUND + (
        "max_concurrency_override: 2\nmax_concurrency_source: owner\nmax_context_override: 2000\n"
    )


def test_knobs_only_never_writes_the_model_of_any_file() -> None:
    assert says(written("model: mine\n", Terms(knobs_only=True)))["model"] == "mine"
    assert "model" not in says(written("", Terms(knobs_only=True)))


def test_a_key_without_a_value_binds_nothing() -> None:
    assert says(written("model: old\nmodel_artifact_path:\n"))["model"] == "acme/new-7B"


def test_before_a_run_it_is_known_that_another_model_will_not_be_applied() -> None:
    said = bound_warning(BOUND, ["acme/old-3B", "acme/new-7B"])
    assert said is not None
    assert "model_artifact_path, model_catalog_key" in said
    assert bound_warning(BOUND, ["acme/old-3B"]) is None
    assert bound_warning("model: acme/old-3B\n", ["acme/new-7B"]) is None
    assert bound_warning("- no mapping\n", ["acme/new-7B"]) is None


# --- what is written beside our keys ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "max_concurrency_source: autotune\n",
        "max_concurrency_depth_override: 4\n",
        "continuous_batching: off\n",
        "max_context_override_provenance: {source: probe, value: 1}\n",
        "model_catalog_key: k\nmodel: acme/new-7B\n",
    ],
)
def test_the_owner_is_named_as_the_source_of_the_slots_in_a_file_of_today(text: str) -> None:
    assert says(written(text))["max_concurrency_source"] == "owner"
    assert written(written(text)) == written(text)


def test_a_plain_file_gets_no_source_and_slots_that_are_kept_get_none_either() -> None:
    assert "max_concurrency_source" not in written("port: 1\n")
    assert "max_concurrency_source" not in written(TODAY, NOTHING)


def test_the_provenance_goes_with_the_context_that_is_written_and_stays_with_one_that_is_kept() -> (
    None
):
    text = "max_context_override: 4000\nmax_context_override_provenance: {value: 4000}\nport: 1\n"
    assert "provenance" not in written(text)
    assert "provenance" not in written(text, max_context_override=4000)
    assert "provenance" in written(text, NOTHING)


def test_more_than_one_slot_is_not_written_beside_a_draft_model() -> None:
    for text in ("draft_model: small\n", TODAY + "draft_model: small\n"):
        found = selected(text)
        assert "max_concurrency_override" not in found.wanted
        assert "max_concurrency_source" not in found.wanted
        assert any(r.startswith("not written: max_concurrency_override 2") for r in found.remarks)
    assert selected("draft_model: small\n", max_concurrency_override=1).remarks == ()
    assert "max_concurrency_override" in selected("draft_model:\n").wanted


@pytest.mark.parametrize("spelling", ["on", "'on'", '"on"'])
def test_kv_bits_are_not_written_where_batching_is_on(spelling: str) -> None:
    text = f"kv_bits: 4\ncontinuous_batching: {spelling}\n"
    found = selected(text, kv_bits=8)
    assert "kv_bits" not in found.wanted
    assert any(remark.startswith("not written: kv_bits 8") for remark in found.remarks)
    assert "kv_bits" not in says(written(text))  # unset takes it away: that is what batching wants


def test_kv_bits_beside_a_canary_are_written_with_a_warning() -> None:
    found = selected("continuous_batching: canary\n", kv_bits=8)
    assert found.wanted["kv_bits"] == 8
    assert any("batching will be serial" in remark for remark in found.remarks)
    assert selected("continuous_batching: canary\n").remarks == ()


def test_a_file_that_cannot_be_read_is_refused() -> None:
    assert isinstance(select("- a\n", RECIPE, Terms()), Refused)
    assert isinstance(
        select(f"{TODAY}{TODAY}max_concurrency_source: a\n" * 2, RECIPE, Terms()), Refused
    )


# --- and back again --------------------------------------------------------------------------------------


def back(now: str, backup: str) -> str:
    found = reverted(now, backup)
    assert isinstance(found, str), found
    return found


def test_our_keys_go_back_and_what_was_changed_since_stays() -> None:
    before = (
        "model: old  # mine\n# the token\ntoken: a\nkv_bits: '4'\nport: 1\n"
        "max_context_override: 9\nmax_context_override_provenance: {value: 9}\n"
    )
    after = written(before).replace("token: a", "token: rotated") + "added: since\n"
    found = back(after, before)
    assert found == before.replace("token: a", "token: rotated") + "added: since\n"
    assert back(found, before) == found


def test_a_line_goes_back_below_the_comment_that_stood_above_it() -> None:
    before = "a: 1\n# bits\nkv_bits: 4\nb: 2\n"
    assert back("a: 9\n# bits\nb: 2\n", before) == "a: 9\n# bits\nkv_bits: 4\nb: 2\n"
    before = "a: 1\nkv_bits: 4\n# b\nb: 2\n"
    assert back("a: 1\n# b\nb: 9\n", before) == "a: 1\nkv_bits: 4\n# b\nb: 9\n"
    assert back("c: 1", "kv_bits: 4") == "c: 1\nkv_bits: 4\n"
    assert back("c: 1\n", "") == "c: 1\n"


@pytest.mark.parametrize(
    ("now", "backup"),
    [
        ("- a\n", "a: 1\n"),
        ("a: 1\n", "- a\n"),
        ("model: &m x\nother: *m\n", "model: y\n"),
        ("a: 1\n", "b: &m x\nmodel: *m\n"),
        ("a:\n- b\n", "  model: x\n"),
        ("model: x\nb: 1\n", "  model:\n    x\n"),
        ("# c\n---", "model: >\n   z"),
    ],
)
def test_what_cannot_go_back_line_by_line_is_refused(now: str, backup: str) -> None:
    assert isinstance(reverted(now, backup), Refused)


@settings(max_examples=150, deadline=None)
@given(files(), st.sampled_from([WANTED, RECIPE]))
def test_an_apply_that_is_reverted_leaves_every_byte_as_it_was(
    file: tuple[str, str], wanted: dict[str, Any]
) -> None:
    before = file[0]
    found = edit(before, wanted)
    assert isinstance(found, Edited)
    assert reverted(found.text, before) == before
    assert reverted(before, found.text) == found.text


@settings(max_examples=150, deadline=None)
@given(files(), st.sampled_from([WANTED, RECIPE]))
def test_a_revert_beside_other_changes_touches_our_lines_alone_and_is_the_same_twice(
    file: tuple[str, str], wanted: dict[str, Any]
) -> None:
    before = file[0].removesuffix("...\n").removesuffix("...\r\n")
    newline = "\r\n" if "\r" in before else "\n"
    found = edit(before, wanted)
    assert isinstance(found, Edited)
    gap = "" if found.text.endswith("\n") or not found.text else newline
    now = f"{found.text}{gap}added_since: 1{newline}"
    after = reverted(now, before)
    if isinstance(after, Refused):
        return
    kept = {key: value for key, value in says(now).items() if key not in WRITTEN}
    ours = {key: value for key, value in says(before).items() if key in WRITTEN}
    assert says(after) == {**kept, **ours}
    assert reverted(after, before) == after


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ab:#-?|>&*!%@`'\"{}[], \n\r\t.model", max_size=60),
    st.text(alphabet="ab:#-?|>&*!%@`'\"{}[], \n\r\t.model", max_size=60),
)
def test_any_two_texts_are_refused_or_reverted_but_never_break_it(now: str, backup: str) -> None:
    assert isinstance(reverted(now, backup), str | Refused)


def test_the_lines_of_a_change_are_told_key_by_key_and_none_where_a_side_cannot_be_read() -> None:
    before = "model: a # x\nkv_bits: 4\nport: 1\n"
    assert lines(before, "model: b # x\nport: 2\n") == [
        {"key": "model", "new": "model: b # x\n", "old": "model: a # x\n"},
        {"key": "kv_bits", "new": None, "old": "kv_bits: 4\n"},
    ]
    assert lines(before, "- a\n") == lines("- a\n", before) == []


def test_the_difference_holds_what_goes_with_our_keys_and_no_other_line() -> None:
    text = "max_concurrency_source: autotune\ntoken: s3cret\n"
    shown = diff(text, written(text), "config.yaml")
    assert "-max_concurrency_source: autotune\n+max_concurrency_source: owner\n" in shown
    assert "s3cret" not in shown


def test_a_backup_whose_lines_lean_on_an_anchor_that_is_gone_is_not_taken_over() -> None:
    backup = "base: &b 8\nkv_bits: *b\nmodel: m\n"
    assert reverted("base: 8\nkv_bits: 4\nmodel: n\n", backup) == LEFT
    last = "base: &b 8\nmax_context_override_provenance: *b\nmodel: m\n"
    assert reverted("base: 8\nmodel: m\n", last) == LEFT
