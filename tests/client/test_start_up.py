"""What a command loads: nothing that it does not use, since the client is started again for each of them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.home import Home, Y

pytestmark = pytest.mark.slow  # each starts processes of its own

HEAVY = {
    "rich", "pydantic", "httpx", "psutil", "structlog", "jsonschema", "asyncio", "concurrent", "email", "http",
    "subprocess", "tempfile", "pathlib", "plistlib", "logging", "sqlite3", "textwrap", "dataclasses",
    "autotunectl.service.install", "autotunectl.dial", "autotunectl.text.live_display", "autotunectl.service.process", "autotunectl.service",
    "autotuned.settings", "autotuned.rpc", "autotuned.core",
}  # fmt: skip
LOADED = """
import sys
import click
with_click = set(sys.modules)
from autotunectl.__main__ import main
try:
    main(prog_name="autotunectl")
finally:
    import json
    print(json.dumps(sorted(set(sys.modules) - with_click)), file=sys.stderr)
"""


def loaded(home: Home, *words: str) -> set[str]:
    """What a command that succeeds has loaded beyond click."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        env=home.environ,
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def heavy(names: set[str]) -> set[str]:
    return {name for name in names if name in HEAVY or name.partition(".")[0] in HEAVY}


def test_status_and_its_neighbours_load_nothing_heavy(home: Home) -> None:
    home.provider({Y: {}})
    home.tune(Y, stage2_replicates=1)
    for words in (["status"], ["status", "--json"], ["runs"], ["show"], ["check-stale"]):
        names = loaded(home, *words)
        assert "autotunectl.client" in names
        assert heavy(names) == set(), words


@pytest.mark.parametrize("words", [["--help"], ["start", "--help"]])
def test_help_asks_nobody_and_loads_nothing_heavy(home: Home, words: list[str]) -> None:
    assert heavy(loaded(home, *words)) - {"textwrap", "pathlib"} == set()  # of click, of logs
    assert home.processes() == []
