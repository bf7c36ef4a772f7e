"""Stand-ins for the system's small programs, put on the PATH of a home: each answers as a table says.

They write down how they were called, so that a test can see what was asked and with which environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = """\
#!{python} -S
import json, os, pathlib, sys
here = pathlib.Path(__file__).resolve()
answers = json.loads(here.with_name(here.name + ".json").read_text())
told = sys.stdin.read() if answers.get("reads_stdin") else ""
with here.with_name(here.name + ".calls").open("a") as log:
    log.write(json.dumps({{"argv": sys.argv[1:], "stdin": told, "environment": dict(os.environ)}}) + "\\n")
words = " ".join(sys.argv[1:])
if words not in answers and "*" not in answers:
    sys.exit(1)
answer = answers.get(words, answers.get("*"))
print(answer)
sys.exit(answers.get("code", 0))
"""


def install(folder: Path, name: str, answers: dict[str, Any]) -> None:
    """Put `name` into `folder`, or change its answers: arguments joined by blanks to what it prints, `*` for all."""
    table = folder / f"{name}.json"
    fresh = table.with_suffix(".new")
    fresh.write_text(json.dumps(answers), encoding="utf-8")
    fresh.rename(table)
    program = folder / name
    if not program.exists():
        program.write_text(SCRIPT.format(python=sys.executable), encoding="utf-8")
        program.chmod(0o755)


def calls(folder: Path, name: str) -> list[dict[str, Any]]:
    """How it was called, oldest first."""
    log = folder / f"{name}.calls"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def mac(
    folder: Path, *, version: str = "26.3", build: str = "25D10", chip: str = "Apple M4"
) -> None:
    """Make it look like a Mac with 16 GB."""
    install(folder, "sw_vers", {"-productVersion": version, "-buildVersion": build})
    facts = {
        "hw.memsize": str(16 * 2**30),
        "machdep.cpu.brand_string": chip,
        "kern.osversion": build,
    }
    install(folder, "sysctl", {f"-n {name}": value for name, value in facts.items()})
