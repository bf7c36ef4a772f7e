"""A recipe in what operators have written: only its flags change, whatever the rest holds."""

from __future__ import annotations

import configparser
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from autotuned import providers
from autotuned.core.command_line import words
from autotuned.core.config.policy import Terms
from autotuned.shared.knobs import Knobs
from autotuned.writers import (
    Edited,
    NotOurs,
    Recipe,
    llama,
    not_in_effect,
    ours,
    recipe,
)
from tests.writers.corpora import COMMANDS, PRESETS, SWAPS, UNITS

LLAMA = providers.made("llama-server")
SERVE = "llama-server -m /new/b.gguf --alias b --jinja -np 4 -c 8000 -no-kvu"
SERVERS = [*LLAMA.commands, ("numactl",)]


USUAL = Knobs(8, 4, 2000)


def wanted(knobs: Knobs = USUAL, *, all_knobs: bool = True, model: bool = False) -> Recipe:
    terms = Terms(all_knobs=all_knobs, knobs_only=not model, decided=frozenset())
    return recipe(LLAMA.spec, "b", knobs, SERVE, terms)


RECIPE = wanted()


def swap(text: str, made: Recipe = RECIPE) -> Edited:
    return llama.edit_swap(text, made, "mine")


def preset(text: str, made: Recipe = RECIPE) -> Edited:
    return llama.edit_presets(text, made, "mine")


def test_there_are_enough_files_of_each_kind_and_no_two_are_the_same() -> None:
    for corpus in (UNITS, PRESETS, SWAPS):
        assert len(set(corpus)) >= 25


@pytest.mark.parametrize("unit", UNITS, ids=range(len(UNITS)))
def test_a_drop_in_is_the_units_own_command_with_the_flags_of_the_recipe(unit: str) -> None:
    own = ours.command([unit])
    first = ours.drop_in([unit], "", RECIPE, SERVERS)
    now = ours.command([unit, first.text])
    kept = [word.value for word in words(own)]
    come = [word.value for word in words(now)]
    for flag, value in (("-np", "4"), ("-c", "8000"), ("-ctk", "q8_0"), ("-ctv", "q8_0")):
        assert come.count(flag) == 1
        assert come[come.index(flag) + 1] == value
    theirs = {flag for setting in RECIPE.settings.values() for flag in setting.flags}
    assert _without(come, theirs) == _without(kept, theirs)
    assert ours.drop_in([unit], first.text, RECIPE, SERVERS) == Edited(first.text)
    assert "8080" not in first.diff


def _without(line: list[str], flags: set[str]) -> list[str]:
    """The words of a line that are none of these flags, nor their values."""
    counts = {flag: n for made in RECIPE.settings.values() for flag, n in made.flags.items()}
    left, skip = [], 0
    for word in line:
        name, joined, _ = word.partition("=")
        if name in flags:
            skip = 0 if joined else counts[name]
        elif skip:
            skip -= 1
        else:
            left.append(word)
    return left


def test_a_unit_that_runs_something_else_or_several_things_is_left_alone() -> None:
    for line in ("/bin/sh -c 'llama-server -m a'", "/opt/start.sh", "/usr/bin/vllm serve x"):
        with pytest.raises(NotOurs, match="script"):
            ours.drop_in([f"[Service]\nExecStart={line}\n"], "", RECIPE, LLAMA.commands)
    for unit in ("[Service]\nExecStart=a\nExecStart=b\n", "[Service]\nExecStart=a\nExecStart=\n"):
        with pytest.raises(NotOurs, match="commands"):
            ours.drop_in([unit], "", RECIPE, LLAMA.commands)


def test_an_own_drop_in_of_the_operator_comes_before_the_unit() -> None:
    own = "[Service]\nExecStart=\nExecStart=/usr/bin/llama-server -m /m/own.gguf\n"
    edited = ours.drop_in([UNITS[0], own], "", RECIPE, LLAMA.commands)
    assert "ExecStart=/usr/bin/llama-server -m /m/own.gguf -ctk" in edited.text.replace(
        "\n", " "
    ) or ("/m/own.gguf" in edited.text)


@pytest.mark.parametrize("text", SWAPS, ids=range(len(SWAPS)))
def test_in_llama_swap_only_the_flags_and_the_limit_of_the_model_change(text: str) -> None:
    edited = swap(text)
    old, new = _yaml(text), _yaml(edited.text)
    line = [word.value for word in words(new["models"]["mine"].pop("cmd"))]
    old["models"]["mine"].pop("cmd")
    assert line[line.index("-np") + 1] == "4"
    if old["models"]["mine"].pop("concurrencyLimit", None) is not None:
        assert new["models"]["mine"].pop("concurrencyLimit") == 4
    assert new == old
    assert swap(edited.text) == Edited(edited.text)
    assert "sk-of-somebody-else" not in edited.diff
    _lines_beside_are_equal(text, edited.text)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(_yaml(edited.text))


SCHEMA = Path(__file__).with_name("llama-swap.config.schema.json")


def test_a_model_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(NotOurs, match="mine, other"):
        llama.edit_swap(SWAPS[0], RECIPE, "b")
    for text in ("a: [", "models: 3\n", "models:\n  mine:\n    cmd: [a, b]\n"):
        with pytest.raises(NotOurs):
            swap(text)
    with pytest.raises(NotOurs, match="no section"):
        llama.edit_presets(PRESETS[0], RECIPE, "b")
    with pytest.raises(NotOurs, match="more than one"):
        preset("[mine]\na = 1\n[mine]\nb = 2\n")


