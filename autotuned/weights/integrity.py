"""Are the weights what they should be? Looks at headers, tables and names, never at the tensors.

A defect is raised as a sentence. Cheap for files of any size, sparse ones too.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

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
_GGUF_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
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
    return sorted(set(_weight_map(index).values()))


def check_safetensors(path: Path) -> None:
    """A file's header is whole, and all its tensors lie within the file. Raises Defect."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", _exactly(file, 8, path))
        if length > min(HEADER_MAX_BYTES, size - 8):
            message = (
                f"{path.name}: its header of {length} bytes does not fit into the file of {size}"
            )
            raise Defect(message)
        try:
            header = json.loads(_exactly(file, length, path))
        except (ValueError, RecursionError) as error:
            message = f"{path.name}: its header is no JSON: {error}"
            raise Defect(message) from error
    if not isinstance(header, dict):
        message = f"{path.name}: its header is no table of tensors"
        raise Defect(message)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = _offsets(entry)
        if not 0 <= begin <= end <= size - 8 - length:
            message = f"{path.name}: tensor {name} lies outside of the file"
            raise Defect(message)


def special_tokens(folder: Path) -> tuple[str, ...]:
    """The model's own special tokens, from its tokenizer files; empty where they do not tell."""
    found: list[Any] = []
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
        found += [
            value if isinstance(value, str) else value.get("content")
            for key, value in document.items()
            if key.endswith("_token") and isinstance(value, str | dict)
        ]
    return _tokens(found)


def check_gguf(path: Path) -> tuple[str, ...]:
    """A whole GGUF file: magic, metadata and tensor table within its length. Its control tokens. Raises Defect."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if _exactly(file, 4, path) != b"GGUF":
            message = f"{path.name}: is no GGUF file"
            raise Defect(message)
        version, tensors, entries = struct.unpack("<IQQ", _exactly(file, 20, path))
        if version not in (2, 3) or tensors > GGUF_MAX_ENTRIES or entries > GGUF_MAX_ENTRIES:
            message = f"{path.name}: GGUF version {version} with {tensors} tensors and {entries} entries makes no sense"
            raise Defect(message)
        metadata = dict(_entry(file, path) for _ in range(entries))
        table = [_tensor(file, path) for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            message = f"{path.name}: an alignment of {alignment!r:.40} makes no sense"
            raise Defect(message)
        data = -(-file.tell() // alignment) * alignment
    for name, offset, length in table:
        if data + offset + length > size:
            message = f"{path.name}: tensor {name} lies outside of the file"
            raise Defect(message)
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
            holders = [config.get("text_config"), config]
            found = [
                holder.get("max_position_embeddings")
                for holder in holders
                if isinstance(holder, dict)
            ]
        else:
            with path.open("rb") as file:
                _exactly(file, 16, path)
                (count,) = struct.unpack("<Q", _exactly(file, 8, path))
                entries = (_entry(file, path) for _ in range(count))
                found = [value for key, value in entries if key.endswith(".context_length")]
    except (OSError, Lacking, Defect):
        return None
    return next((value for value in found if type(value) is int and value > 0), None)


def _tokens(found: Sequence[Any]) -> tuple[str, ...]:
    """Those of `found` that are words of two letters and more, each once; files hold anything."""
    words = {token for token in found if isinstance(token, str) and len(token) > 1}
    return tuple(sorted(word for word in words if word.encode("utf-8", "ignore").decode() == word))


def _entry(file: BinaryIO, path: Path) -> tuple[str, Any]:
    key = _string(file, path)
    (kind,) = struct.unpack("<I", _exactly(file, 4, path))
    return key, _value(file, kind, path)


def _value(file: BinaryIO, kind: int, path: Path, depth: int = 0) -> Any:
    if kind == _GGUF_STRING:
        return _string(file, path)
    if kind == _GGUF_ARRAY and depth < 4:
        inner, count = struct.unpack("<IQ", _exactly(file, 12, path))
        if count > GGUF_MAX_STRING:
            message = f"{path.name}: an array of {count} values makes no sense"
            raise Defect(message)
        if inner in _GGUF_SCALARS:
            code = _GGUF_SCALARS[inner]
            return list(
                struct.unpack(
                    f"<{count}{code}", _exactly(file, count * struct.calcsize(f"<{code}"), path)
                )
            )
        return [_value(file, inner, path, depth + 1) for _ in range(count)]
    if kind not in _GGUF_SCALARS:
        message = f"{path.name}: a value of the unknown type {kind}"
        raise Defect(message)
    code = _GGUF_SCALARS[kind]
    return struct.unpack(f"<{code}", _exactly(file, struct.calcsize(f"<{code}"), path))[0]


def _tensor(file: BinaryIO, path: Path) -> tuple[str, int, int]:
    """Name, offset into the data, length in bytes."""
    name = _string(file, path)
    (dimensions,) = struct.unpack("<I", _exactly(file, 4, path))
    if dimensions > 8:
        message = f"{path.name}: tensor {name} has {dimensions} dimensions"
        raise Defect(message)
    *shape, kind, offset = struct.unpack(
        f"<{dimensions}QIQ", _exactly(file, 8 * dimensions + 12, path)
    )
    elements, length = _GGML_BLOCKS.get(kind, (1, 0))
    return name, offset, math.prod(shape) // elements * length


def _string(file: BinaryIO, path: Path) -> str:
    (length,) = struct.unpack("<Q", _exactly(file, 8, path))
    if length > GGUF_MAX_STRING:
        message = f"{path.name}: a string of {length} bytes makes no sense"
        raise Defect(message)
    return _exactly(file, length, path).decode("utf-8", errors="replace")


def _exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    data = file.read(count)
    if len(data) != count:
        message = f"{path.name}: ends in the middle of its header"
        raise Defect(message)
    return data


def _weight_map(index: Path) -> Mapping[str, str]:
    found = _json(index).get("weight_map")
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and "/" not in name for name in found.values()
    ):
        message = f"{index.name}: has no weight_map"
        raise Defect(message)
    return found


def _offsets(entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        isinstance(offsets, list)
        and len(offsets) == 2
        and all(isinstance(offset, int) for offset in offsets)
    ):
        return offsets[0], offsets[1]
    return -1, -1


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        message = f"no {path.name}"
        raise Lacking(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{path.name}: is no JSON: {error}"
        raise Defect(message) from error
    if not isinstance(document, dict):
        message = f"{path.name}: is no JSON object"
        raise Defect(message)
    return document
