"""A scripted `systemctl --user` for one unit: reads the unit's file, and really starts what it names.

Copied into a home's bin/ under that name; what it was asked is in `systemctl-calls.jsonl` beside it, and
`systemctl-plan.json` may make a verb fail: {"verb": [code, "what it says"]}. Standard library only.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATE = HERE / "systemctl-state.json"


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit's file."""
    found: dict[str, list[str]] = {}
    path = Path(os.environ["HOME"]) / ".config" / "systemd" / "user" / name
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def pid() -> int:
    """The unit's process; 0 where none lives."""
    try:
        known = int(json.loads(STATE.read_text())["pid"])
        fields = Path(f"/proc/{known}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0
    return 0 if fields[0] == "Z" else known


def start(name: str) -> None:
    """Start the unit's program in an environment of its own."""
    if pid():
        return
    settings = unit(name)
    environ = {"HOME": os.environ["HOME"], "PATH": os.defpath}
    for line in settings.get("Environment", ()):
        for pair in shlex.split(line):
            key, _, value = pair.partition("=")
            environ[key] = value.replace("%%", "%")
    argv = [word.replace("%%", "%") for word in shlex.split(settings["ExecStart"][0])]
    process = subprocess.Popen(
        argv,
        env=environ,
        cwd=os.environ["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    STATE.write_text(json.dumps({"pid": process.pid}))


def stop() -> None:
    """SIGTERM, and wait."""
    running = pid()
    if running:
        os.kill(running, signal.SIGTERM)
    while pid():
        time.sleep(0.01)


def main() -> None:
    """One call."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    with (HERE / "systemctl-calls.jsonl").open("a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    plan = HERE / "systemctl-plan.json"
    fault = json.loads(plan.read_text()).get(words[0]) if plan.exists() else None
    if fault:
        print(fault[1], file=sys.stderr)
        sys.exit(fault[0])
    if words[0] == "start":
        start(words[1])
    elif words[0] == "stop":
        stop()
    elif words[0] == "show":
        print(f"ActiveState={'active' if pid() else 'inactive'}\nMainPID={pid()}")


if __name__ == "__main__":
    main()
