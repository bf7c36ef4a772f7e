"""Templates, the words of knobs, and what is left out of a line that a person is shown."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.server_spec import KnobSpec, ServerSpec, fill, names_of


def test_a_template_is_names_and_sums_and_products_of_numbers() -> None:
    assert fill("{a}:{b + 2 * c}", {"a": "x", "b": 1, "c": 3}) == "x:7"
    assert fill("{on}", {"on": True}) == "true"
    assert names_of("{a * b}-{c}") == {"a", "b", "c"}


def test_a_brace_that_is_meant_is_written_twice() -> None:
    template = '{{"method": "{how}", "more": {{}}}}'
    assert fill(template, {"how": "ngram"}) == '{"method": "ngram", "more": {}}'
    assert names_of(template) == {"how"}


@pytest.mark.parametrize(
    "template",
    [
        "{a - 1}",
        "{a.b}",
        "{a()}",
        "{'x'}",
        "{1.5}",
        "{}",
        "{a[0]}",
        "{__import__('os')}",
        "{a ** 2}",
    ],
)
def test_anything_else_in_a_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="is no name, sum or product"):
        fill(template, {"a": 1})


@given(st.text())
def test_no_template_does_more_than_fill_in_or_refuse(template: str) -> None:
    with contextlib.suppress(ValueError, KeyError):
        assert isinstance(fill(f"{{{template}}}", {"a": 1}), str)


def test_the_flags_of_a_knob_are_all_spellings_with_the_number_of_their_values() -> None:
    knob = KnobSpec.model_validate(
        {
            "flag": ["-c", "{value}", "--pair", "{value}", "2", "-off"],
            "aliases": {"-c": ["--ctx"], "-off": ["--none"]},
        }
    )
    assert knob.flags == {"-c": 1, "--pair": 2, "-off": 0, "--ctx": 1, "--none": 0}
    joined = KnobSpec.model_validate({"flag": ["--x={value}"], "aliases": ["-x"]})
    assert joined.flags == {"--x": 1, "-x": 1}


@pytest.mark.parametrize(
    ("knob", "value", "rule"),
    [
        ({"flag": ["-a"]}, 1, None),
        ({"flag": ["-a"]}, True, "is no int"),
        ({"flag": ["-a"], "type": "float", "min": 0.1}, 0.05, "is below 0.1"),
        ({"flag": ["-a"], "type": "float"}, 1, None),
        ({"flag": ["-a"], "type": "bool"}, "true", "is no bool"),
        ({"values": {"true": []}, "type": "bool"}, True, None),
        ({"values": {"on": [], "off": []}}, "auto", "is none of on, off"),
    ],
    ids=range(7),
)
def test_a_value_that_a_knob_cannot_take_is_known_with_its_rule(
    knob: dict[str, object], value: int | float | bool | str, rule: str | None
) -> None:
    assert KnobSpec.model_validate(knob).rule(value) == rule


def test_a_switch_is_written_where_it_is_on() -> None:
    knob = KnobSpec(flag=("--fast",), type="bool")
    assert (knob.words(True, {}), knob.words(False, {})) == (["--fast"], [])
    told = KnobSpec(flag=("--fast={value}",), type="bool")
    assert told.words(False, {}) == ["--fast=false"]


def test_a_line_that_a_person_is_shown_has_neither_port_nor_private_folder() -> None:
    spec = ServerSpec.model_validate(
        {
            "command": [
                "python",
                "-m",
                "mine",
                "-x",
                "--port={port}",
                "--port",
                "{port}",
                "{weights}",
            ],
            "candidate": ["--dir", "{folder}"],
        }
    )
    names: dict[str, int | str] = {"port": 1, "weights": "/w", "folder": "/f"}
    shown = spec.argv(["/bin/python"], names, {}, extra=["--mine"], serving=True)
    assert shown == ("/bin/python", "-m", "mine", "--mine", "-x", "/w")
    started = spec.argv(["/bin/python"], names, None, hook=["--pid", "7"])
    assert started[-4:] == ("--pid", "7", "--dir", "/f")
