"""What is wrong with a value is said in the user's words, whichever model has refused it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from autotuned import server_spec, settings
from autotuned.core.request import TuneRequest
from autotuned.core.schedule import Schedule
from autotuned.errors import RULES, SettingsError, invalid, shown
from autotuned.rpc import methods
from autotuned.rpc.method import Params

VALUES: list[Any] = [
    None, True, "x", "", 1.5, -1, 0, 10**9, math.nan, "9" * 5000,
    [], ["x"], [1.5], [None], [[1]], {}, {"x": 1},
]  # fmt: skip
FOREIGN = (
    "valid tuple",
    "dictionary",
    "Extra inputs",
    "pydantic",
    "class",
    "None",
    "True",
    "Input",
)


SERVER = "[candidates]\nown = ['a/b']\n[servers.v]\ncommand = ['x']\n"


def params_models(base: type[BaseModel] = Params) -> Iterator[type[BaseModel]]:
    """The parameters of every method, and all that is built on them."""
    for model in base.__subclasses__():
        if model.__module__.startswith("autotuned."):  # other tests have some of their own
            yield model
        yield from params_models(model)


def refusals() -> dict[str, ValidationError]:
    """One error of each type that any model produces from a value of any kind."""
    assert methods.__name__  # its modules are loaded: their models are subclasses by now
    sections = settings._Section.__subclasses__()
    models: list[type[BaseModel]] = [
        TuneRequest,
        Schedule,
        settings._File,
        *sections,
        *server_spec.Part.__subclasses__(),
        *params_models(),
    ]
    found: dict[str, ValidationError] = {}
    for model in models:
        trials = [{}, {"unheard_of": 1}, *({n: v} for n in model.model_fields for v in VALUES)]
        for trial in trials:
            try:
                model.model_validate(trial)
            except ValidationError as error:
                for each in error.errors():
                    if each["loc"][:1] == error.errors()[0]["loc"][:1]:
                        found.setdefault(error.errors()[0]["type"], error)
    return found


FOUND = refusals()


def test_every_type_of_error_that_a_model_produces_has_its_sentence() -> None:
    assert set(FOUND) == set(RULES)


@pytest.mark.parametrize("kind", sorted(RULES))
def test_a_sentence_names_field_and_rule_and_nothing_of_the_language_behind(kind: str) -> None:
    problem = invalid(FOUND[kind])
    assert problem.message.startswith(f"{problem.field}: ")
    assert problem.message.endswith(problem.rule)
    assert not [word for word in FOREIGN if word in problem.message], problem.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[provder]\nkind = 'auto'\n", "provder: {'kind': 'auto'} is not known; did you mean"),
        (
            f"[server.v]\ncommand = ['{'x' * 80}']\n",
            "server: {...} is not known; did you mean servers?",
        ),
        ("[provider]\nbinry = 'x'\n", "'x' is not known; did you mean provider.binary?"),
        ("[provider]\nkind = 'mlx'\n", "provider.kind: 'mlx' should be 'auto', 'macprovider'"),
        ("[servers]\nauto.command = ['x']\n", "servers: 'auto' is no name of a server"),
        (SERVER + "comand = ['x']", "did you mean servers.v.command?"),
        ("[servers.v]\nversion = ['x']\n", "servers.v.command: must be given"),
        ("[servers.v]\ncomand = ['x']\n", "did you mean servers.v.command?"),
        ("[servers.v]\ncommand = 'x'\n", "servers.v.command: 'x' should be a list"),
        ("[servers.v]\ncommand = []\n", "servers.v.command: [] should not be empty"),
        (SERVER + "env = { A = 1 }", "servers.v.env.A: 1 should be text"),
        (
            SERVER + "weights = 'gguf2'",
            "'gguf2' should be 'safetensors' or 'gguf'; did you mean gguf",
        ),
        (
            "[servers.v]\ncommand = ['x', '{modle}']\n",
            "servers.v.command: '{modle}' names modle, which is none of context, folder, model, port, "
            "source, weights; did you mean model?",
        ),
        (
            SERVER + "candidate = ['{port - 1}']",
            "servers.v.candidate: '{port - 1}' cannot be used: ",
        ),
        (SERVER + "defaults = ['{model + 1}']", "only numbers can be added or multiplied"),
        (
            SERVER + "defaults = ['{port.real}']",
            "is no name, sum or product of names and whole numb",
        ),
        (SERVER + "ready = ['health']", "servers.v.ready: 'health' is no path such as /v1/models"),
        (
            SERVER + "candidates = 'gguff'",
            "'gguff' is none of mlx, gguf, safetensors, own; did you m",
        ),
        (SERVER + "defaults = ['{context']", "'{context' has a brace without its other half"),
        (SERVER + "scrub = ['']", "servers.v.scrub: '' should not be empty"),
        (SERVER + "process = [' ']", "servers.v.process: ' ' should not be empty"),
        (
            SERVER + "knobs.a = { flag = ['-a'], type = 'float', default_axis = [1.5, inf] }",
            "inf should be a number, text, true or false",
        ),
        (
            SERVER + "single_stream = 'yes'",
            "servers.v.single_stream: 'yes' should be true or false",
        ),
        (SERVER + "knobs.a = { flag = ['-a'], lossy = 1 }", "a.lossy: 1 should be true or false"),
        (SERVER + "knobs.a = { flag = ['-a'], min = '3' }", "a.min: '3' should be a valid number"),
        (SERVER + "knobs.a = { flag = ['-a'], min = 3, max = 2 }", "a.min: 3.0 is above max, 2"),
        (SERVER + "knobs.a = { flag = ['-a'], default_axis = [4, 4] }", "4 is given twice"),
        (SERVER + "log_prefix = '('", "servers.v.log_prefix: '(' is no regular expression"),
        (SERVER + "knobs.a = {}", "servers.v.knobs.a.flag: must be given, or values"),
        (SERVER + "knobs.a = { flag = ['-a'], values = {} }", "cannot be given beside values"),
        (SERVER + "knobs.a = { flags = ['-a'] }", "did you mean servers.v.knobs.a.flag?"),
        (SERVER + "knobs.a-b = { flag = ['-a'] }", "knobs: 'a-b' is no name of small letters"),
        (
            SERVER + "knobs.a = { flag = ['-a', '{valu}'] }",
            "servers.v.knobs.a.flag: '{valu}' names v",
        ),
        (SERVER + "knobs.a = { flag = ['-a'], type = 'in' }", "knobs.a.type: 'in' should be 'int'"),
        (
            SERVER + "knobs.a = { flag = ['-a'], min = 'x' }",
            "knobs.a.min: 'x' should be a valid numb",
        ),
        (SERVER + "knobs.a = { flag = ['-a'], max = 3, default_axis = [4] }", "4 is above 3"),
        (SERVER + "knobs.a = { flag = ['-a'], default_axis = [[1]] }", "should be a number, text,"),
        (
            SERVER + "knobs.a = { flag = ['-a'], needs = { b = 1 } }",
            "knobs.a.needs: 'b' is no knob",
        ),
        (SERVER + "knobs.a = { flag = ['-a'], aliases = { '-b' = ['-c'] } }", "'-b' is no flag of"),
        (
            SERVER + "knobs.a = { flag = ['-a', '1', '-b', '2'], aliases = ['-c'] }",
            "should be a table of flags and their spellings, for -a, -b",
        ),
        (
            "[provider]\nkind = 'mine2'\n[servers.mine]\ncommand = ['x']\n",
            "or 'vllm'; did you mean mine?",
        ),
        ("provider = 3\n", "provider: 3 should be a table of names and values"),
    ],
)
def test_settings_that_cannot_be_used_name_the_key_and_the_nearest_one(
    tmp_path: Any, text: str, message: str
) -> None:
    folder = tmp_path / ".config" / "macprovider"
    folder.mkdir(parents=True)
    (folder / "autotuned.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        settings.load({"HOME": str(tmp_path)})
    assert message in refused.value.message


def test_a_value_is_spelt_as_json_and_toml_spell_it() -> None:
    assert shown([None, True, False, "a", 1.5, []]) == "[null, true, false, 'a', 1.5, []]"
