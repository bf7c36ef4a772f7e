"""The difference in our own lines: a unified diff that holds no other line, and that `patch` understands."""

from __future__ import annotations

import pytest

from autotuned.core.config.diff import diff, differences
from autotuned.core.config.edit import edit
from autotuned.core.config.reader import Refused

WANTED = {"model": "a/new", "kv_bits": None, "max_concurrency_override": 2}
WANTED_ALL = {**WANTED, "max_context_override": 4000}

BEFORE = "api_key: secret\nmodel: old\nport: 1\nkv_bits: 4\n"


def patched(before: str, text: str) -> str:
    """`before` with a diff without context applied, as `patch` does it."""
    lines, made, at = before.splitlines(), [], 0
    for hunk in text.split("\n@@ ")[1:]:
        head, *body = hunk.rstrip("\n").split("\n")
        start, count = (int(number) for number in head.split(" ")[0][1:].split(","))
        upto = start - 1 if count else start
        made += lines[at:upto]
        removed = [line[1:] for line in body if line.startswith("-")]
        assert lines[upto : upto + count] == removed
        made += [line[1:] for line in body if line.startswith("+")]
        at = upto + count
    return "\n".join([*made, *lines[at:]])


@pytest.mark.parametrize(
    "before",
    [
        "",
        "secret: s3cret\n",
        "model: old  # why\nsecret: s3cret\nkv_bits: 4\nlast: s3cret",
        "kv_bits: |\n  4\n  more\n\nsecret: s3cret\nmodel:\n  - a\n  - b\nmax_context_override: 1\n",
        "\ufeffmodel: old\r\nsecret: s3cret\r\nmax_concurrency_override: 9\r\n",
    ],
)
def test_the_diff_holds_our_lines_alone_and_makes_the_new_file_of_the_old_one(before: str) -> None:
    found = edit(before, WANTED_ALL)
    assert not isinstance(found, Refused)
    said = diff(before, found.text, "config.yaml")
    assert said.startswith("--- config.yaml\n+++ config.yaml\n@@ ")
    assert "s3cret" not in said
    plain = before.removeprefix("\ufeff").replace("\r\n", "\n")
    after = found.text.removeprefix("\ufeff").replace("\r\n", "\n")
    assert patched(plain, said) == after.rstrip("\n")


def test_keys_that_come_in_together_are_one_hunk() -> None:
    found = edit("secret: s3cret\n", WANTED_ALL)
    assert not isinstance(found, Refused)
    assert diff("secret: s3cret\n", found.text, "config.yaml").count("@@ -1,0 +2,3 @@") == 1


def test_without_a_difference_in_our_lines_there_is_no_diff() -> None:
    assert diff("model: a\nsecret: 1\n", "model: a\nsecret: 2\n", "x") == ""
    assert diff("- s3cret\n", "model: a\n", "x") == ""
    assert diff("model: a\n", "- s3cret\n", "x") == ""


def test_the_values_that_differ_are_told_before_and_after() -> None:
    before, after = "model: a\nkv_bits: 4\n", "model: b\nkv_bits: 4\nmax_context_override: 1\n"
    assert differences(before, after) == {
        "model": {"before": "a", "after": "b"},
        "max_context_override": {"before": None, "after": 1},
    }
    assert differences("- a\n", after) == differences(before, "- a\n") == {}


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
