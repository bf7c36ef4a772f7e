"""Every way in which a request can be wrong names the field, the value and the rule; cells in their order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.plan import plan
from autotuned.core.request import TuneRequest, fitted, parse, usable
from autotuned.descriptions import Descriptions
from autotuned.errors import ConfigError, shown
from autotuned.server_spec import ServerSpec
from autotuned.shared.knobs import Knobs
from tests.core.worlds import planned

CATALOGUE = (("org/Big-32B", 32.0), ("org/Small-1B", 1.0))

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["unset", "16B", "auto", "axis", "random", 4, 8, 2000])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from([*TuneRequest.model_fields]) | st.text(max_size=8)


@settings(max_examples=150)
@given(st.dictionaries(names, values, max_size=6))
def test_whatever_is_asked_is_a_plan_or_a_config_error(params: dict[str, Any]) -> None:
    refused = None
    try:
        made = plan(parse(params), CATALOGUE, max_tokens=48, seed=3)
        assert made.candidates
        assert made.cells
    except ConfigError as error:
        refused = error
    if refused is not None:
        assert refused.message == f"{refused.field}: {shown(refused.value)} {refused.rule}"
        json.dumps(dict(refused.data), allow_nan=False)


@settings(max_examples=100)
@given(st.dictionaries(names, values, max_size=6))
def test_of_any_request_something_is_usable_for_its_record(params: dict[str, Any]) -> None:
    kept = usable(params)
    for name in ("target_context", "gate_ttft_ms"):
        default = getattr(TuneRequest(), name)
        asked = params.get(name, default)
        assert getattr(kept, name) in (default, *(asked if isinstance(asked, list) else [asked]))


def test_the_record_of_a_refusal_has_the_values_that_were_usable_and_defaults_elsewhere() -> None:
    kept = usable({"target_context": 4000, "gate_ttft_ms": -1, "nonsense": 1, "drain": True})
    assert (kept.target_context, kept.gate_ttft_ms, kept.drain) == (4000, 60_000, True)


def test_the_defaults_are_those_of_the_contract() -> None:
    request = parse({})
    assert request.model_dump() == {
        **request.model_dump(),
        "target_context": 2000,
        "candidate_models": None,
        "kv_bits_axis": (None, 4, 8),
        "max_batch_axis": (1, 2),
        "max_context_axis": (),
        "stage1_replicates": 1,
        "stage2_replicates": 3,
        "gate_ttft_ms": 60_000,
        "tps_tie_epsilon": 0.02,
        "max_duration": 7200.0,
        "drain_grace": 30.0,
        "port": 18_080,
        "retain_runs": 50,
        "drain": False,
        "cell_order": "axis",
        "cooldown_s": 0.0,
    }


REFUSED: list[tuple[dict[str, Any], str, Any, str]] = [
    ({"no_join": False}, "no_join", False, "is not a parameter of start"),
    ({"target_context": 0}, "target_context", 0, "greater than or equal to 1"),
    ({"target_context": "2000"}, "target_context", "2000", "valid integer"),
    ({"target_context": 2000.5}, "target_context", 2000.5, "valid integer"),
    ({"target_context": True}, "target_context", True, "valid integer"),
    ({"target_context": 10**9}, "target_context", 10**9, "less than or equal to"),
    ({"candidate_models": "a"}, "candidate_models", "a", "should be a list"),
    ({"candidate_models": []}, "candidate_models", [], "is empty"),
    ({"candidate_models": ["a", "A"]}, "candidate_models", "A", "is given twice"),
    ({"kv_bits_axis": 8}, "kv_bits_axis", 8, "should be a list"),
    ({"kv_bits_axis": []}, "kv_bits_axis", [], "is empty"),
    ({"kv_bits_axis": [16]}, "kv_bits_axis", 16, "4, 8 or unset"),
    ({"kv_bits_axis": [None, "unset"]}, "kv_bits_axis", "unset", "is given twice"),
    ({"kv_bits_axis": [4, 4]}, "kv_bits_axis", 4, "is given twice"),
    ({"max_batch_axis": []}, "max_batch_axis", [], "is empty"),
    ({"max_batch_axis": [0]}, "max_batch_axis", 0, "is not a positive integer"),
    ({"max_batch_axis": [2, 2]}, "max_batch_axis", 2, "is given twice"),
    ({"max_context_axis": [-1]}, "max_context_axis", -1, "is not a positive integer"),
    ({"max_context_axis": [4000, 4000]}, "max_context_axis", 4000, "is given twice"),
    ({"max_context_axis": [0]}, "max_context_axis", 0, "target context, 2000 tokens"),
    ({"max_context_axis": [2000.5]}, "max_context_axis", 2000.5, "target context, 2000 tokens"),
    ({"max_context_axis": [1999]}, "max_context_axis", 1999, "target context, 2000 tokens"),
    ({"stage1_replicates": 0}, "stage1_replicates", 0, "greater than or equal to 1"),
    ({"gate_ttft_ms": 0}, "gate_ttft_ms", 0, "greater than or equal to 1"),
    ({"tps_tie_epsilon": -0.1}, "tps_tie_epsilon", -0.1, "greater than or equal to 0"),
    ({"tps_tie_epsilon": 1}, "tps_tie_epsilon", 1, "less than 1"),
    ({"max_duration": 0}, "max_duration", 0, "greater than 0"),
    ({"port": 70_000}, "port", 70_000, "less than or equal to 65535"),
    ({"retain_runs": 0}, "retain_runs", 0, "greater than or equal to 1"),
    ({"provider": "ollama"}, "provider", "ollama", "should be 'auto'"),
    ({"max_contex_axis": [1]}, "max_contex_axis", [1], "did you mean max_context_axis?"),
    ({"candidates": "ggfu"}, "candidates", "ggfu", "did you mean gguf?"),
    (
        {"candidates": "gguf", "candidate_models": ["a/b"]},
        "candidates",
        "gguf",
        "cannot be given besid",
    ),
    ({"provider": "lama-server"}, "provider", "lama-server", "did you mean llama-server?"),
    ({"provider": "llama"}, "provider", "llama", "did you mean llama-server?"),
    ({"drain": None}, "drain", None, "should be true or false"),
    ({"max_model_size": True}, "max_model_size", True, "should be a size such as 16B"),
    ({"axes": {"draft": [["a"]]}}, "axes.draft", ["a"], "should be a number, text, true or false"),
    ({"max_model_size": "7 TB"}, "max_model_size", "7 TB", "is not a size"),
    ({"min_model_size": "64B"}, "min_model_size", "64B", "leaves no candidate"),
    ({"target_context": 100}, "target_context", 100, "48 tokens of answer and a prompt of 64"),
    ({"trigger": "me"}, "trigger", "me", "should be 'manual'"),
]


@pytest.mark.parametrize(("params", "field", "value", "rule"), REFUSED)
def test_a_refusal_names_field_value_and_rule(
    params: dict[str, Any], field: str, value: Any, rule: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(parse(params), CATALOGUE, max_tokens=48, seed=0)
    error = refused.value
    assert (error.field, error.value) == (field, value)
    assert rule in error.rule
    assert error.message == f"{field}: {shown(value)} {error.rule}"


def test_cells_are_the_product_in_the_order_of_the_axes_contexts_ascending() -> None:
    made = planned(
        "m", kv_bits_axis=[8, "unset"], max_batch_axis=[2, 1], max_context_axis=[9000, 4000]
    )
    assert made.cells == tuple(
        Knobs(bits, batch, context)
        for bits in (8, None)
        for batch in (2, 1)
        for context in (4000, 9000)
    )


def test_an_empty_context_axis_means_the_target() -> None:
    assert {cell.max_context for cell in planned("m", target_context=3000).cells} == {3000}
    assert [cell.kv_bits for cell in planned("m", max_batch_axis=[1]).cells] == [None, 4, 8]


def test_other_orders_of_the_cells_are_asked_for_and_their_seed_is_kept() -> None:
    plain = planned("m")
    assert plain.seed is None
    assert planned("m", cell_order="reverse").cells == plain.cells[::-1]
    shuffled = planned("m", cell_order="random", seed=7)
    assert shuffled.seed == 7
    assert sorted(map(str, shuffled.cells)) == sorted(map(str, plain.cells))
    assert planned("m", cell_order="random", seed=7).cells == shuffled.cells
    assert planned("m", cell_order="random").seed == 1  # the one that the caller drew


def test_a_list_beside_a_size_wins_with_one_warning() -> None:
    made = planned("a-70B", max_model_size="8B")
    assert [candidate.model for candidate in made.candidates] == ["a-70B"]
    assert len(made.warnings) == 1
    assert "ignored" in made.warnings[0]
    assert planned("a-70B").warnings == ()


def test_sizes_trim_the_default_list() -> None:
    made = plan(parse({"max_model_size": "8B"}), CATALOGUE, max_tokens=48, seed=0)
    assert [candidate.model for candidate in made.candidates] == ["org/Small-1B"]


MINE = ServerSpec.model_validate(
    {
        "command": ["mine"],
        "knobs": {
            "kv_bits": {"values": {"8": ["--kv", "fp8"]}},
            "max_context": {"flag": ["-c", "{value}"], "max": 8000},
        },
    }
)
OWN = Descriptions({"mine": MINE}, {"short": ("a/b-1B", "a/c")})


def test_a_request_names_the_operators_own_servers_and_lists() -> None:
    request = parse({"provider": "mine", "candidates": "short"}, OWN)
    assert [entry.model for entry in OWN.entries(request.candidates)] == ["a/b-1B", "a/c"]
    assert OWN.entries(None) == ()
    assert list(OWN.all())[:4] == ["macprovider", "llama-server", "mlx-lm", "mine"]


def test_of_the_default_axes_only_what_the_server_can_do_is_tried() -> None:
    request = fitted(parse({"provider": "mine"}, OWN), "mine", MINE)
    assert (request.kv_bits_axis, request.max_batch_axis) == ((None, 8), (1,))
    same = parse({"kv_bits_axis": ["unset", 8], "max_batch_axis": [1]})
    assert fitted(same, "mine", MINE) is same


@pytest.mark.parametrize(
    ("params", "field", "value", "rule"),
    [
        (
            {"kv_bits_axis": [8, 4]},
            "kv_bits_axis",
            4,
            "is not what mine can do: kv_bits is none of 8",
        ),
        ({"max_batch_axis": [1, 2]}, "max_batch_axis", 2, "max_batch cannot be set on this server"),
        ({"max_context_axis": [9000]}, "max_context_axis", 9000, "max_context is above 8000"),
        ({"target_context": 9000}, "target_context", 9000, "max_context is above 8000"),
    ],
    ids=range(4),
)
def test_a_value_that_was_asked_for_and_cannot_be_done_is_refused_by_name(
    params: dict[str, Any], field: str, value: Any, rule: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        fitted(parse(params), "mine", MINE)
    assert (refused.value.field, refused.value.value) == (field, value)
    assert rule in refused.value.rule


def test_a_list_whose_models_have_no_size_is_trimmed_to_those_that_have_one() -> None:
    catalogue = [("a/b-1B", 1.0), ("a/c", None)]
    everything = plan(parse({}), catalogue, 48, seed=0)
    assert [candidate.model for candidate in everything.candidates] == ["a/b-1B", "a/c"]
    limited = plan(parse({"max_model_size": "3B", "min_model_size": "1B"}), catalogue, 48, seed=0)
    assert [candidate.model for candidate in limited.candidates] == ["a/b-1B"]
    with pytest.raises(ConfigError, match=r"\(1B, unknown\)"):
        plan(parse({"max_model_size": "0.5B"}), catalogue, 48, seed=0)


@pytest.mark.parametrize(
    ("trigger", "alone"),
    [("manual", False), ("noise", False), ("schedule", True), ("os_update", True)],
)
def test_a_scheduled_run_has_nobody_who_starts_again_by_hand(trigger: str, alone: bool) -> None:
    assert parse({"trigger": trigger}).scheduled == alone
