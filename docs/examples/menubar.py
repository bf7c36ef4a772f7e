#!/usr/bin/env python3
"""A menu bar entry for xbar or SwiftBar: the model of the newest run, and whatever needs attention.

The first line is the menu bar, what follows `---` is the menu. Only autotunectl's own client is needed.
"""

from __future__ import annotations

from typing import Any

from autotunectl.client import Client, ClientError


def title(status: dict[str, Any]) -> str:
    """A few characters for the menu bar."""
    run, lease = status["run"], status["lease"]
    if lease is not None and not (run and run["state"] == "running"):
        return "autotuned ⚠︎"
    if run is None:
        return "autotuned -"
    if run["state"] == "running":
        return f"autotuned {run['progress']['fraction']:.0%}"
    return (
        str(run["model"]).rsplit("/", 1)[-1] if run["model"] else f"autotuned {run['exit_reason']}"
    )


def menu(status: dict[str, Any]) -> list[str]:
    """What the menu says."""
    lines = []
    run, stale, lease = status["run"], status["stale"] or {}, status["lease"]
    if run is not None and run["tps_median"] is not None:
        lines.append(f"{run['tps_median']:.1f} tok/s at {run['target_context']} tokens")
    if lease is not None:
        lines.append(f"live server: {lease['state']} | color=red")
    lines += [f"changed since: {reason}" for reason in stale.get("reasons", ())]
    return lines or ["autotunectl start --wait"]


def main() -> None:
    """Print the entry."""
    try:
        with Client(connect_s=0.0) as client:
            status = client.call("status")
    except ClientError as error:
        print("autotuned ✕", "---", error, sep="\n")
        return
    print(title(status), "---", *menu(status), sep="\n")


if __name__ == "__main__":
    main()
