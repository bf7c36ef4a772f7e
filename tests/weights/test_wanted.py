"""Which files of a repository are wanted, by their names."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.weights import selection

QUANTS = ("Q2_K", "Q3_K_S", "Q4_0", "Q4_K", "Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0", "F16", "IQ4_XS")


@pytest.mark.parametrize(
    ("names", "quant", "chosen"),
    [
        (["m-Q4_K_S.gguf", "m-Q4_K_M.gguf"], "", ["m-Q4_K_M.gguf"]),
        (["m-Q2_K.gguf", "m-Q8_0.gguf"], "", ["m-Q8_0.gguf"]),
        (["m-Q5_K_M.gguf", "m-Q2_K.gguf"], "", ["m-Q2_K.gguf"]),
        (["m-Q4_K_M.gguf"], "Q4_K", []),
        (["m-Q4_K_M.gguf"], "q4_k_m", ["m-Q4_K_M.gguf"]),
        (["m.q4_0.gguf"], "Q4_0", ["m.q4_0.gguf"]),
        (["m-IQ4_XS.gguf"], "Q4_XS", []),
        (["m-UD-Q4_K_XL.gguf"], "UD-Q4_K_XL", ["m-UD-Q4_K_XL.gguf"]),
        (["mmproj-F16.gguf", "m-F16.gguf"], "F16", ["m-F16.gguf"]),
        (["imatrix.gguf"], "", []),
        (["README.md"], "", []),
        (
            ["gemma-4-E2B-it-Q8_0.gguf", "MTP/gemma-4-E2B-it-Q8_0-MTP.gguf"],
            "Q8_0",
            ["gemma-4-E2B-it-Q8_0.gguf"],
        ),
        (
            ["ornith-9b-mtp-kl-Q8_0.gguf", "mtp-ornith-9b-mtp-kl-Q8_0.gguf"],
            "",
            ["ornith-9b-mtp-kl-Q8_0.gguf"],
        ),
        (["chat-Q4_K_M.gguf", "adapter-lora-Q4_K_M.gguf"], "Q4_K_M", ["chat-Q4_K_M.gguf"]),
        (["chat-Q4_K_M.gguf", "adapter-lora-Q8_0.gguf"], "Q8_0", []),
        (["chat-Q8_0.gguf", "a-chat-draft-Q4_K_M.gguf"], "", ["chat-Q8_0.gguf"]),
        (["drafts/x-Q4_0.gguf", "x-eagle3-Q4_0.gguf"], "Q4_0", ["drafts/x-Q4_0.gguf"]),
        (["a-vocab.gguf", "m.gguf", "m.imatrix.gguf", ".imatrix.gguf"], "", ["m.gguf"]),
        (["alpaca-lora-7B-Q4_K_M.gguf"], "Q4_K_M", ["alpaca-lora-7B-Q4_K_M.gguf"]),
        (["m-imatrix-Q4_K_M.gguf", "imatrix_wiki.gguf"], "", ["m-imatrix-Q4_K_M.gguf"]),
        (["._A-1B-Q4_K_M.gguf", "A-1B-Q4_K_M.gguf"], "Q4_K_M", ["A-1B-Q4_K_M.gguf"]),
        (["__MACOSX/A-Q4_0.gguf", "q/._A-Q4_0.gguf"], "", []),
        (
            ["Q8_0/m-Q8_0-00002-of-00002.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf"],
            "Q8_0",
            ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"],
        ),
    ],
)
def test_a_gguf_repository_and_quant_mean_one_file_or_its_parts(
    names: list[str], quant: str, chosen: list[str]
) -> None:
    assert selection.gguf(names, quant) == chosen


@given(st.sampled_from(QUANTS), st.lists(st.sampled_from(QUANTS), unique=True))
def test_a_quant_never_matches_another_one(quant: str, there: list[str]) -> None:
    found = selection.gguf([f"model-7B-{name}.gguf" for name in there], quant)
    assert found == ([f"model-7B-{quant}.gguf"] if quant in there else [])


def test_of_two_layouts_the_servers_own_is_fetched() -> None:
    names = ["consolidated.safetensors", "model.safetensors", "original/model.safetensors"]
    assert selection.mlx_weights(names) == ["model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert selection.mlx_weights([*names, *shards, selection.INDEX]) == shards
    assert selection.mlx_weights(["weights.00.safetensors"]) == ["weights.00.safetensors"]


def test_small_files_are_all_that_mlx_lm_fetches_beside_the_weights() -> None:
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or spec.origin is None:
        pytest.skip("mlx-lm is not installed")
    source = Path(spec.origin).with_name("utils.py").read_text(encoding="utf-8")
    (listed,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEFAULT_ALLOW_PATTERNS"
    )
    patterns = [pattern for pattern in listed if not pattern.endswith(".safetensors")]
    assert len(patterns) >= 5
    names = [*(p.replace("*", "x") for p in patterns), "tokenizer.model", "code/x.py", "a/b.json"]
    others = ["README.md", "model.bin", "._config.json", ".DS_Store", ".cache/a.json"]
    assert selection.mlx_small([*names, *others]) == sorted(names)


def test_missing_parts_are_judged_by_the_names_of_the_others() -> None:
    assert selection.missing_parts(["m-00002-of-00003.gguf"]) == [
        "m-00001-of-00003.gguf",
        "m-00003-of-00003.gguf",
    ]
    assert selection.missing_parts(["m.gguf"]) == []
