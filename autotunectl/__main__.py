"""`autotunectl` and `python -m autotunectl`."""

from __future__ import annotations

from autotunectl.cli import main

if __name__ == "__main__":
    main(prog_name="autotunectl")
