"""llama.cpp's HTTP server out of the wheel `xllamacpp`, with the argv of `llama-server`.

A program of its own, never imported by the agent: it serves until SIGTERM and ends with 0, or says
on one line why it could not and ends with 1. Only the flags that the adapter uses are known.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

NGRAMS = ("ngram-simple", "ngram-mod", "ngram-cache")
CACHE_TYPES = ("f16", "q8_0", "q4_0")


def parser() -> argparse.ArgumentParser:
    """The subset of `llama-server`'s flags that is understood."""
    made = argparse.ArgumentParser(prog="llama-launcher", allow_abbrev=False)
    made.add_argument("--version", action="store_true")
    made.add_argument("-m", "--model", type=Path)
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=8080)
    made.add_argument("-a", "--alias")
    made.add_argument("-np", "--parallel", type=int, default=1)
    made.add_argument("-c", "--ctx-size", type=int, default=4096)
    made.add_argument("-t", "--threads", type=int)
    made.add_argument("-tb", "--threads-batch", type=int)
    made.add_argument("-b", "--batch-size", type=int)
    made.add_argument("-ub", "--ubatch-size", type=int)
    made.add_argument("-fa", "--flash-attn", choices=("on", "off", "auto"), default="auto")
    made.add_argument("-ngl", "--gpu-layers", "--n-gpu-layers", type=int)
    made.add_argument("--mmap", action=argparse.BooleanOptionalAction)
    made.add_argument("--mlock", action="store_true")
    made.add_argument("-md", "--model-draft", "--spec-draft-model", type=Path)
    made.add_argument("--draft-max", "--draft", "--draft-n", "--spec-draft-n-max", type=int)
    made.add_argument("--spec-type", choices=NGRAMS)
    made.add_argument("-ctk", "--cache-type-k", choices=CACHE_TYPES, default="f16")
    made.add_argument("-ctv", "--cache-type-v", choices=CACHE_TYPES, default="f16")
    made.add_argument("-no-kvu", "--no-kv-unified", action="store_true")
    made.add_argument("--no-cache-prompt", action="store_true")
    made.add_argument("--cache-ram", type=int, default=8192, help="MiB")
    made.add_argument("--jinja", action="store_true")
    made.add_argument("--no-webui", action="store_true")
    made.add_argument("--offline", action="store_true")
    return made


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Serve until SIGTERM or SIGINT."""
    flags = parser().parse_args(words)
    if flags.version:
        print(f"version: xllamacpp {importlib.metadata.version('xllamacpp')}")  # noqa: T201 - the answer
        sys.exit(0)
    problem = _problem(flags)
    if problem is not None:
        _fail(problem)
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(
        signal.SIG_BLOCK, signals
    )  # before the server's threads exist, so that none gets them
    import xllamacpp  # noqa: PLC0415 - heavy, and not needed to answer --version

    try:
        server = xllamacpp.Server(_parameters(xllamacpp, flags))
    except RuntimeError as error:
        _fail(f"{flags.model}: {error}")
    print(f"listening on {server.listening_address}", flush=True)  # noqa: T201 - its log
    signal.sigwait(signals)
    os._exit(0)  # the server's destructor waits for its threads; the sockets close with the process


def _problem(flags: argparse.Namespace) -> str | None:
    """What would make the start fail in a way that the library does not explain."""
    if flags.model is None or not flags.model.is_file():
        return f"no such model file: {flags.model}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((flags.host, flags.port))
        except OSError as taken:
            return f"cannot listen on {flags.host}:{flags.port}: {taken.strerror}"
    return None


def _parameters(library: Any, flags: argparse.Namespace) -> Any:
    made = library.CommonParams()
    made.model.path = str(flags.model)
    made.model_alias = {flags.alias or str(flags.model)}
    made.hostnames = [flags.host]
    made.port = flags.port
    made.n_ctx = flags.ctx_size
    made.n_parallel = flags.parallel
    made.kv_unified = not flags.no_kv_unified
    made.cache_prompt = not flags.no_cache_prompt
    made.cache_ram_mib = flags.cache_ram
    made.use_jinja = flags.jinja
    made.offline = flags.offline
    types = {name: getattr(library.ggml_type, f"GGML_TYPE_{name.upper()}") for name in CACHE_TYPES}
    made.cache_type_k, made.cache_type_v = types[flags.cache_type_k], types[flags.cache_type_v]
    if flags.threads is not None:
        made.cpuparams.n_threads = flags.threads
    if flags.threads_batch is not None:
        made.cpuparams_batch.n_threads = flags.threads_batch
    given = {"n_batch": "batch_size", "n_ubatch": "ubatch_size", "n_gpu_layers": "gpu_layers"}
    for name, flag in given.items():
        if getattr(flags, flag) is not None:
            setattr(made, name, getattr(flags, flag))
    if flags.flash_attn != "auto":
        state = "ENABLED" if flags.flash_attn == "on" else "DISABLED"
        made.flash_attn_type = library.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{state}"]
    if flags.mmap is not None or flags.mlock:
        mode = {(True, True): "MMAP_MLOCK", (False, False): "NONE", (True, False): "MMAP"}
        name = mode.get((flags.mmap is not False, flags.mlock), "MLOCK")
        made.load_mode = library.llama_load_mode[f"LLAMA_LOAD_MODE_{name}"]
    _draft(library, made, flags)
    return made


def _draft(library: Any, made: Any, flags: argparse.Namespace) -> None:
    """Tokens drafted by a small model, or from what was said before."""
    kind = "DRAFT_SIMPLE" if flags.model_draft is not None else None
    if flags.spec_type is not None:
        kind = flags.spec_type.replace("-", "_").upper()
    if kind is None:
        return
    made.speculative.types = [library.common_speculative_type[f"COMMON_SPECULATIVE_TYPE_{kind}"]]
    if flags.model_draft is not None:
        made.speculative.draft.mparams.path = str(flags.model_draft)
    if flags.draft_max is not None:
        made.speculative.draft.n_max = flags.draft_max


def _fail(reason: str) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - its log
    sys.exit(1)


if __name__ == "__main__":
    main()
