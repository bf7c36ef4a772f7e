"""Each server's own flags, versions, lists and logs: the table of the contract, line by line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from autotuned import providers
from autotuned.errors import ConfigError, ProviderMissing
from autotuned.providers import binary as programs
from autotuned.providers import llama_server, log_reason, macprovider, made, mlx_lm
from autotuned.providers.binary import EXTRAS, install_extra
from autotuned.providers.macprovider import PRIVATE_CONFIG
from autotuned.providers.server import Binary, Launch, Provider, listed_in
from autotuned.settings import ProviderSettings
from autotuned.shared.knobs import Knobs

yaml = YAML(typ="safe")
BINARY = Binary(("/bin/server",), "1")
DEFAULTS = None
PLAIN = Knobs(None, 1, 4000)
FULL = Knobs(8, 2, 4000)
FOUR = Knobs(4, 3, 4000)


def launch(knobs: Knobs | None, weights: Path = Path("/w"), model: str = "org/m") -> Launch:
    return Launch(model, weights, knobs, 18080, 2000, Path("/private"), 77)


def words(provider: Provider, knobs: Knobs | None) -> list[str]:
    return list(provider.command(BINARY, launch(knobs)).argv)


MAC = made("macprovider", None, (), {})
MLX = made("mlx-lm", None, (), {})
LLAMA = made("llama-server", None, (), {})


@pytest.mark.parametrize(
    ("provider", "knobs", "wanted"),
    [
        (MAC, DEFAULTS, ""),
        (MAC, PLAIN, "--max-batch 1 --max-context 4000"),
        (MAC, FULL, "--kv-bits 8 --max-batch 2 --max-context 4000"),
        (MLX, DEFAULTS, "--decode-concurrency 1"),
        (MLX, PLAIN, "--decode-concurrency 1 --prompt-concurrency 1"),
        (
            MLX,
            FULL,
            "--decode-concurrency 2 --prompt-concurrency 2 --kv-bits 8 --quantized-kv-start 0",
        ),
        (LLAMA, DEFAULTS, "-np 1 -c 2256"),
        (LLAMA, PLAIN, "-np 1 -c 4000 -no-kvu"),
        (LLAMA, FULL, "-np 2 -c 8000 -no-kvu -ctk q8_0 -ctv q8_0"),
        (LLAMA, FOUR, "-np 3 -c 12000 -no-kvu -ctk q4_0 -ctv q4_0"),
    ],
    ids=range(10),
)
def test_knobs_become_the_flags_of_the_contract_and_unset_becomes_none(
    provider: Provider, knobs: Knobs | None, wanted: str
) -> None:
    argv = words(provider, knobs)
    joined = " ".join(argv)
    assert wanted in joined
    flags = {word for word in argv if word.startswith("-")}
    knob_flags = {"--kv-bits", "--max-batch", "--max-context", "--decode-concurrency"}
    knob_flags |= {
        "--prompt-concurrency",
        "--quantized-kv-start",
        "-np",
        "-c",
        "-no-kvu",
        "-ctk",
        "-ctv",
    }
    assert flags & knob_flags == {word for word in wanted.split() if word.startswith("-")}


@pytest.mark.parametrize("knobs", [DEFAULTS, PLAIN, FULL])
def test_a_macprovider_candidate_never_joins_and_never_reads_the_operators_config(
    knobs: Knobs | None,
) -> None:
    command = MAC.command(BINARY, launch(knobs))
    argv = list(command.argv)
    assert argv[:2] == ["/bin/server", "serve"]
    assert argv.count("--no-join") == 1
    config = Path(argv[argv.index("--config") + 1])
    assert config.parent == Path("/private")
    assert list(command.files) == [config]
    written = yaml.load(command.files[config])
    assert written["credential_store"] == "protected_file"
    assert written["ctl_socket_path"] == "/private/ctl.sock"
    assert Path(written["switch_state_path"]).parent == Path("/private")
    assert command.files[config].startswith(PRIVATE_CONFIG)
    for word in ("token", "key", "max_batch", "kv_bits", "model"):
        assert f"{word}:" not in PRIVATE_CONFIG
    assert argv[argv.index("--port") + 1] == "18080"


@pytest.mark.parametrize(
    ("provider", "words_"),
    [(MLX, "--prompt-cache-size 0"), (LLAMA, "--no-cache-prompt --cache-ram 0")],
)
def test_prompt_caches_are_off_and_only_the_loopback_is_listened_on(
    provider: Provider, words_: str
) -> None:
    joined = " ".join(words(provider, PLAIN))
    assert words_ in joined
    assert "--host 127.0.0.1 --port 18080" in joined


@pytest.mark.parametrize("provider", [MAC, MLX, LLAMA])
def test_the_hub_is_offline_for_every_candidate(provider: Provider) -> None:
    assert provider.command(BINARY, launch(PLAIN)).env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("kind", ["macprovider", "mlx-lm", "llama-server"])
def test_extra_arguments_of_the_settings_stand_before_the_knobs(kind: str) -> None:
    provider = providers.choose(
        kind,
        ProviderSettings.model_validate({"kind": kind, "extra_args": ["--verbose"]}),
        {},
    )
    argv = words(provider, FULL)
    assert argv.index("--verbose") < min(
        argv.index(flag) for flag in ("--max-batch", "--decode-concurrency", "-np") if flag in argv
    )


@pytest.mark.parametrize("provider", [MAC, MLX, LLAMA])
def test_what_an_operator_would_type_holds_model_and_knobs_but_nothing_of_ours(
    provider: Provider,
) -> None:
    joined = " ".join(provider.serve_argv(BINARY, launch(FULL)))
    for ours in ("/private", "18080", "--prompt-cache-size", "--no-cache-prompt"):
        assert ours not in joined
    assert "org/m" in joined or "/w" in joined
    # A macprovider that joins refuses a model on its command line.
    assert ("--no-join" in joined) == (provider.kind == "macprovider")


def test_a_candidate_sees_no_credential_and_no_setting_of_the_operators() -> None:
    environ = {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_TOKEN": "x",
        "MACPROVIDER_API_KEY": "x",
        "AUTOTUNED_SOCKET": "x",
        "LLAMA_ARG_CTX_SIZE": "1",
        "AWS_SECRET_ACCESS_KEY": "x",
        "my_password": "x",
    }
    seen = programs.isolated(environ, LLAMA.command(BINARY, launch(PLAIN)).settings)
    assert set(seen) == {"PATH", "HF_HOME", "TOKENIZERS_PARALLELISM"}


@pytest.mark.parametrize(
    ("listing", "ids"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, ["a", "b"]),
        ({"models": [{"name": "a", "model": "b"}]}, ["a", "b"]),
        ({"data": [{"id": "a", "aliases": ["b", 7]}]}, ["a", "b"]),
        (["a", {"id": "b"}, 7, None], ["a", "b"]),
        ({"data": {"data": ["a"]}}, ["a"]),
        ({}, []),
        (None, []),
        (7, []),
        ("a", []),
        ({"data": "a"}, []),
        ({"data": [{"id": 7}]}, []),
    ],
    ids=range(11),
)
def test_a_list_of_models_is_read_in_any_shape(listing: Any, ids: list[str]) -> None:
    assert list(listed_in(listing)) == ids


def test_each_server_is_known_by_its_own_way_of_naming(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    link = str(tmp_path / "link")
    assert MAC.serves(["org/m"], "org/m")
    assert not MAC.serves(["org/m2"], "org/m")
    assert MAC.serves(["link"], link)
    assert MLX.serves([str(tmp_path / "real")], link)
    assert MLX.serves(["/c/models--org--m/snapshots/abc"], "org/m")
    assert not MLX.serves([], "org/m")
    assert LLAMA.serves(["a"], "a,b")
    home = made("macprovider", None, (), {"HOME": str(tmp_path)})
    assert home.serves([str(tmp_path / "real")], "~/real")


LOGS: Sequence[tuple[str, str | None]] = (
    ("", None),
    ("\n \n", None),
    ("loading\nready", "ready"),
    ("loading\nfatal error: bad shape\nconfig: a=1\nlog_level: error", "fatal error: bad shape"),
    (
        "x\nTraceback (most recent call last):\n  File 'a'\n    f()\nValueError: no key\nGET / 200",
        "ValueError: no key",
    ),
    (
        "Traceback (most recent call last):\n  a\nKeyError: 1\nDuring handling of the above exception, another\n"
        "Traceback (most recent call last):\n  b\nRuntimeError: second\nbye",
        "RuntimeError: second",
    ),
    (
        "[metal::malloc] Attempting to allocate 9 bytes\nconfig: x",
        "[metal::malloc] Attempting to allocate 9 bytes",
    ),
    ("errors: 0\nno errors\nfailed to open model\nconfig", "failed to open model"),
    ("\x1b[31merror:\x1b[0m   red\r\nok", "error: red"),
    ("error: \ud800half", "error: half"),
)


@pytest.mark.parametrize(("log", "line"), LOGS, ids=range(len(LOGS)))
def test_the_telling_line_of_a_log_is_the_error_and_not_the_tail(
    log: str, line: str | None
) -> None:
    assert log_reason.telling_line(log) == line


def test_a_telling_line_is_bounded_and_a_huge_log_is_searched_at_both_ends() -> None:
    found = log_reason.telling_line("error: " + "x" * 1000)
    assert found is not None
    assert len(found) <= log_reason.LINE_LIMIT
    filler = "nothing to see\n" * 200_000
    assert log_reason.telling_line(f"error: first\n{filler}") == "error: first"
    assert log_reason.telling_line(f"{filler}error: last\nconfig") == "error: last"


# --- finding the program ----------------------------------------------------------------------------


def program(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


async def test_a_binary_is_found_on_the_path_and_its_version_is_its_last_line(
    tmp_path: Path,
) -> None:
    body = 'case "$1" in --version) echo noise; echo "macprovider 1.4.0";; *) echo "--no-join --model";; esac'
    path = program(tmp_path, "macprovider-cli", body)
    found = await made("macprovider", None, (), {"PATH": f"{tmp_path}:/bin:/usr/bin"}).locate()
    assert found == Binary((str(path),), "macprovider 1.4.0")


async def test_a_binary_that_does_not_know_no_join_is_too_old(tmp_path: Path) -> None:
    program(tmp_path, "macprovider-cli", "echo 0.9 --model")
    with pytest.raises(ProviderMissing, match=r"is too old.*--no-join.*update macprovider"):
        await made("macprovider", None, (), {"PATH": f"{tmp_path}:/bin:/usr/bin"}).locate()


def test_a_control_socket_has_a_short_path_however_deep_the_folder_is() -> None:
    deep = replace(launch(PLAIN), folder=Path("/" + "d" * 95))
    (text,) = MAC.command(BINARY, deep).files.values()
    assert yaml.load(text)["ctl_socket_path"] == "ctl.sock"  # in the folder that it is started in


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ("echo 'Error: --autotune-candidate requires --no-join' >&2; exit 64", True),
        ("echo \"Error: Unknown option '--autotune-candidate'\" >&2; exit 64", False),
        ("exit 0", False),
        ("sleep 60", False),
    ],
    ids=range(4),
)
async def test_the_flags_of_a_candidate_are_asked_for_once_and_given_together_or_not_at_all(
    tmp_path: Path, answer: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macprovider, "PROBE_S", 0.3 if answer == "sleep 60" else 10.0)
    body = f"""echo "$*" >> {tmp_path}/calls