@pytest.mark.parametrize("text", PRESETS, ids=range(len(PRESETS)))
def test_in_a_preset_only_the_keys_of_the_recipe_in_its_section_change(text: str) -> None:
    edited = preset(text)
    old, new = _ini(text), _ini(edited.text)
    ours = {flag.lstrip("-") for made in RECIPE.settings.values() for flag in made.flags}
    got = new["mine"]
    assert {got.get("np") or got["parallel"], got.get("c") or got["ctx-size"]} == {"4", "8000"}
    for section in old:
        kept = {key: value for key, value in old[section].items() if key not in ours}
        assert kept == {key: value for key, value in new[section].items() if key not in ours}
        if section != "mine":
            assert old[section] == new[section]
    assert preset(edited.text) == Edited(edited.text)
    _lines_beside_are_equal(text, edited.text)
    assert edited.text.count("\r\n") in (0, edited.text.count("\n"))


def test_a_script_serves_the_recipe_and_one_of_somebody_else_stays() -> None:
    edited = ours.script("", RECIPE)
    assert edited.text.startswith("#!/bin/sh\n")
    assert f'exec {SERVE} "$@"\n' in edited.text
    assert ours.script(edited.text, RECIPE) == Edited(edited.text)
    with pytest.raises(NotOurs, match="move it aside"):
        ours.script("#!/bin/sh\nrm -rf x\n", RECIPE)


def test_a_knob_that_the_run_did_not_search_keeps_what_stands_there() -> None:
    line = "[Service]\nExecStart=llama-server -m /m/a.gguf -c 32768 -np 2\n"
    edited = ours.drop_in([line], "", wanted(all_knobs=False, model=True), LLAMA.commands)
    assert "-c 32768 -np 2" in edited.text
    assert "-m /new/b.gguf" in edited.text
    assert len(edited.remarks) == 2
    gone = ours.drop_in([line], edited.text, wanted(all_knobs=False), LLAMA.commands)
    assert "-m /m/a.gguf" in gone.text


def test_what_a_command_line_lacks_of_the_recipe_is_not_in_effect() -> None:
    assert not_in_effect(f"{SERVE} -ctk q8_0 -ctv q8_0".split(), RECIPE) == ()
    assert not_in_effect(f"{SERVE} -ctk q8_0 -ctv q8_0".replace("-np 4", "-np 1").split(), RECIPE)


KNOBS = st.builds(Knobs, st.sampled_from([None, 4, 8]), st.integers(1, 64), st.integers(1, 10**6))
EDITS: list[tuple[tuple[str, ...], Callable[[str, Recipe], Edited]]] = [
    (SWAPS, swap),
    (PRESETS, preset),
]


@settings(max_examples=40, deadline=None)
@given(st.data(), KNOBS, KNOBS)
def test_twice_is_once_and_any_recipe_can_follow_any_other(
    data: st.DataObject, first: Knobs, second: Knobs
) -> None:
    corpus, edit = data.draw(st.sampled_from(EDITS))
    text = data.draw(st.sampled_from(corpus))
    once = edit(text, wanted(first)).text
    assert edit(once, wanted(first)).text == once
    after = edit(edit(once, wanted(second)).text, wanted(first)).text
    assert edit(after, wanted(first)) == Edited(after)
    unit = data.draw(st.sampled_from(UNITS))
    made = ours.drop_in([unit], "", wanted(first), SERVERS).text
    again = ours.drop_in([unit], made, wanted(second), SERVERS).text
    assert again == ours.drop_in([unit], "", wanted(second), SERVERS).text


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.sampled_from(COMMANDS), KNOBS)
@example("0'", COMMANDS[0], Knobs(None, 1, 1))
def test_whatever_else_a_file_holds_nothing_but_ours_changes_or_it_is_refused(
    odd: str, line: str, knobs: Knobs
) -> None:
    for text, edit in (
        (f"models:\n  mine:\n    cmd: {odd}\n    ttl: 1\n", swap),
        (f"[mine]\nnp = 1\n{odd}\n[x]\nnp = 1\n", preset),
    ):
        try:
            edited = edit(text, wanted(knobs))
        except NotOurs:
            continue
        assert edit(edited.text, wanted(knobs)).text == edited.text
    assert ours.drop_in([f"[Service]\nExecStart={line}\n"], "", wanted(knobs), SERVERS).text


def _lines_beside_are_equal(before: str, after: str) -> None:
    """Comments, blank lines, order and line ends: every line without one of our flags stands as it was."""
    ours = {flag.lstrip("-") for made in RECIPE.settings.values() for flag in made.flags}
    ours |= {"concurrencyLimit", "cmd", "-m"}

    now = after.splitlines()

    def others(lines: list[str]) -> list[str]:
        """Without those that have one of ours, or to which it was added."""
        plain = (line for line in lines if not any(word in line for word in ours))
        return [line for line in plain if not any(one.startswith(f"{line} -") for one in now)]

    assert others(before.splitlines()) == others(now)


def _yaml(text: str) -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(text))


def _ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(
        delimiters=("=",), comment_prefixes=("#", ";"), interpolation=None, strict=False
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_file(io.StringIO(f"[top]\n{text}"))
    return {name.partition("]")[0]: dict(parser[name]) for name in parser.sections()}
