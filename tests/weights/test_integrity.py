"""What is wrong with weights is a sentence, whatever bytes the files hold."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotuned.weights import integrity
from autotuned.weights.integrity import Defect
from tests.support.home import whole_model
from tests.support.models import Shape, write_gguf, write_mlx

SMALL = Shape(width=32, layers=1, heads=2, feed_forward=64)


def folder_of(path: Path, **changed: bytes | None) -> Path:
    """The smallest whole model folder with some of its files changed (`__` reads `.`) or left out."""
    path.mkdir(exist_ok=True)
    for name, content in {
        **whole_model(),
        **{name.replace("__", "."): content for name, content in changed.items()},
    }.items():
        if content is not None:
            (path / name).write_bytes(content)
    return path


def safetensors(header: Any, data: int = 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def index(**places: str) -> bytes:
    return json.dumps({"weight_map": places}).encode()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", SMALL).read_bytes()


def test_whole_models_pass(tmp_path: Path) -> None:
    integrity.check_folder(folder_of(tmp_path / "a"))
    integrity.check_folder(write_mlx(tmp_path / "b", SMALL, shards=2))
    assert integrity.check_gguf(write_gguf(tmp_path / "c.gguf", SMALL)) == (
        "<|endoftext|>",
        "<|im_end|>",
        "<|im_start|>",
    )
    assert "<|im_end|>" in integrity.special_tokens(tmp_path / "b")


@pytest.mark.parametrize(
    ("changed", "defect"),
    [
        ({"config__json": None}, "no config.json"),
        ({"config__json": b"{"}, "config.json: is no JSON"),
        ({"config__json": b"[]"}, "config.json: is no JSON object"),
        ({"config__json": b"[" * 100_000}, "config.json: is no JSON"),
        ({"tokenizer__json": None}, "no tokenizer"),
        ({"model__safetensors": None}, "no weights"),
        ({"model__safetensors": b""}, "ends in the middle"),
        ({"model__safetensors": bytes(4)}, "ends in the middle"),
        ({"model__safetensors": struct.pack("<Q", 2**60) + b"x"}, "does not fit into the file"),
        ({"model__safetensors": safetensors(b"{nope")}, "header is no JSON"),
        ({"model__safetensors": safetensors([])}, "no table of tensors"),
        ({"model__safetensors": safetensors({"w": {"data_offsets": [0, 9]}})}, "w lies outside"),
        ({"model__safetensors": safetensors({"w": {"data_offsets": [4, 2]}})}, "w lies outside"),
        ({"model__safetensors": safetensors({"w": {"data_offsets": ["a", 2]}})}, "w lies outside"),
        ({"model__safetensors": safetensors({"w": 7})}, "w lies outside"),
        (
            {"model__safetensors__index__json": index(weight="gone.safetensors")},
            "shards that are absent: gone.safetensors",
        ),
        ({"config__json": b'{"model_file": "mine.py"}'}, "config.json names mine.py"),
        ({"model__safetensors__index__json": b"{}"}, "has no weight_map"),
        ({"model__safetensors__index__json": index(w="../../etc/passwd")}, "has no weight_map"),
    ],
    ids=range(19),
)
def test_a_folder_with_a_defect_is_told_by_file_and_rule(
    tmp_path: Path, changed: dict[str, bytes | None], defect: str
) -> None:
    with pytest.raises(Defect, match=defect):
        integrity.check_folder(folder_of(tmp_path / "m", **changed))


def test_an_index_that_places_a_tensor_elsewhere_is_for_the_server_to_judge(tmp_path: Path) -> None:
    misplaced = index(other="model.safetensors")
    integrity.check_folder(folder_of(tmp_path / "m", model__safetensors__index__json=misplaced))


def test_every_cut_of_a_gguf_file_is_a_defect(tmp_path: Path, gguf: bytes) -> None:
    path = tmp_path / "cut.gguf"
    for length in [*range(0, 400, 7), *range(400, len(gguf), len(gguf) // 40), len(gguf) - 1]:
        path.write_bytes(gguf[:length])
        with pytest.raises(Defect):
            integrity.check_gguf(path)


@settings(max_examples=80, suppress_health_check=[*HealthCheck])
@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
    )
)
def test_no_bytes_of_a_gguf_header_make_the_check_raise_anything_else(
    tmp_path: Path, gguf: bytes, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(gguf)
    for place, piece in changes:
        data[place : place + len(piece)] = piece
    (tmp_path / "x.gguf").write_bytes(data)
    try:
        tokens = integrity.check_gguf(tmp_path / "x.gguf")
    except Defect:
        return
    assert all(isinstance(token, str) for token in tokens)


def header(**entries: tuple[int, bytes]) -> bytes:
    """A GGUF file of metadata only."""
    made = b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries))
    for key, (kind, value) in entries.items():
        name = key.replace("__", ".").encode()
        made += struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value
    return made


@pytest.mark.parametrize(
    "content",
    [
        b"GGML" + bytes(20),
        header(general__alignment=(4, struct.pack("<I", 0))),
        header(general__alignment=(8, struct.pack("<Q", 1) + b"x")),
        header(general__alignment=(6, struct.pack("<f", float("nan")))),
        header(x=(99, b"")),
        header(x=(8, struct.pack("<Q", 2**62))),
        header(x=(9, struct.pack("<IQ", 9, 2**62))),
        b"GGUF" + struct.pack("<IQQ", 3, 2**62, 2**62),
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
        b"GGUF"
        + struct.pack("<IQQ", 3, 1, 0)
        + struct.pack("<Q", 1)
        + b"t"
        + struct.pack("<I", 99),
    ],
    ids=range(10),
)
def test_a_senseless_gguf_header_is_a_defect(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(Defect):
        integrity.check_gguf(tmp_path / "x.gguf")


def test_a_gguf_file_without_or_with_an_odd_tokenizer_has_no_special_tokens(tmp_path: Path) -> None:
    for name, content in {
        "none": header(),
        "odd": header(
            tokenizer__ggml__tokens=(4, struct.pack("<I", 5)),
            tokenizer__ggml__token_type=(4, bytes(4)),
        ),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert integrity.check_gguf(tmp_path / name) == ()


@pytest.mark.parametrize(
    ("name", "document", "tokens"),
    [
        ("tokenizer.json", {"added_tokens": [{"content": "<|a|>", "special": True}]}, ("<|a|>",)),
        ("tokenizer.json", {"added_tokens": [{"content": "plain", "special": False}]}, ()),
        (
            "tokenizer_config.json",
            {"eos_token": "</s>", "pad_token": {"content": "<pad>"}},
            ("</s>", "<pad>"),
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"1": {"content": "<x>", "special": True}}},
            ("<x>",),
        ),
        (
            "tokenizer_config.json",
            {"eos_token": {"content": None}, "bos_token": {"content": [1]}},
            (),
        ),
        (
            "tokenizer.json",
            {"added_tokens": [{"content": 5, "special": True}, 7], "eos_token": "x"},
            (),
        ),
        ("tokenizer.json", {"added_tokens": "odd", "added_tokens_decoder": []}, ()),
        ("special_tokens_map.json", {"eos_token": "<\ud800>"}, ()),
        (
            "special_tokens_map.json",
            {"additional_special_tokens": ["<|a|>", {"content": "<|b|>"}, 5]},
            ("<|a|>", "<|b|>"),
        ),
        ("tokenizer_config.json", {"extra_special_tokens": ["<|c|>"]}, ("<|c|>",)),
        ("tokenizer_config.json", {"extra_special_tokens": {"image": "<|d|>"}}, ("<|d|>",)),
        ("tokenizer_config.json", {"extra_special_tokens": "odd"}, ()),
    ],
    ids=range(12),
)
def test_special_tokens_are_read_from_files_of_any_shape(
    tmp_path: Path, name: str, document: dict[str, Any], tokens: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(json.dumps(document), encoding="utf-8")
    assert integrity.special_tokens(tmp_path) == tokens


def test_the_longest_context_a_model_was_made_for_is_read_from_its_weights(tmp_path: Path) -> None:
    plain = folder_of(tmp_path / "a", config__json=b'{"max_position_embeddings": 8192}')
    assert integrity.context_window(plain) == 8192
    text = b'{"text_config": {"max_position_embeddings": 32768}, "max_position_embeddings": 512}'
    assert integrity.context_window(folder_of(tmp_path / "b", config__json=text)) == 32_768
    for odd in (b"{}", b"no json", b'{"max_position_embeddings": "8192"}', b'{"text_config": 1}'):
        assert integrity.context_window(folder_of(tmp_path / "c", config__json=odd)) is None
    whole = write_gguf(tmp_path / "d.gguf", SMALL)
    window = integrity.context_window(whole)
    assert window is not None
    assert window > 0
    (tmp_path / "e.gguf").write_bytes(whole.read_bytes()[:40])
    assert integrity.context_window(tmp_path / "e.gguf") is None
    assert integrity.context_window(tmp_path / "nowhere.gguf") is None
