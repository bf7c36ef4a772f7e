"""The launcher of llama.cpp's server in a wheel takes the flags that the description writes."""

from __future__ import annotations

from typing import Any

import pytest
import xllamacpp

from autotuned.descriptions import shipped
from autotuned.providers import llama_launcher

KNOBS = shipped()["llama-server"].knobs
NAMES = {"max_context": 1, "max_batch": 1}


def parameters(*words: str) -> Any:
    flags = llama_launcher.parser().parse_args(["-m", "m.gguf", *words])
    return llama_launcher._parameters(xllamacpp, flags)


@pytest.mark.parametrize("name", sorted(set(KNOBS) - {"cpu_moe"}))
def test_every_knob_of_the_description_but_one_is_understood(name: str) -> None:
    knob = KNOBS[name]
    values = knob.values or knob.default_axis or ("d.gguf" if knob.type == "text" else 3,)
    for value in values:
        assert parameters(*knob.words(value, NAMES)).model.path == "m.gguf"
    for flag in knob.flags:
        assert any(flag in action.option_strings for action in llama_launcher.parser()._actions)


def test_a_knob_reaches_the_library_and_its_default_is_left_alone() -> None:
    plain, library = parameters(), xllamacpp.CommonParams()
    for name in ("n_batch", "n_ubatch", "n_gpu_layers", "flash_attn_type", "load_mode"):
        assert getattr(plain, name) == getattr(library, name)
    assert plain.speculative.types == library.speculative.types
    made = parameters(
        *[
            "-t",
            "2",
            "-tb",
            "3",
            "-b",
            "64",
            "-ub",
            "32",
            "-ngl",
            "5",
            "-fa",
            "on",
            "--no-mmap",
            "--mlock",
        ]
    )
    assert (made.cpuparams.n_threads, made.cpuparams_batch.n_threads) == (2, 3)
    assert (made.n_batch, made.n_ubatch, made.n_gpu_layers) == (64, 32, 5)
    assert made.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert made.load_mode == xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MLOCK
    draft = parameters("-md", "d.gguf", "--draft-max", "7").speculative
    assert (draft.draft.mparams.path, draft.draft.n_max) == ("d.gguf", 7)
    kinds = xllamacpp.common_speculative_type
    assert draft.types == [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
    ngram = parameters("--spec-type", "ngram-mod").speculative
    assert ngram.types == [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_MOD]
