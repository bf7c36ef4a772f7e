"""The diff of a configuration shows its owned keys' lines, and no other line that may be secret."""

from __future__ import annotations

import pytest

from autotuned.core.configdiff import diff

BEFORE = "api_key: secret\nmodel: old\nport: 1\nkv_bits: 4\n"


def test_only_owned_lines_are_shown() -> None:
    after = "api_key: other secret\nmodel: new\nport: 2\nmax_context_override: 4000\n"
    shown = diff(BEFORE, after, "config.yaml")
    assert shown.splitlines()[:2] == ["--- config.yaml", "+++ config.yaml"]
    assert {line for line in shown.splitlines()[2:] if line[0] in "+-"} == {
        "-model: old",
        "+model: new",
        "-kv_bits: 4",
        "+max_context_override: 4000",
    }
    assert "secret" not in shown
    assert "port" not in shown


def test_numbers_of_lines_are_those_of_a_unified_diff_without_context() -> None:
    assert diff(BEFORE, BEFORE.replace("old", "new"), "c").splitlines()[2] == "@@ -2,1 +2,1 @@"
    assert (
        diff(BEFORE, BEFORE.replace("kv_bits: 4\n", ""), "c").splitlines()[2] == "@@ -4,1 +3,0 @@"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [(BEFORE, BEFORE), (BEFORE, "- a list\n"), ("model: a\nmodel: b\n", BEFORE)],
)
def test_equal_or_unreadable_files_have_no_difference(before: str, after: str) -> None:
    assert diff(before, after, "c") == ""
