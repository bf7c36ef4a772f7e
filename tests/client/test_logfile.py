"""Log lines as people read them."""

from __future__ import annotations

import json
from pathlib import Path

from autotunectl.service import logfile


def line(**fields: object) -> str:
    shown = {"timestamp": "2026-03-01T03:15:00.123456Z", "level": "warning", "event": "trial"}
    return json.dumps({**shown, **fields})


def test_a_line_shows_time_level_event_fields_and_its_run() -> None:
    text = logfile.readable(line(run_id="R1", model="acme/x", reason="two words", logger="a.b"))
    assert text.startswith("2026-03-01 03:15:00.123 WARNING trial  model=acme/x")
    assert 'reason="two words"' in text
    assert text.endswith("run=R1")
    assert "a.b" not in text


def test_a_traceback_stands_below_its_line() -> None:
    frames = [{"filename": "/x/agent.py", "lineno": 7, "name": "start"}]
    chain = [{"exc_type": "ValueError", "exc_value": "bad", "frames": frames}]
    lines = logfile.readable(line(exception=chain)).splitlines()
    assert lines[1:] == ["    /x/agent.py:7 in start", "    ValueError: bad"]


def test_lines_that_are_no_json_are_shown_without_what_a_terminal_would_act_upon() -> None:
    assert logfile.readable("plain \x1b[31mred\x1b[0m \x07bell") == "plain [31mred[0m bell"
    assert logfile.readable("[1, 2]") == "[1, 2]"
    assert "\x1b" not in logfile.readable(line(reason="\x1b[2J"))
    assert logfile.readable('{"event": 1, "exception": [7, {"frames": []}]}')


def test_the_last_lines_reach_back_into_the_file_before(tmp_path: Path) -> None:
    log = tmp_path / "autotuned.log"
    log.with_name("autotuned.log.1").write_text("1\n2\n3\n", encoding="utf-8")
    log.write_text("4\n5\n", encoding="utf-8")
    assert logfile.last(log, 3) == ["3", "4", "5"]
    assert logfile.last(log, 0) == []
    follower = logfile.follow(log, 4)
    assert [next(follower) for _ in range(4)] == ["2", "3", "4", "5"]
    with log.open("a", encoding="utf-8") as file:
        file.write("6\n")
    assert next(follower) == "6"
    log.rename(log.with_name("autotuned.log.1"))
    with log.with_name("autotuned.log.1").open("a", encoding="utf-8") as file:
        file.write("7\n")  # by a writer that had it open
    log.write_text("8\n", encoding="utf-8")
    assert [next(follower), next(follower)] == ["7", "8"]
    follower.close()
