"""`show --report`: the page of a real run, as a file."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from tests.report.pages import Reader
from tests.support.home import Home, RpcError, X, Y, Z, poll

pytestmark = pytest.mark.slow  # each starts an agent of its own


def test_a_report_is_written_whole_over_what_was_there_and_nothing_lies_around(
    home: Home, tmp_path: Path
) -> None:
    home.provider({X: {"exit_code": 1}, Y: {}, Z: {}})
    home.tune(X, Y, Z, kv_bits_axis=[None, 8], stage2_replicates=2)
    file = tmp_path / "a report.html"
    file.write_text("old", encoding="utf-8")
    link = tmp_path / "link.html"
    link.symlink_to(file)

    done = home.ctl("show", "--report", str(link))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}\n", "")
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [file, link]
    written = file.read_text(encoding="utf-8")
    assert written == home.rpc("report")["html"]
    page = Reader(written)
    assert page.words("h1") == ["middle-7B"]
    assert [li["class"] for li in page.all("li") if li.get("class")] == [
        "failed",
        "chosen",
        "untried",
    ]
    assert len(page.all("circle")) == 2 * 4
    for part in ("load", "warm", "measure", "stop"):
        assert re.search(rf'class="part {part}"', written), part
    assert str(home.database) not in written

    done = home.ctl("show", "--report", str(tmp_path / "nowhere" / "x.html"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"autotunectl: {tmp_path / 'nowhere' / 'x.html'}: cannot be written"
    )
    assert "hint: " in done.stderr
    opened = home.bin / "opened"
    seer = home.bin / "browser"
    seer.write_text(f'#!/bin/sh\necho "$1" > {opened}\n', encoding="utf-8")
    seer.chmod(0o755)
    home.environ["BROWSER"] = str(seer)
    done = home.ctl("show", "--report", str(file), "--open")
    assert (done.returncode, done.stdout) == (0, f"{file}\n")
    poll(opened.exists)
    assert poll(lambda: opened.read_text(encoding="utf-8")) == f"{file.as_uri()}\n"
    assert home.ctl("show", "--report", "-").stdout == written
    assert home.ctl("show", "--json", "--report", str(file)).returncode == 2
    assert home.ctl("show", "no-such-run", "--report", str(file)).returncode == 11
    assert file.read_text(encoding="utf-8") == written


def test_where_a_trials_time_went_adds_up_and_its_memory_is_known(home: Home) -> None:
    home.provider({X: {"exit_code": 1, "load_s": 0.1}, Y: {"load_s": 0.1}})
    document = home.tune(X, Y)
    failed, probe, cell = home.rpc("trials", run_id=document["run_id"])["trials"]
    assert failed["spent"]["load_ms"] >= 100
    assert failed["spent"]["measure_ms"] is None
    for trial in (probe, cell):
        spent = trial["spent"]
        assert spent["load_ms"] >= 100
        assert spent["measure_ms"] >= sum(sample["total_ms"] for sample in trial["samples"])
        assert spent["load_ms"] + spent["warm_ms"] <= trial["load_ms"] * 1.01 + 1
        assert all(spent[part] > 0 for part in ("prewarm_ms", "warm_ms", "stop_ms"))
    assert document["stage2"][0]["peak_rss_bytes"] > 2**20
    block = home.ctl("show").stdout
    assert "MEMORY" in block
    assert " GB" in block


def test_a_run_of_a_prototype_has_a_result_and_a_report(home: Home) -> None:
    home.start_daemon()
    with contextlib.closing(sqlite3.connect(home.database)) as db, db:
        values = "'old', '2026-01-01 00:00:00', NULL, 'x', 'v', 16, 'c', 'o', 2000, '[\"m\"]', 1, 3, 60000, 0.02"
        columns = [row[1] for row in db.execute("PRAGMA table_info(tune_runs)")][:18]
        db.execute(
            f"INSERT INTO tune_runs({', '.join(columns)}) VALUES ({values}, NULL, NULL, 0, 'no_feasible')"  # noqa: S608
        )
        db.execute(
            "INSERT INTO tune_trials(ts_utc, run_id, stage, model, target_context, max_tokens, notes) "
            "VALUES ('2026-01-01 00:00:09', 'old', 1, 'm', 2000, 48, 'no room')"
        )
    assert home.rpc("result", run_id="old")["infeasible"][0]["reason"] == "no room"
    page = Reader(home.rpc("report", run_id="old")["html"])
    assert page.words("h1") == ["No candidate is feasible"]
    assert "no room" in page.words("p")
    with pytest.raises(RpcError, match="no recommendation to compare"):
        home.rpc("compare", a="old", b="old")
