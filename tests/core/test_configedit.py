"""The surgical edit of the provider's configuration: shapes of real files, and a property over many more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from autotuned.core.config.diff import differences
from autotuned.core.config.edit import Edited, edit
from autotuned.core.config.policy import pins
from autotuned.core.config.reader import OWNED, Refused

WANTED: dict[str, Any] = {
    "model": "acme/new-7B",
    "kv_bits": 8,
    "max_concurrency_override": 2,
    "max_context_override": 4000,
}
UNSET = {**WANTED, "kv_bits": None}
SERVED = "model: acme/new-7B\nmax_concurrency_override: 2\nmax_context_override: 4000\n"
ADDED = "model: acme/new-7B\nkv_bits: 8\nmax_concurrency_override: 2\nmax_context_override: 4000\n"
CORPUS = sorted((Path(__file__).parents[1] / "support" / "configs").glob("*.yaml"))
OWNED_LINE = re.compile(rf" *[\"']?(?:{'|'.join(OWNED)})[\"']?[ \t]*:")


def edited(text: str, wanted: dict[str, Any]) -> str:
    found = edit(text, wanted)
    assert isinstance(found, Edited), found
    return found.text


def says(text: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    return yaml.load(text.removeprefix("\ufeff")) or {}


def replaced(text: str, wanted: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in says(text).items() if key not in OWNED}
    return {**kept, **{key: value for key, value in wanted.items() if value is not None}}


def others(text: str, newline: str) -> str:
    """All lines but ours; that of a file without a last line break gets one, as it must before an added line."""
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    kept = "".join(line for line in lines if not OWNED_LINE.match(line))
    return kept if kept.endswith("\n") or not kept else kept + newline


@pytest.mark.parametrize("wanted", [WANTED, UNSET], ids=["set", "unset"])
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_real_looking_file_keeps_every_line_that_is_not_ours(
    path: Path, wanted: dict[str, Any]
) -> None:
    before = path.read_bytes().decode()
    after = edited(before, wanted)
    newline = "\r\n" if "\r" in before else "\n"
    assert others(after, newline) == others(before, newline)
    assert after.startswith("\ufeff") == before.startswith("\ufeff")
    assert says(after) == replaced(before, wanted)
    assert edit(after, wanted) == Edited(after, {})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ADDED),
        ("# only a comment", "# only a comment\n" + ADDED[:-1]),
        ("---\n# nothing yet\n...\n# tail\n", "---\n# nothing yet\n" + ADDED + "...\n# tail\n"),
        ("  port: 1\n", "  port: 1\n" + re.sub("(?m)^", "  ", ADDED[:-1]) + "\n"),
        (
            "note: |\n  model: x",
            ADDED + "note: |\n  model: x",
        ),  # at its end they would give the note a line break
        ("note: |+\n  x\n\n\n", "note: |+\n  x\n\n\n" + ADDED),
    ],
)
def test_missing_keys_are_added_at_the_end_of_the_document(before: str, after: str) -> None:
    assert edited(before, WANTED) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("model:   old   # why\n", "model:   acme/new-7B   # why\n"),
        ("model: 'old' # why\n", "model: 'acme/new-7B' # why\n"),
        ('"model" :  "old"\n', '"model" :  "acme/new-7B"\n'),
        ("'model': old\n", "'model': acme/new-7B\n"),
        ("model:\told\t# why\n", "model:\tacme/new-7B\t# why\n"),
        ("model:\n", "model: acme/new-7B\n"),
        ("model: # why\n", "model: acme/new-7B # why\n"),
        ("model: ~ # why\n", "model: acme/new-7B # why\n"),
        ("model:\n  old # why\n", "model:\n  acme/new-7B # why\n"),
        ("model: old\n  and more # why\n", "model: acme/new-7B # why\n"),
        ('model: "old\n\n  more" # why\n', 'model: "acme/new-7B" # why\n'),
        ("model: |-  # why\n  old\n  more\n\n# next\n", "model: acme/new-7B  # why\n\n# next\n"),
        ("model: >\n  old\n # not ours\n", "model: acme/new-7B\n # not ours\n"),
        ("model:\n  name: old\n  rev: |\n    x\n\n\n", "model: acme/new-7B\n\n\n"),
        ("model:\n- old\n- more # x\n", "model: acme/new-7B\n"),
        ("model: !!map\n  a: b\n", "model: acme/new-7B\n"),
        ("model: [old,\n  more] # why\n", "model: acme/new-7B # why\n"),
        ("model: &m !!str old # why\n", "model: acme/new-7B # why\n"),
        ("a: &m old\nmodel: *m # why\n", "a: &m old\nmodel: acme/new-7B # why\n"),
        ("? model\n: old\n", "? model\n: acme/new-7B\n"),
    ],
)
def test_a_value_is_replaced_and_what_stands_around_it_is_kept(before: str, after: str) -> None:
    kept = "kv_bits: 8\nmax_concurrency_override: 2\nmax_context_override: 4000\n"
    assert edited(kept + before, WANTED) == kept + after


@pytest.mark.parametrize(
    "value",
    ["kv_bits: 4 # why", "kv_bits:", '"kv_bits": "4"', "kv_bits:\n  4", "kv_bits: [4,\n 8]"],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_an_unset_kv_bits_takes_its_lines_away(value: str, newline: str) -> None:
    kept = edited("", UNSET).replace("\n", newline)
    given_ = value.replace("\n", newline)
    assert edited(f"{given_}{newline}{kept}", UNSET) == kept
    assert edited(f"{kept}{given_}{newline}", UNSET) == kept
    assert edited(f"{kept}{given_}", UNSET) == kept


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- model\n", "no YAML mapping"),
        ("just text", "no YAML mapping"),
        ("{model: x}\n", "flow style"),
        ("a: 1\n---\nb: 2\n", "2 YAML documents"),
        ("model: x\nport: 1\n'model': y\n", "the key `model` twice, in lines 1 and 3"),
        ("kv_bits: 4\nkv_bits: 4\n", "the key `kv_bits` twice"),
        ("port: 'open\n", "line 2"),
        ("port: 1\n\tmodel: x\n", "line 2"),
        ("provider_token: *s3cret\n", "an anchor that it does not define"),
        ("port: \x01\n", "a character that YAML does not allow"),
        ("model: &m old\nalias: *m\n", "by its anchor"),
        ("base: &b\n  kv_bits: 4\n<<: *b\n", "gets kv_bits from a merge"),
        ("base: &b !x\n  kv_bits: 4\n<<: *b\n", "merge"),
        ("x: !vault y\nbase: &b {a: 1}\n<<: *b\n", "merge (<<) that cannot be followed"),
        ("model:\n- a\n-\nport: 1\n", "has model or"),
        ("? model\nport: 1\n", "the key `model` without a value"),
    ],
)
def test_a_file_that_cannot_be_edited_is_refused_with_a_reason_that_quotes_nothing(
    text: str, reason: str
) -> None:
    found = edit(text, UNSET)
    assert isinstance(found, Refused)
    assert reason in found.reason
    assert "s3cret" not in found.reason


@pytest.mark.parametrize(
    "text",
    [
        "note: |\n  model: look\n  kv_bits: 4\n",
        "other: {model: x, kv_bits: 4}\n",
        "other:\n  model: x\n  kv_bits: 4\n",
        "# model: x\n",
        'note: "a\n  model: x"\n',
        "my_model: x\nmodel_artifact: y\n",
        "vault: !vault abc\nport: 1\nport: 2\n",
        "1: a\n? [a, b]\n: c\n",
        "deep: &d {a: [1, *d]}\nagain: *d\n",
    ],
)
def test_look_alikes_and_oddities_beside_our_keys_are_left_alone(text: str) -> None:
    assert edited(text, WANTED) == text + ADDED


def test_a_merge_that_holds_none_of_our_keys_is_left_alone() -> None:
    text = "base: &b {a: 1}\n<<: *b\n"
    assert edited(text, UNSET) == text + ADDED.replace("kv_bits: 8\n", "")


def test_an_anchor_on_an_owned_value_that_does_not_change_is_left_alone() -> None:
    text = "model: &m acme/new-7B\nalias: *m\n"
    assert edited(text, WANTED) == text + ADDED.partition("\n")[2]


@pytest.mark.parametrize("style", ["model: {}\n", "model: '{}'\n", 'model: "{}"\n'])
@pytest.mark.parametrize(
    "model",
    [
        "acme/new-7B",
        "yes",
        "null",
        "1e3",
        "0x1f",
        "12",
        "2001-01-01",
        "~/models/x",
        "@acme/x",
        "a: b",
        "a #b",
        "it's",
        'say "x"\\n',
        "ünï/cødé",
        "/Users/me/My Models/x",
        "*x",
        "&x",
        "!x",
        "- x",
        "a,b]",
        "x\u200by",
        "😀/x",
        ".",
        "a:",
    ],
)
def test_a_model_comes_back_as_the_text_that_it_is(style: str, model: str) -> None:
    wanted = {**WANTED, "model": model}
    after = edited(style.format("old"), wanted)
    assert says(after)["model"] == model
    assert says("%YAML 1.1\n---\n" + after)["model"] == model
    assert edit(after, wanted) == Edited(after, {})


@given(st.text(max_size=40).filter(lambda text: text.isprintable() and text.strip()))
def test_any_model_comes_back_as_the_text_that_it_is(model: str) -> None:
    assert says(edited("port: 1\n", {**WANTED, "model": model}))["model"] == model


def test_what_changed_is_told_with_the_values_before_and_after() -> None:
    found = edit("model: old\nkv_bits: {secret: x}\nmax_context_override: 4000\n", UNSET)
    assert isinstance(found, Edited)
    assert found.changed == {
        "model": {"before": "old", "after": "acme/new-7B"},
        "kv_bits": {"before": "(is no single value)", "after": None},
        "max_concurrency_override": {"before": None, "after": 2},
    }


def test_a_long_file_is_edited_in_its_middle() -> None:
    lines = "".join(f"key_{n}: value number {n}  # and why\n" for n in range(500))
    text = f"{lines}model: old\n{lines.replace('key', 'other')}"
    assert edited(text, WANTED).startswith(f"{lines}model: acme/new-7B\nother_0")


def test_pins_to_the_old_model_are_named() -> None:
    text = (
        "model: old\nmodel_artifact_path: /x\nmodel_artifact_sha256: ab\nmodel_catalog_id: 1\n"
        "draft_model:\nsupported_models: [old, other]\nport: 1\n"
    )
    named = ["model_artifact_path", "model_artifact_sha256", "model_catalog_id", "supported_models"]
    assert pins(text, "new") == named
    assert pins("supported_models:\n- old\n- new\ndraft_model: small\n", "new") == ["draft_model"]
    assert pins("- nonsense", "new") == []


# --- the property -------------------------------------------------------------------------------

_BETWEEN = [
    "# a comment: {with} 'marks'",
    "",
    "   ",
    "port: 8080",
    "provider_token: 'p:#t'  # secret",
    'quoted: "a # b"',
    "anchor: &a {x: 1}",
    "supported_models:\n- a\n- model: b",
    "nested:\n    model: inner\n    # inner comment\n    kv_bits: 2",
    "flow: {model: x, kv_bits: [4, 8]}",
    "literal: |\n  model: look\n\n  kv_bits: 4",
    "folded: >-\n    kv_bits: 8\n     deeper",
    "folded_plain: one\n  two # three",
    "empty:",
    "spaced   :   value   ",
]
_MODEL = [
    "model: old",
    "model: 'old' # c",
    '"model": "old\\n"',
    "model:",
    "model: # c",
    "model: |\n  old\n  more",
    "model:\n  - old\n  - more",
    "model: !!str old",
]
_BITS = ["kv_bits: 4", "kv_bits: 0x4 # c", "'kv_bits': ~", "kv_bits: >\n  4"]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str]:
    """A file, and the same with our keys' lines left out."""
    between = draw(st.lists(st.sampled_from(_BETWEEN), unique_by=lambda part: part.split(":")[0]))
    ours = [
        draw(st.sampled_from(choices))
        for choices in (
            _MODEL,
            _BITS,
            ["max_context_override: 1"],
            ["max_concurrency_override : 9"],
        )
        if draw(st.booleans())
    ]
    parts = draw(st.permutations([(part, False) for part in between] + [(p, True) for p in ours]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    head = draw(st.sampled_from(["", "\ufeff", "---\n", "%YAML 1.2\n---\n"]))
    tail = draw(st.sampled_from(["", "...\n"])) if "---" in head else ""
    body = "".join(f"{part}\n" for part, _ in parts)
    kept = "".join(f"{part}\n" for part, our in parts if not our)
    text, other = head + body + tail, head + kept + tail
    if draw(st.booleans()):
        text = text.removesuffix("\n")
        if tail or not parts or not parts[-1][1]:  # else the line that lost its end is one of ours
            other = other.removesuffix("\n")
    # Behind a literal, blanks that followed a line of ours would be part of it: such a file is refused.
    assume({key: value for key, value in says(text).items() if key not in UNSET} == says(other))
    return text.replace("\n", newline), other.replace("\n", newline)


@settings(max_examples=100, deadline=None)
@given(files(), st.sampled_from([WANTED, UNSET]))
def test_only_our_lines_change_and_the_file_says_the_same_with_our_keys_replaced(
    file: tuple[str, str], wanted: dict[str, Any]
) -> None:
    before, kept = file
    after = edited(before, wanted)
    assert says(after) == replaced(before, wanted)
    newline = "\r\n" if "\r" in before else "\n"
    assert others(after, newline) == others(kept, newline)
    assert after.startswith("\ufeff") == before.startswith("\ufeff")
    assert edit(after, wanted) == Edited(after, {})


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:#-?|>&*!%@`'\"{}[], \n\r\t.model", max_size=60))
def test_any_text_is_refused_or_edited_but_never_breaks_the_editor(text: str) -> None:
    found = edit(text, UNSET)
    assert isinstance(found, Refused) or edit(found.text, UNSET) == Edited(found.text, {})


def test_differences_are_those_of_the_owned_keys_with_both_values() -> None:
    before, after = "model: a\nport: 1\n", "model: b\nport: 2\nkv_bits: 8\n"
    assert differences(before, after) == {
        "model": {"before": "a", "after": "b"},
        "kv_bits": {"before": None, "after": 8},
    }
    assert differences(before, before) == {}
    assert differences(before, "- no mapping\n") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("? model\n", "without a value that could be found"),
        ("<<: 5\nmodel: x\n", "cannot be followed"),
        ("x: &a {kv_bits: 4}\n<<: *a\nmodel: m\n", "gets kv_bits from a merge"),
        (
            f"{SERVED}a: |\n  x\nkv_bits: 4\n    \n",
            "cannot be changed without touching other lines",
        ),
    ],
)
def test_odd_but_valid_yaml_is_refused_by_its_oddity(text: str, words: str) -> None:
    found = edit(text, UNSET)
    assert isinstance(found, Refused)
    assert words in found.reason


def test_an_edit_that_does_not_read_back_as_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autotuned.core.config.edit._says", lambda *_: False)
    found = edit("model: x\n", WANTED)
    assert isinstance(found, Refused)
    assert "cannot be changed without touching other lines" in found.reason


def test_a_merge_that_brings_nothing_of_ours_is_left_alone() -> None:
    found = edit("x: &a {y: 1}\n<<: *a\nmodel: m\n", UNSET)
    assert isinstance(found, Edited)
    assert found.text.startswith("x: &a {y: 1}\n<<: *a\nmodel: acme/new-7B\n")
