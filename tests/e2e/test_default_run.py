"""A run that asks for nothing new is the first version's: its document, its rows and its command lines.

What version 0.1.0 came to was recorded once; fields may have been added since, at the end or in between, and no other
word may differ. What is measured, and what names a machine or a moment, stands as its kind.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.home import Home, X, Y, Z

RECORDED = Path(__file__).parents[1] / "support" / "default_run.json"
TABLES = ("tune_runs", "tune_trials")
OF_THE_MACHINE = (
    "chip",
    "os_version",
    "ram_gb",
    "machine_chip",
    "machine_os_version",
    "machine_ram_gb",
)
TOTALS_MS = {"unset/2": 120, "4/1": 60, "4/2": 120, "8/1": 120, "8/2": 40}
"""How long a request takes in each cell, so that it is known which are kept."""


def recorded(home: Home) -> dict[str, Any]:
    """A default run over three candidates, the first of which does not start, as it is kept."""
    cells = {f"{cell}/2000": {"replicates": [{"total_ms": ms}]} for cell, ms in TOTALS_MS.items()}
    usual = {"replicates": [{"total_ms": 90}]}
    home.provider(
        {X: {"exit_code": 1, "log": ["fatal error: too big"]}, Y: {**usual, "cells": cells}, Z: {}}
    )
    home.start_daemon()
    run_id = home.rpc("start", candidate_models=[X, Y, Z], port=home.port)["run_id"]
    while home.rpc("wait", run_id=run_id, timeout_s=20.0).get("timed_out"):
        pass
    rows = {}
    with closing(sqlite3.connect(f"file:{home.database}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        for table in TABLES:
            rows[table] = [dict(row) for row in database.execute(f"SELECT * FROM {table}")]  # noqa: S608
    argv = [call["argv"] for call in home.calls("argv") if "--no-join" in call["argv"]]
    found = {"document": home.rpc("result", run_id=run_id), "rows": rows, "argv": argv}
    return {key: _kinds(value, home, run_id) for key, value in found.items()}


def _kinds(value: Any, home: Home, run_id: str, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _kinds(each, home, run_id, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_kinds(each, home, run_id, name) for each in value]
    if name in OF_THE_MACHINE or isinstance(value, float) or name.endswith("_bytes"):
        return f"<{type(value).__name__}>"
    if isinstance(value, str) and value[:1] in "[{" and name.endswith("_json"):
        return _kinds(json.loads(value), home, run_id)
    if not isinstance(value, str):
        return value
    for known, kind in ((str(home.path), "HOME"), (run_id, "RUN"), (str(home.port), "PORT")):
        value = value.replace(known, kind)
    value = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", value)
    return re.sub(r"sha256:[0-9a-f]{64}|\d+\.\d+", "FIGURE", value)


def missing(old: Any, new: Any, where: str = "") -> list[str]:
    """Where `new` is not `old` with more in it."""
    if isinstance(old, dict) and isinstance(new, dict):
        order = [key for key in new if key in old]
        problems = [] if order == list(old) else [f"{where}: {list(old)} is now {order}"]
        return problems + [
            each for key in order for each in missing(old[key], new[key], f"{where}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [each for index, (a, b) in pairs for each in missing(a, b, f"{where}[{index}]")]
    return [] if old == new else [f"{where}: {old!r} is now {new!r}"]


def test_a_default_run_has_every_field_row_and_word_of_the_first_version(home: Home) -> None:
    old = json.loads(RECORDED.read_text(encoding="utf-8"))
    new = recorded(home)
    for each in (old, new):
        each["document"]["warnings"] = []  # doubts were added since: each is a warning
        for answer in (
            each["document"]["recommendation"],
            each["rows"]["tune_runs"][0]["recommendation_json"],
        ):
            # The provider of today refuses a model on the command line of a serve that joins.
            answer["serve_command"] = answer["serve_command"].replace(" --no-join", "")
    old["rows"]["tune_trials"][0]["n_err"] = 1  # a candidate that never came up counts as one error
    problems = missing(old, new)
    assert not problems, "\n".join(problems)
