"""Are the weights what they should be? Looks at headers, tables and names, never at the tensors.

A defect is raised as a sentence. Cheap for files of any size, sparse ones too.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from autotuned.weights import selection

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "tekken.json",
    "tiktoken.model",
    "tokenizer_config.json",
)
HEADER_MAX_BYTES = 100 * 1024 * 1024

GGUF_MAX_ENTRIES = 1 << 20
GGUF_MAX_STRING = 1 << 26
_GGUF_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Type of a value to its letter in `struct`."""
_GGUF_STRING, _GGUF_ARRAY = 8, 9
_GGUF_CONTROL = 3
_GGML_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    30: (1, 2),
}
"""Tensor type to (elements, bytes) of one block; types that are newer than this table are not measured."""


class Defect(Exception):
    """What is wrong, as a sentence."""


class Lacking(Defect):
    """What is not there at all: of a repository in the cache the hub may still bring it."""


def check_folder(folder: Path) -> None:
    """A model folder as mlx reads it: config, tokenizer, all shards whole. Raises Defect."""
    config = _json(folder / "config.json")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        message = "no tokenizer (" + ", ".join(TOKENIZERS[:3]) + ", ...)"
        raise Lacking(message)
    code = config.get("model_file")
    if isinstance(code, str) and code and not (folder / code).is_file():
        message = f"config.json names {code:.100}, which is absent"
        raise Lacking(message)
    for name in weight_files(folder):  # what a shard must hold is for the server to judge
        check_safetensors(folder / name)


def weight_files(folder: Path) -> list[str]:
    """The names of a folder's weight files: those of the index, else all. Raises Defect when one is absent."""
    index = folder / selection.INDEX
    if index.is_file():
        names = shards(index)
        absent = [name for name in names if not (folder / name).is_file()]
        source = f"{selection.INDEX} names"
    else:
        names = selection.mlx_weights(path.name for path in folder.glob("*.safetensors"))
        absent = selection.missing_parts(names)
        source = "the names of the others speak of"
    if not names:
        message = "no weights (*.safetensors)"
        raise Lacking(message)
    if absent:
        message = f"{source} shards that are absent: {', '.join(absent[:3])}"
        raise Lacking(message)
    return names


def shards(index: Path) -> list[str]:
    """The names of the weight files that an index places tensors in. Raises Defect."""
    found = _json(index).get("weight_map")
    names = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(name, str) and "/" not in name for name in names):
        _refuse(index, "has no weight_map")
    return sorted(set(names))


def check_safetensors(path: Path) -> None:
    """A file's header is whole, and all its tensors lie within the file. Raises Defect."""
    size = path.stat().st_size
    with path.open("rb") as file:
        read = _Header(file, path)
        (length,) = read.numbers("Q")
        if length > min(HEADER_MAX_BYTES, size - 8):
            _refuse(path, f"its header of {length} bytes does not fit into the file of {size}")
        try:
            header = json.loads(read.exactly(length))
        except (ValueError, RecursionError) as error:
            _refuse(path, f"its header is no JSON: {error}")
    if not isinstance(header, dict):
        _refuse(path, "its header is no table of tensors")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end <= size - 8 - length:
                pass
            case _:
                _refuse(path, f"tensor {name} lies outside of the file")


def special_tokens(folder: Path) -> tuple[str, ...]:
    """The model's own special tokens, from its tokenizer files; empty where they do not tell."""
    found: list[object] = []
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        try:
            document = _json(folder / name)
        except Defect:
            continue
        added = document.get("added_tokens", ())
        decoder = document.get("added_tokens_decoder", {})
        entries = [
            *(added if isinstance(added, list) else ()),
            *(decoder.values() if isinstance(decoder, dict) else ()),
        ]
        found += [e.get("content") for e in entries if isinstance(e, dict) and e.get("special")]
        named = [value for key, value in document.items() if key.endswith("_token")]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = document.get(key)
            if isinstance(more, dict):
                named += more.values()
            elif isinstance(more, list):
                named += more
        found += [
            value if isinstance(value, str) else value.get("content")
            for value in named
            if isinstance(value, str | dict)
        ]
    return _tokens(found)


