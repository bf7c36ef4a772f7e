#!/usr/bin/env python3
"""Follow the newest run and print one line an event; goes on when the agent is restarted meanwhile."""

from __future__ import annotations

from autotunectl.client import Client


def main() -> None:
    """Print until the run has ended."""
    with Client() as client:
        run = client.call("status")["run"]
        if run is None:
            print("there is no run yet")
            return
        for event in client.events(run_id=run["run_id"], since=0):
            print(event["seq"], event["type"], event.get("model", ""))
            if event["type"] == "run.finished":
                return


if __name__ == "__main__":
    main()
