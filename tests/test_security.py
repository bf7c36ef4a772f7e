"""The threat model names tests; they are there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.findall(
    r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8")
)


def test_every_test_that_the_threat_model_names_exists() -> None:
    assert len(NAMED) > 30
    missing = [f"{path}::{name}" for path, name in NAMED if name not in functions(ROOT / path)]
    assert missing == []


def test_every_line_of_the_threat_model_names_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = text[text.index("| --- |") : text.index("## What is not stopped")]
    lines = [line for line in table.splitlines()[1:] if line.startswith("|")]
    assert [line for line in lines if "`tests/" not in line.split("|")[4]] == []


def functions(path: Path) -> set[str]:
    """The names of all functions of a module."""
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_the_lock_pins_every_library_that_the_project_names_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["mlx"], *extras["llama"]]
    names = {re.sub(r"[._]", "-", re.split(r"[\[<>=;~! ]", line)[0].lower()) for line in wanted}
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9.-]+)==\S+ .*\\\n +--hash=sha256:", lock, re.MULTILINE))
    assert names - pinned - {"autotuned"} == set()