def check_gguf(path: Path) -> tuple[str, ...]:
    """A whole GGUF file: magic, metadata and tensor table within its length. Its control tokens. Raises Defect."""
    size = path.stat().st_size
    with path.open("rb") as file:
        read = _Header(file, path)
        if read.exactly(4) != b"GGUF":
            _refuse(path, "is no GGUF file")
        version, tensors, entries = read.numbers("IQQ")
        if version not in (2, 3) or max(tensors, entries) > GGUF_MAX_ENTRIES:
            holds = f"{tensors} tensors and {entries} entries"
            _refuse(path, f"GGUF version {version} with {holds} makes no sense")
        metadata = dict(read.entry() for _ in range(entries))
        table = [read.tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            _refuse(path, f"an alignment of {alignment!r:.40} makes no sense")
        data = -(-file.tell() // alignment) * alignment
    for name, offset, length in table:
        if data + offset + length > size:
            _refuse(path, f"tensor {name} lies outside of the file")
    words = metadata.get("tokenizer.ggml.tokens")
    kinds = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(words, list) or not isinstance(kinds, list):
        return ()
    return _tokens([w for w, kind in zip(words, kinds, strict=False) if kind == _GGUF_CONTROL])


def context_window(path: Path) -> int | None:
    """The longest context that a model was made for, in tokens; None where its weights do not say."""
    try:
        if path.is_dir():
            config = _json(path / "config.json")
            holders = [
                each for each in (config.get("text_config"), config) if isinstance(each, dict)
            ]
            found = [holder.get("max_position_embeddings") for holder in holders]
        else:
            with path.open("rb") as file:
                read = _Header(file, path)
                read.exactly(16)
                (count,) = read.numbers("Q")
                entries = (read.entry() for _ in range(count))
                found = [value for key, value in entries if key.endswith(".context_length")]
    except (OSError, Defect):
        return None
    return next((value for value in found if type(value) is int and value > 0), None)


def _tokens(found: Sequence[object]) -> tuple[str, ...]:
    """Those of `found` that are words of two letters and more, each once; files hold anything."""
    words = {token for token in found if isinstance(token, str) and len(token) > 1}
    return tuple(sorted(word for word in words if word.encode("utf-8", "ignore").decode() == word))


class _Header:
    """The header of a file, read in its order; raises Defect where that cannot be."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def exactly(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            _refuse(self._path, "ends in the middle of its header")
        return data

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.exactly(struct.calcsize(f"<{layout}")))

    def string(self) -> str:
        (length,) = self.numbers("Q")
        if length > GGUF_MAX_STRING:
            _refuse(self._path, f"a string of {length} bytes makes no sense")
        return self.exactly(length).decode("utf-8", errors="replace")

    def entry(self) -> tuple[str, object]:
        key = self.string()
        (kind,) = self.numbers("I")
        return key, self._value(kind)

    def _value(self, kind: int, depth: int = 0) -> object:
        if kind == _GGUF_STRING:
            return self.string()
        if kind == _GGUF_ARRAY and depth < 4:
            inner, count = self.numbers("IQ")
            if count > GGUF_MAX_STRING:
                _refuse(self._path, f"an array of {count} values makes no sense")
            if inner in _GGUF_SCALARS:
                return list(self.numbers(f"{count}{_GGUF_SCALARS[inner]}"))
            return [self._value(inner, depth + 1) for _ in range(count)]
        if kind not in _GGUF_SCALARS:
            _refuse(self._path, f"a value of the unknown type {kind}")
        (value,) = self.numbers(_GGUF_SCALARS[kind])
        return value

    def tensor(self) -> tuple[str, int, int]:
        """Name, offset into the data, length in bytes."""
        name = self.string()
        (dimensions,) = self.numbers("I")
        if dimensions > 8:
            _refuse(self._path, f"tensor {name} has {dimensions} dimensions")
        *shape, kind, offset = self.numbers(f"{dimensions}QIQ")
        elements, length = _GGML_BLOCKS.get(kind, (1, 0))
        return name, offset, math.prod(shape) // elements * length


def _refuse(path: Path, why: str) -> NoReturn:
    message = f"{path.name}: {why}"
    raise Defect(message)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        message = f"no {path.name}"
        raise Lacking(message) from error
    except (ValueError, RecursionError) as error:
        _refuse(path, f"is no JSON: {error}")
    if not isinstance(document, dict):
        _refuse(path, "is no JSON object")
    return document
