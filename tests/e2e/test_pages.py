"""Every command line of the README and of docs/ runs as it stands, in the situation that its page is about."""

from __future__ import annotations

import fcntl
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from autotuned.providers.llama_server import LAUNCHER
from tests.support.home import Home, home
from tests.support.live import LaunchdJob, install_launchctl
from tests.support.models import Shape, write_gguf
from tests.support.systemd import Systemd, SystemdUnit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BRIEF = {"ttft_ms": 5, "total_ms": 20}
LASTS_S = 180.0
"""For how long a line may run."""
ELSEWHERE = {
    "make demo": "tests/e2e/test_demo.py",
    "make check": ".ci/run",
    "make test": ".ci/run",
    "pipx install": "tests/test_packages.py",
    "ansible-playbook": "tests/client/test_fleet.py",
}
"""Lines that another place runs, by their first words."""
LONG = ("autotunectl noise", "autotunectl logs -f")
"""Lines that last for minutes by themselves: ended by Ctrl-C once they are under way."""
LLAMA_CPP = ("Any knob", "A Linux machine with llama.cpp", "A server in a systemd unit")
MODELS = (
    "Babbler-1B.gguf",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "Tiny-5M.gguf",
    "Llama-3.2-3B-Instruct-Q8_0.gguf",
    "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
)
LIVE = {"apply.md", "live-provider.md", "schedule.md", "tutorial.md", "fleet.md"}
"""Pages about a machine that serves while the lines are typed."""
TUNED = {"apply.md", "fleet.md", "install.md", "results.md", "schedule.md"}
"""Pages about what a run has found."""
HUB = {
    "Qwen/Qwen2.5-7B-Instruct-GGUF": "qwen2.5-7b-instruct-q4_k_m.gguf",
    "bartowski/Qwen2.5-32B-Instruct-GGUF": "Qwen2.5-32B-Instruct-Q4_K_M.gguf",
}
"""Repositories that the lines of llama.cpp begin with, in the cache."""


class Line(NamedTuple):
    """A command line of a page, and the exit code that the page gives it: `exit N` in its comment, or `echo $?` below."""

    page: str
    section: str
    words: str
    code: int

    @property
    def place(self) -> str:
        """The section where it needs a situation of its own."""
        return self.section if self.section in LLAMA_CPP else ""

    def __str__(self) -> str:
        return f"{self.page}: {self.words}"


def lines_of(page: Path) -> Iterator[Line]:
    """The command lines of a page, in order."""
    section = ""
    language: str | None = None
    block: list[str] = []
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("```"):
            if language in ("", "console"):
                yield from in_block(page.name, section, "\n".join(block))
            language, block = (line[3:] if language is None else None), []
        elif language is not None:
            block.append(line)
        elif line.startswith("## ") or line.lstrip("# ") in LLAMA_CPP:
            section = line.lstrip("# ")


def in_block(page: str, section: str, block: str) -> Iterator[Line]:
    """The command lines of one block: what follows `$ `, and what begins with our own program."""
    shown = re.sub(r"\\\n\s*", "", block)
    for match in re.finditer(r"^(?:\$ (.+)|(autotunectl .+))$", shown, re.MULTILINE):
        words, _, comment = (match[1] or match[2]).partition(" # ")
        told = re.match(r"(?:\n(?!\$).*)*\n\$ echo \$\?\n(\d+)", shown[match.end() :])
        code = told or re.search(r"exit (\d+)", comment)
        if words.strip() != "echo $?":
            yield Line(page, section, words.strip(), int(code[1]) if code else 0)


LINES = [line for page in PAGES for line in lines_of(page)]


def run(at: Home, line: Line) -> subprocess.CompletedProcess[str]:
    """Type this line into a shell."""
    searched = "SELECT run_id FROM tune_runs WHERE exit_reason = 'ok' ORDER BY started_at_utc"
    words = re.sub(r"\bRUN\b", lambda _: at.sql(searched)[0][0], line.words)
    shell = subprocess.Popen(
        ["/bin/bash", "-c", f"exec {words}" if "|" not in words else words],
        cwd=at.path,
        env=at.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if words.startswith(LONG):
        first = shell.stdout if "logs" in words else shell.stderr
        assert first is not None
        assert first.readline()
        shell.send_signal(signal.SIGINT)
    output, errors = shell.communicate(timeout=LASTS_S)
    return subprocess.CompletedProcess(words, shell.returncode, output, errors)


@pytest.fixture
def at() -> Iterator[Home]:
    """A home whose PATH has the client, and ssh to other machines (this one)."""
    with (
        home() as made,
        (Path(tempfile.gettempdir()) / "autotuned-port-18080.lock").open("w") as one,
    ):
        fcntl.flock(one, fcntl.LOCK_EX)  # the lines name no port, so one page runs at a time
        for name, text in {
            "autotunectl": f'#!/bin/sh\nexec {sys.executable} -m autotunectl "$@"\n',
            "ssh": '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nexec sh -c "$3"\n',
        }.items():
            (made.bin / name).write_text(text, encoding="utf-8")
            (made.bin / name).chmod(0o755)
        made.environ["BROWSER"] = shutil.which("true") or "true"
        yield made


def a_mac(at: Home, page: str) -> None:
    """macprovider with the whole default list in the cache, a job of launchd where it serves."""
    at.provider({"*": BRIEF})
    catalogue = tomllib.loads((ROOT / "autotuned/providers/catalogue.toml").read_text("utf-8"))
    for model in ("mine", *(entry["model"] for entry in catalogue["mlx"])):
        at.cache(model)
    install_launchctl(at)
    if page in LIVE:
        LaunchdJob(at)
    for _ in range(2 if page in TUNED else 0):
        at.tune(catalogue["mlx"][-1]["model"], drain=page in LIVE)
    if page == "schedule.md":  # it begins after an update
        at.provider({"*": BRIEF}, version="1.5.0")


def llama_cpp(at: Home, *, unit: bool) -> None:
    """llama.cpp's own server with small models of the names that the pages use; in a unit where it serves."""
    folder = at.path / "models"
    folder.mkdir()
    for name in MODELS:
        write_gguf(folder / name, Shape(width=64, layers=1, heads=2, feed_forward=64))
    for repo, name in HUB.items():
        at.cache(repo, files={name: (folder / MODELS[0]).read_bytes()})
    program = at.bin / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {LAUNCHER} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    systemd = Systemd(at)
    if unit:
        SystemdUnit(
            systemd, argv=[str(program), "-m", str(folder / MODELS[-1]), "-np", "3", "-c", "8192"]
        )


@pytest.mark.parametrize(
    ("page", "section"), dict.fromkeys((line.page, line.place) for line in LINES)
)
def test_the_lines_of_a_page_run_one_after_another_as_they_stand(
    page: str, section: str, at: Home
) -> None:
    if section in LLAMA_CPP:
        llama_cpp(at, unit=section == "A server in a systemd unit")
    else:
        a_mac(at, page)
    wrong = []
    for line in LINES:
        if (line.page, line.place) != (page, section) or line.words.startswith(tuple(ELSEWHERE)):
            continue
        done = run(at, line)
        if done.returncode != (130 if line.words.startswith(LONG) else line.code):
            wrong.append(
                f"{line}: exit {done.returncode} instead of {line.code}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
            )
    assert not wrong, "\n".join(wrong)
