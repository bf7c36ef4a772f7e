"""Where candidates come from, how large they are, which are alternates."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core import candidates
from autotuned.core.model import Candidate
from autotuned.errors import ConfigError

CATALOGUE = (("org/Big-32B", 32.0), ("org/Coder-7B", 7.0), ("org/Small-1B", 1.0))


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("mlx-community/Qwen2.5-7B-Instruct-4bit", 7.0),
        ("mistralai/Mixtral-8x7B-v0.1", 56.0),
        ("Qwen/Qwen3-30B-A3B", 30.0),
        ("org/SmolLM2-135M-Instruct", 0.135),
        ("org/Qwen2.5-0.5B", 0.5),
        ("org/small-1.5b-q4", 1.5),
        ("org/llama_70B.gguf", 70.0),
        ("org/phi-3", None),
        ("org/A3B", None),  # a letter stands before the number
        ("org/v2.7Beta", None),
        ("org/4bit", None),
        ("7B", 7.0),
        ("org-13B/chat", 13.0),  # of an id, the whole name counts
        ("/models/70B/tiny-1B.gguf", 1.0),  # of a path, the last component alone
        ("/models/70B/tiny", None),
        ("~/models/tiny-3B/", 3.0),
        ("./a-2B", 2.0),
        ("../a-2B", 2.0),
    ],
)
def test_a_size_is_the_largest_token_of_the_name(model: str, size: float | None) -> None:
    found = candidates.size_b(model)
    assert found == (None if size is None else pytest.approx(size))


def test_the_catalogue_knows_better_than_the_name() -> None:
    assert candidates.size_b("ORG/coder-7b", (("org/Coder-7B", 7.6),)) == 7.6


def test_a_name_with_an_absurd_number_has_no_size() -> None:
    assert candidates.size_b("org/" + "9" * 400 + "x7B") is None
    assert candidates.size_b("org/" + "9" * 400 + "B-3B") == 3.0


@given(st.text(max_size=40))
def test_identity_is_nfc_and_ascii_case_only(text: str) -> None:
    folded = candidates.identity(text)
    assert candidates.identity(folded) == folded
    assert candidates.identity(unicodedata.normalize("NFD", text)) == folded
    assert not any("A" <= letter <= "Z" for letter in folded)


def test_letters_beyond_ascii_keep_their_case() -> None:
    assert candidates.identity("Ä") != candidates.identity("ä")
    assert candidates.identity("\u212a") == "k"  # NFC makes the Kelvin sign a K, which is ASCII


@pytest.mark.parametrize(
    ("written", "billions"),
    [("16B", 16), ("7b", 7), ("0.5B", 0.5), (".5", 0.5), ("500M", 0.5), (7, 7), (7.5, 7.5)],
)
def test_a_limit_is_read_in_billions(written: str | float, billions: float) -> None:
    assert candidates.parse_limit("max_model_size", written) == pytest.approx(billions)


@pytest.mark.parametrize("written", ["", "B", "-1B", "0", "1e3", "7 TB", True, "nan", "9" * 400])
def test_what_is_no_size_is_refused_with_field_value_and_rule(written: str | bool) -> None:
    with pytest.raises(ConfigError, match="is not a size such as 16B") as refused:
        candidates.parse_limit("max_model_size", written)
    assert (refused.value.field, refused.value.value) == ("max_model_size", written)


def test_no_limit_is_none() -> None:
    assert candidates.parse_limit("max_model_size", None) is None


def test_the_default_list_is_kept_in_its_order() -> None:
    found = candidates.defaults(CATALOGUE, None, None)
    assert [(c.model, c.rank) for c in found] == [
        ("org/Big-32B", 1),
        ("org/Coder-7B", 2),
        ("org/Small-1B", 3),
    ]


@pytest.mark.parametrize(
    ("largest", "smallest", "kept"),
    [
        (7, None, "71"),
        (8, None, "71"),
        (6.9, None, "1"),
        (None, 7, "37"),
        (7, 7, "7"),
        (32, 1, "371"),
    ],
)
def test_trimming_is_inclusive_on_both_sides(
    largest: float | None, smallest: float | None, kept: str
) -> None:
    found = candidates.defaults(CATALOGUE, largest, smallest)
    assert [c.size_b for c in found] == [{"3": 32.0, "7": 7.0, "1": 1.0}[digit] for digit in kept]


@pytest.mark.parametrize(
    ("largest", "smallest", "field"), [(0.5, None, "max_model_size"), (None, 99, "min_model_size")]
)
def test_a_list_that_is_trimmed_to_nothing_is_refused(
    largest: float | None, smallest: float | None, field: str
) -> None:
    with pytest.raises(ConfigError, match="leaves no candidate") as refused:
        candidates.defaults(CATALOGUE, largest, smallest)
    assert refused.value.field == field
    assert "32B, 7B, 1B" in refused.value.rule


def test_a_provider_without_a_default_list_needs_one_given() -> None:
    with pytest.raises(ConfigError, match="must be given"):
        candidates.defaults((), None, None)


def test_an_explicit_list_is_honoured_verbatim() -> None:
    found = candidates.explicit(["org/Small-1B", "x", "/m/a-9B"], CATALOGUE)
    assert found == (
        Candidate("org/Small-1B", 1, 1.0),
        Candidate("x", 2, None),
        Candidate("/m/a-9B", 3, 9.0),
    )


@pytest.mark.parametrize(
    ("models", "rule"),
    [
        ([], "is empty"),
        (["a", " "], "is blank"),
        ([""], "is blank"),
        (["a\nb"], "control characters"),
        (["a\ud800"], "control characters"),
        (["--model"], "starts with a dash"),
        (["a" * 4097], "longer than 4096 bytes"),
        (["a", "a"], "given twice"),
        (["Org/A", "b", "org/a"], "given twice .the first time as 'Org/A'"),
        (["caf\u00e9", "cafe\u0301"], "given twice"),
    ],
)
def test_an_unusable_list_is_refused(models: list[str], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as refused:
        candidates.explicit(models, ())
    assert refused.value.field == "candidate_models"


def ranked(*sizes: float | None) -> list[Candidate]:
    return [Candidate(f"m{rank}", rank, size) for rank, size in enumerate(sizes, start=1)]


@pytest.mark.parametrize(
    ("sizes", "chosen", "probed", "names"),
    [
        ((32, 7, 1), 2, [1, 2], ["m3"]),  # the last one fits
        ((32, 7, 1), 3, [1, 2, 3], []),  # none fits
        ((1, 32), 1, [1], []),  # what is larger is no alternate
        ((None, None, None), 2, [1, 2], ["m3"]),  # unknown: later counts as smaller
        ((7, None, 14, 1), 1, [1], ["m2", "m4"]),
        ((None, 70, 1), 1, [1], ["m2", "m3"]),
        ((7, 7), 1, [1], []),  # equal is not smaller
    ],
)
def test_alternates_are_the_smaller_ones_that_were_not_probed(
    sizes: tuple[float | None, ...], chosen: int, probed: list[int], names: list[str]
) -> None:
    listed = ranked(*sizes)
    tried = [listed[rank - 1].model for rank in probed]
    assert list(candidates.alternates(listed, listed[chosen - 1], tried)) == names


@given(st.lists(st.none() | st.sampled_from([1.0, 7.0, 32.0]), max_size=6))
def test_smallest_first_sorts_the_known_and_keeps_the_unknown_in_reverse_order(
    sizes: list[float | None],
) -> None:
    listed = ranked(*sizes)
    found = candidates.smallest_first(listed)
    assert sorted(c.rank for c in found) == list(range(1, len(listed) + 1))
    known = [c.size_b for c in found if c.size_b is not None]
    assert known == sorted(known)
    unknown = [c.rank for c in found if c.size_b is None]
    assert unknown == sorted(unknown, reverse=True)
