"""The demo, whole: a real server, four models, settings, context and concurrency, and nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.home import Home

pytestmark = pytest.mark.slow

PATIENCE_S = 380.0


def test_the_demo_shows_what_the_readme_says_of_it(home: Home, tmp_path: Path) -> None:
    before = {path.name for path in Path("/tmp").glob("autotuned-demo-*")}  # noqa: S108
    report = tmp_path / "demo.html"
    done = home.ctl("demo", "--report", str(report), timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  model +\S+/SmolLM2-135M-Instruct\.Q4_1\.gguf$", done.stdout, re.MULTILINE)
    assert re.search(r"serves \d+ at once at [\d,]+ tokens", done.stdout)
    assert re.search(r"Colossus-70B\.gguf: static: weights .* > memory", done.stdout)
    assert "Babbler-1B.gguf: stop token leaked into the answer" in done.stdout
    assert re.search(r"^  alternates +\S+/Tiny-5M\.gguf$", done.stdout, re.MULTILINE)
    assert "SmolLM2" in report.read_text("utf-8")
    assert {path.name for path in Path("/tmp").glob("autotuned-demo-*")} <= before  # noqa: S108
