"""The files in docs/ that the program makes: the schema of a result, and the report of a demo run.

The demo run was made once; its documents are kept here, so that the page can be
made again whenever the report changes. `docs/generate.py` writes both files.
"""

from __future__ import annotations

import json
from pathlib import Path

from autotuned.core.result import json_schema
from autotuned.report.page import render

DOCS = Path(__file__).parents[2] / "docs"
DEMO = Path(__file__).with_name("demo_run.json")


def files() -> dict[Path, str]:
    """Every such file with what belongs into it."""
    demo = json.loads(DEMO.read_text(encoding="utf-8"))
    return {
        DOCS / "result.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        DOCS / "report-demo.html": render(demo["result"], demo["trials"]),
    }