case "$*" in
--version) echo 1.4;;
"serve --help") echo --no-join --candidate-parent-pid;;
"serve --autotune-candidate") {answer};;
esac"""
    path = program(tmp_path, "macprovider-cli", body)
    provider = made("macprovider", path, (), {"PATH": "/bin:/usr/bin"})
    for _ in range(2):
        argv = provider.command(await provider.locate(), launch(PLAIN)).argv
        assert ("--autotune-candidate" in argv) is known
        assert ("--candidate-parent-pid" in argv) is known
        if known:
            assert argv[argv.index("--candidate-parent-pid") + 1] == "77"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls.count("serve --help") == 1
    assert calls.count("serve --autotune-candidate") == (2 if answer == "sleep 60" else 1)


LLAMA_FLAGS = (
    "--no-webui --offline --no-cache-prompt --cache-ram --alias --jinja -np -c -no-kvu -ctk -ctv"
)


async def test_a_llama_server_too_old_for_a_flag_is_refused_by_the_flags_name(
    tmp_path: Path,
) -> None:
    old = """for w in "$@"; do case "$w" in --version) echo "version: 4500 (abcdef12)"; exit 0;;
--offline|-no-kvu) echo "error: invalid argument: $w" >&2; exit 1;; esac; done"""
    path = program(tmp_path, "llama-server", old)
    provider = made("llama-server", path, (), {"PATH": "/bin:/usr/bin"})
    with pytest.raises(ProviderMissing, match=r"does not know --offline, -no-kvu, .*update llama"):
        await provider.locate()
    path = program(tmp_path, "llama-server", old.replace("--offline|-no-kvu", "--other"))
    assert await made("llama-server", path, (), {"PATH": "/bin"}).locate() == Binary(
        (str(path),), "4500 (abcdef12)"
    )


def test_every_flag_of_a_llama_candidate_is_one_that_the_server_is_asked_about() -> None:
    of_everyone = {"-m", "--host", "--port"}
    for knobs in (DEFAULTS, PLAIN, FULL):
        flags = {word for word in words(LLAMA, knobs) if word.startswith("-")}
        assert flags - of_everyone <= set(LLAMA_FLAGS.split())
    assert {flag.split()[0] for flag in llama_server._NEEDED} == set(LLAMA_FLAGS.split())


async def test_an_mlx_lm_too_old_for_a_flag_is_refused_by_the_flags_name(tmp_path: Path) -> None:
    python = program(
        tmp_path, "python3", 'case "$1" in -I) echo mlx-lm 0.20, mlx 0.20;; *) sh "$@";; esac'
    )
    path = tmp_path / "mlx_lm.server"
    listed = "--model --host --port --log-level --decode-concurrency --prompt-concurrency"
    for more, unknown in (("--kv-bits --quantized-kv-start", "--prompt-cache-size"), ("", "--kv-")):
        path.write_text(f"#!{python}\necho '{listed} {more}'\n")
        path.chmod(0o755)
        with pytest.raises(ProviderMissing, match=f"does not know .*{unknown}"):
            await made("mlx-lm", path, (), {"PATH": "/bin:/usr/bin"}).locate()
    path.write_text(f"#!{python}\necho '{listed} {' '.join(mlx_lm._NEEDED)}'\n")
    assert (await made("mlx-lm", path, (), {"PATH": "/bin:/usr/bin"}).locate()).version == (
        "mlx-lm 0.20, mlx 0.20"
    )


@pytest.mark.parametrize(
    ("line", "fatal"),
    [
        ("llama_model_load: error loading model: unknown model architecture: 'foo'", True),
        ("ValueError: Model type foo not supported.", True),
        ("Error: Unsupported model type: foo", True),
        ('unsupportedModelType("foo")', True),
        ("error: architecture 'foo' is not supported", True),
        ("fatal error: cannot map weights", True),
        ("Offline mode error: Repository not available locally", True),
        ("srv load_model: failed to load model, '/m.gguf'", True),
        ("failed to load model metadata, using defaults", False),
        ("warning: unknown model architecture in the draft, ignored", False),
        ("0.01.234.567 W error loading model of the projector", False),
        ("fatal: 0, errors: 0", False),
        ("loading model, architecture llama", False),
        ("model_type: qwen2", False),
    ],
    ids=range(14),
)
def test_a_line_that_ends_the_wait_is_told_from_one_that_only_looks_so(
    line: str, fatal: bool
) -> None:
    for provider in (MAC, MLX, LLAMA):
        found = log_reason.fatal_line(f"loading\n{line}\nconfig: a=1", provider.fatal)
        assert found == (line if fatal else None)


def test_of_a_server_that_outlives_its_loading_thread_the_exception_is_told() -> None:
    log = (
        "GET /health\nException in thread Thread-1 (_generate):\nTraceback (most recent call last):\n"
        "  File 'x'\nValueError: bad shard\nGET /health"
    )
    assert log_reason.fatal_line(log, MLX.fatal) == "ValueError: bad shard"
    assert log_reason.fatal_line(log, LLAMA.fatal) is None


async def test_a_binary_that_fails_or_hangs_is_told_with_what_it_said(tmp_path: Path) -> None:
    program(tmp_path, "macprovider-cli", "echo broken library >&2; exit 3")
    with pytest.raises(ProviderMissing, match="exited with code 3: broken library"):
        await made("macprovider", None, (), {"PATH": f"{tmp_path}:/bin:/usr/bin"}).locate()
    hangs = program(tmp_path, "hangs", "sleep 60 & sleep 60")
    answer = await programs.ask([str(hangs)], dict(os.environ), timeout_s=0.2)
    assert (answer.code, answer.ended) == (None, "did not answer in time")
    nobody = await programs.ask([str(tmp_path / "nobody")], {})
    assert "cannot be started" in nobody.line


@pytest.mark.parametrize(
    ("kind", "remedy"), [("macprovider", "install macprovider"), ("llama-server", "llama.cpp")]
)
async def test_a_missing_program_is_told_with_its_remedy(
    tmp_path: Path, kind: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    provider = providers.choose(
        kind, ProviderSettings(), {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    )
    with pytest.raises(ProviderMissing, match=remedy):
        await provider.locate()


async def test_the_settings_binary_must_be_a_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    with pytest.raises(ProviderMissing, match="is not a program that can be executed"):
        await made("macprovider", tmp_path / "text", (), {}).locate()


def test_auto_tries_macprovider_then_llama_then_mlx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ProviderMissing, match="no serving program is installed"):
        providers.choose("auto", ProviderSettings(), environ)
    for name, kind in [
        ("mlx_lm.server", "mlx-lm"),
        ("llama-server", "llama-server"),
        ("macprovider-cli", "macprovider"),
    ]:
        program(tmp_path, name, "true")
        assert providers.choose("auto", ProviderSettings(), environ).kind == kind
    with pytest.raises(ConfigError, match="is none of auto"):
        providers.choose("ollama", ProviderSettings(), environ)
    named = ProviderSettings(binary=tmp_path / "llama-server", extra_args=("-x",))
    assert providers.choose("auto", named, environ).kind == "llama-server"
    assert "-x" not in words(providers.choose("macprovider", named, environ), PLAIN)
    assert shutil.which("llama-server", path=str(tmp_path))


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/home/me/.local/share/pipx/venvs/autotuned", "pipx inject autotuned optuna"),
        (
            "/home/me/.local/share/uv/tools/autotuned",
            "uv pip install --python /home/me/.local/share/uv/tools/autotuned optuna",
        ),
        ("/home/me/venv", "pip install 'autotuned[search]'"),
    ],
)
def test_an_extra_is_added_with_what_autotuned_was_installed_with(
    prefix: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", prefix)
    assert install_extra("search") == command


def test_an_extra_is_called_as_the_package_declares_it() -> None:
    extras = metadata("autotuned").get_all("Provides-Extra") or []
    assert set(EXTRAS) <= set(extras)
