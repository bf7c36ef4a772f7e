"""Records a conversation of this version's client and agent: `python -m tests.support.conversations.record NAME`.

The calls are made one after the other with the library, in a home with a scripted provider; what names that
home or its moment stays as it is, since whoever reads it compares shapes. Refuses to replace a file.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from autotunectl.client import CallError, Client
from tests.support.conversations import HERE, Line
from tests.support.home import Home, Y, Z, home

DEAD = {"exit_code": 137, "log": ["fatal error: out of memory"]}


def record(made: Home) -> list[Line]:
    """Every method that a client of this version uses, with a run of two candidates between them."""
    made.provider({Z: DEAD, Y: {}})
    made.start_daemon()
    said: list[Line] = []
    fields = {"candidate_models": [Z, Y], "port": made.port, "kv_bits_axis": [None, 4]}
    with Client(str(made.socket)) as client:

        def ask(method: str, **params: Any) -> Any:
            number = len(said)
            asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            said.append({"from": "client", "message": asked})
            answer: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
            try:
                answer["result"] = client.call(method, **params)
            except CallError as error:
                answer["error"] = {
                    "code": error.code,
                    "message": error.message,
                    "data": error.data,
                }
            said.append({"from": "agent", "message": answer})
            return answer.get("result")

        ask("version")
        ask("status")
        ask("result")
        ask("stale")
        ask("start", dry_run=True, **fields)
        ask("start", port=0)
        run_id = ask("start", **fields, max_batch_axis=[1], stage2_replicates=2)["run_id"]
        begun = ask("subscribe", run_id=run_id, since=0)
        for event in client.notifications(begun["subscription"], timeout_s=60):
            message = {"subscription": begun["subscription"], **event}
            said.append(
                {
                    "from": "agent",
                    "message": {"jsonrpc": "2.0", "method": "event", "params": message},
                }
            )
            if event["type"] == "run.finished":
                break
        ask("wait", run_id=run_id, timeout_s=20.0)
        ask("unsubscribe", subscription=begun["subscription"])
        ask("status", run_id=run_id)
        ask("result", run_id=run_id)
        ask("trials", run_id=run_id)
        ask("runs", limit=20)
        ask("compare")
        ask("stale")
        ask("apply", run_id=run_id, dry_run=True)
        ask("cancel")
        ask("schedule.get")
        ask("schedule.set", at="03:30", drain=False, apply=False, only_on_ac=False, request={})
        ask("provider.restore")
    return said


def without(value: Any, names: frozenset[str]) -> Any:
    """A document without the fields of these names, at any depth."""
    if isinstance(value, dict):
        return {name: without(each, names) for name, each in value.items() if name not in names}
    return [without(each, names) for each in value] if isinstance(value, list) else value


def older(lines: list[Line]) -> list[Line]:
    """As an agent would say it that has no more than was specified at first."""
    later = {"stale", "provider.restore"}
    numbers = {line["message"]["id"] for line in lines if line["message"].get("method") in later}
    kept = [line for line in lines if line["message"].get("id") not in numbers]
    fields = {
        "log_path",
        "stale",
        "schedule",
        "prewarm",
        "peak_rss_bytes",
        "noise",
        "timings",
        "cancelling",
    }
    fields |= {
        "fetch_bytes",
        "fetch_rate",
        "fetch_s",
        "fetched_bytes",
        "ready_ms",
        "partial",
        "replicate_mode",
    }
    return [line if line["from"] == "client" else without(line, frozenset(fields)) for line in kept]


def more(value: Any) -> Any:
    """A document with a field too many in each object."""
    if isinstance(value, dict):
        return {**{name: more(each) for name, each in value.items()}, "of_tomorrow": {"x": [1]}}
    return [more(each) for each in value] if isinstance(value, list) else value


def newer(lines: list[Line]) -> list[Line]:
    """As an agent would say it that knows more of everything, and tells of things yet unheard of."""
    said: list[Line] = []
    for line in lines:
        message = line["message"]
        if line["from"] == "client" or "error" in message:
            said.append(line)
        elif "result" in message:
            said.append({**line, "message": {**message, "result": more(message["result"])}})
        else:
            params = more(message["params"])
            said.append({**line, "message": {**message, "params": params}})
            unheard = {**params, "type": "thermal.sample"}
            said.append({**line, "message": {**message, "params": unheard}})
    return said


def main() -> None:
    """Write the file, and for the first protocol its two imagined relatives."""
    name = sys.argv[1]
    with home() as made:
        text = "".join(json.dumps(line) + "\n" for line in record(made))
        machine = made.rpc("result")["machine"]
    names = {str(made.path): "/Users/me", str(made.port): "18080", machine["chip"]: "A chip"}
    for found, instead in {**names, machine["os_version"]: "An OS 1.0"}.items():
        text = text.replace(found, instead)
    lines = [json.loads(line) for line in text.splitlines()]
    versions = {name: lines, f"{name}-older": older(lines), f"{name}-newer": newer(lines)}
    for version, said in versions.items():
        with (HERE / f"{version}.jsonl").open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in said)


if __name__ == "__main__":
    main()
