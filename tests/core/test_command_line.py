"""Which command lines are a server that serves, and which only speak of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned import settings
from autotuned.core import command_line
from autotuned.core.command_line import is_server, option
from autotuned.providers import commands, made

MACPROVIDER, LLAMA, MLX = (
    made(kind).commands for kind in ("macprovider", "llama-server", "mlx-lm")
)


@pytest.mark.parametrize(
    ("line", "servers"),
    [
        ("/x/macprovider-cli serve --port 1", MACPROVIDER),
        ("python -u /x/macprovider-cli serve", MACPROVIDER),
        ("/bin/bash -eu /x/macprovider-cli serve", MACPROVIDER),
        ("/usr/bin/env python3 /x/macprovider-cli serve", MACPROVIDER),
        ("/x/llama-server -m f", LLAMA),
        ("llama serve --host 127.0.0.1 --port 51082 --model m.gguf", LLAMA),
        ("/opt/homebrew/bin/llama serve", LLAMA),
        ("/venv/bin/python3.13 -P /x/llama_launcher.py -m f", LLAMA),
        ("mlx_lm server --model m --port 8080", MLX),
        ("mlx_lm.server --model m", MLX),
        ("/venv/bin/python /venv/bin/mlx_lm.server --model m", MLX),
        ("/venv/bin/python /venv/bin/mlx_lm server --model m", MLX),
        ("python3 -m mlx_lm server --model m", MLX),
        ("python3.12t -X dev -Im mlx_lm.server --model m", MLX),
        ("python3 -mmlx_lm.server --model m", MLX),
        ("/x/Python.app/Contents/MacOS/Python -W ignore -m mlx_lm.server", MLX),
        ("python /x/site-packages/mlx_lm/server.py --model m", MLX),
    ],
)
def test_a_server_is_known_by_its_full_command_words(
    line: str, servers: command_line.Commands
) -> None:
    assert is_server(line.split(), servers)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "python3",
        "python3 -m",
        "python3 -c mlx_lm.server",
        "bash -c llama-server",
        "journalctl -fu llama-server",
        "docker logs llama-server",
        "docker run llama-server -m f",
        "tail -f llama-server",
        "tail -f /var/log/llama-server",
        "vim macprovider-cli serve",
        "watch llama-server",
        "watch mlx_lm server",
        "grep macprovider-cli serve",
        "pgrep -f llama-server",
        "ssh mac llama-server -m f",
        "tmux new-session llama-server",
        "uv run mlx_lm.server --model m",
        "caffeinate -i llama-server -m f",
        "less llama serve",
        "/x/macprovider-cli",
        "/x/macprovider-cli autotune serve",
        "/x/macprovider-cli serve --help",
        "/x/macprovider-cli-watchdog serve",
        "llama-server --version",
        "llama-server -h",
        "llama run m.gguf",
        "llama",
        "mlx_lm generate --model m",
        "mlx_lm.generate --model server",
        "python3 -m mlx_lm generate",
        "python3 -m pytest mlx_lm.server",
        "python3 -m http.server",
        "python3 server.py",
        "serve macprovider-cli",
    ],
)
def test_who_only_mentions_a_server_or_waits_for_one_is_none(line: str) -> None:
    assert not is_server(line.split(), [*MACPROVIDER, *LLAMA, *MLX])


@given(st.lists(st.text(max_size=8) | st.sampled_from(["python", "-m", "env", "-c", "sh"])))
def test_no_command_line_makes_it_raise(argv: list[str]) -> None:
    assert not is_server(argv, [("no-such-server",)])
    assert command_line.option(argv, "--port") is None or argv


def test_names_are_recognised_with_or_without_their_path() -> None:
    assert command_line.names_program(["/bin/nginx", "/x/llama"], ["llama"])
    assert not command_line.names_program(["/x/llama-server"], ["llama", "server"])


def test_before_any_run_the_settings_tell_which_server_is_looked_for(
    tmp_path: Path,
) -> None:
    environ = {"HOME": str(tmp_path), "PATH": str(tmp_path)}

    def line(**chosen: object) -> command_line.Commands:
        return commands(settings.ProviderSettings.model_validate(chosen), environ)

    for name in ("llama-server", "macprovider-cli"):  # the first that is installed, as of a run
        (tmp_path / name).touch(0o755)
        assert is_server([name, "serve"], line())
    assert is_server(["llama", "serve"], line(kind="llama-server"))
    assert is_server(["mine", "serve"], line(binary="/x/mine"))
    assert is_server(["mine", "-m", "f"], line(binary="/x/mine", kind="llama-server"))


def test_an_options_value_follows_it_or_is_joined_to_it() -> None:
    argv = ("serve", "--port", "81", "--host=::1", "--last")
    assert option(argv, "--port") == "81"
    assert option(argv, "--host") == "::1"
    assert option(argv, "--last") is None
    assert option(argv, "--config") is None


def test_a_candidate_of_anybodys_tune_is_no_live_server() -> None:
    assert not is_server(("/x/macprovider-cli", "serve", "--autotune-candidate"), MACPROVIDER)
