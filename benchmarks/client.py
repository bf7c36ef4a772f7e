"""How long `autotunectl status` takes, set against what click alone takes, and what each command's modules cost.

    python benchmarks/client.py [--times 21]

An agent with one finished run answers. The two programs take turns, so that whatever else the machine
does falls on both; the target is a ratio of medians of at most 1.5. Below it: what importing a command
costs beyond click, in this interpreter, and its heaviest modules.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

TARGET = 1.5
COST = """
import sys, time
import click
before, began = set(sys.modules), time.perf_counter()
from autotunectl import cli
command = cli.main.get_command(click.Context(cli.main), sys.argv[1])
assert command is not None
print(f"{(time.perf_counter() - began) * 1000:.1f} {len(set(sys.modules) - before)}")
"""


def seconds(command: list[str], environ: dict[str, str]) -> float:
    """The wall time of one run of a program that succeeds."""
    began = time.perf_counter()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Both medians, their ratio, the imports, and 1 when the target is missed."""
    from autotunectl.cli import COMMANDS
    from tests.support.home import Y, home

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=21, help="how often each is run")
    flags = parser.parse_args()
    click = [sys.executable, "-c", "import click"]
    with home() as made:
        made.provider({Y: {}})
        made.tune(Y, stage2_replicates=1)
        script = made.bin / "autotunectl"  # as pip writes it
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom autotunectl.__main__ import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
        status = [str(script), "status"]
        pairs = [
            (seconds(click, made.environ), seconds(status, made.environ))
            for _ in range(flags.times + 1)
        ][1:]
    alone, whole = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    ratio = whole / alone
    print(f"import click         {alone:7.1f} ms   median of {flags.times}")
    print(f"autotunectl status   {whole:7.1f} ms   ratio {ratio:.2f}")
    print(f"at most {TARGET}: {'yes' if ratio <= TARGET else 'NO'}")
    print("\nimports beyond click (best of 3)")
    for name in COMMANDS:
        runs = [
            subprocess.run(
                [sys.executable, "-c", COST, name], check=True, capture_output=True, text=True
            ).stdout.split()
            for _ in range(3)
        ]
        best = min(runs, key=lambda run: float(run[0]))
        print(f"  {name:12} {float(best[0]):6.1f} ms  {best[1]:>3} modules")
    sys.exit(0 if ratio <= TARGET else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
