"""The list of the cache: what is there, by the ids under which it would be asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuned.weights.inventory import Shelved, shelf
from autotuned.weights.verified import Ledger
from tests.support.fake_hub import model_files
from tests.support.models import Shape, write_gguf, write_snapshot


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache."""
    return tmp_path / ".cache" / "huggingface" / "hub"


def listed(tmp_path: Path) -> dict[str, Shelved]:
    found = shelf({"HOME": str(tmp_path)}, Ledger(tmp_path / "weights.json"))
    return {entry.model: entry for entry in found}


def test_an_empty_or_absent_cache_has_no_models(tmp_path: Path, cache: Path) -> None:
    assert listed(tmp_path) == {}
    cache.mkdir(parents=True)
    assert listed(tmp_path) == {}


def test_a_gguf_repository_is_listed_by_quant(tmp_path: Path, cache: Path) -> None:
    folder = write_snapshot(cache, "acme/m-7B-GGUF")
    shape = Shape(width=32, layers=1, heads=2, feed_forward=32)
    data = write_gguf(tmp_path / "whole.gguf", shape).read_bytes()
    (folder / "m-7B-Q4_K_M.gguf").write_bytes(data)
    (folder / "m-7B-IQ3_XS.gguf").write_bytes(data[:-10])
    (folder / "m-7B-Q8_0-00001-of-00002.gguf").write_bytes(data)
    found = listed(tmp_path)
    assert {model: entry.complete for model, entry in found.items()} == {
        "acme/m-7B-GGUF:IQ3_XS": False,
        "acme/m-7B-GGUF:Q4_K_M": True,
        "acme/m-7B-GGUF:Q8_0": False,
    }
    assert "lies outside of the file" in (found["acme/m-7B-GGUF:IQ3_XS"].reason or "")
    assert "00002-of-00002" in (found["acme/m-7B-GGUF:Q8_0"].reason or "")


def test_a_folder_of_mlx_is_listed_with_what_it_lacks(tmp_path: Path, cache: Path) -> None:
    small, large = model_files(shards=2)
    for name, lost in (("whole-1B", ""), ("cut-1B", "model-00002"), ("mute-1B", "tokenizer")):
        folder = write_snapshot(cache, f"acme/{name}")
        for file, data in (small | large).items():
            if not lost or not file.startswith(lost):
                (folder / file).write_bytes(data)
    found = listed(tmp_path)
    assert found["acme/whole-1B"].complete
    assert found["acme/whole-1B"].weights_bytes > 4096
    assert "model-00002" in (found["acme/cut-1B"].reason or "")
    assert "no tokenizer" in (found["acme/mute-1B"].reason or "")


def test_a_download_that_broke_off_is_listed_and_what_is_no_model_is_not(
    tmp_path: Path, cache: Path
) -> None:
    blobs = cache / "models--acme--half-3B" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "e.autotuned.incomplete").write_bytes(b"half")
    (write_snapshot(cache, "acme/only-a-tokenizer") / "tokenizer.json").write_bytes(b"{}")
    (cache / "datasets--acme--d").mkdir()
    found = listed(tmp_path)
    assert list(found) == ["acme/half-3B"]
    assert (found["acme/half-3B"].complete, found["acme/half-3B"].weights_bytes) == (False, 4)
