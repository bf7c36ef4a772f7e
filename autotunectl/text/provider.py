"""The live provider, its lease and its configuration as text: plain strings, loud when something is owed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotunectl.text.layout import duration, local
from autotuned.shared.knobs import TABLE, shown
from autotuned.shared.text import service_name

SEEN_NOW_S = 2.0
KEYS = ("model", *(knob.published for knob in TABLE))
STATES = {"intent": "about to be stopped", "failed": "not brought back yet, stopped"}
COLOURS = {"-": "red", "+": "green", "@": "cyan"}


def owed(status: Mapping[str, Any]) -> bool:
    """A restore is outstanding, and it is not a run in progress that will bring it."""
    lease, run = status.get("lease"), status.get("run") or {}
    if lease is None or not lease["outstanding"]:
        return False
    if lease["reason"] and lease["state"] in ("restoring", "failed"):
        return True
    return not (run.get("state") == "running" and run.get("run_id") == lease["run_id"])


def lines(status: Mapping[str, Any]) -> str:
    """What is known of the live provider, and what is owed to it."""
    shown = [*warning(status), *live(status)]
    return "\n".join(shown) or "live      no live provider runs, and nothing is owed"


def live(status: Mapping[str, Any]) -> list[str]:
    """One line on the live provider, where one is known."""
    found, lease = status.get("live_provider"), status.get("lease")
    if found is None:
        stopped = status.get("left_stopped")
        if not stopped:
            return []
        told = f"{stopped['name']}, stopped by run {stopped['run_id']}, has not been started again"
        return [f"stopped   {told}", f"start it  {stopped['command']}"]
    name = service_name(found) or "foreground"
    pid = f", pid {found['pid']}" if found.get("pid") else ""
    if lease is not None:
        said = STATES.get(found["state"], found["state"])
        return [f"live      {name}{pid}: {said} for run {lease['run_id']}"]
    words = [found["state"]]
    if found.get("loaded") and not found.get("running"):
        words = [f"loaded, not running ({found['state']})"]
    if found.get("since"):
        words[0] += f" since {local(found['since'])}"
    if found.get("runs") is not None:
        times = "once" if found["runs"] == 1 else f"{found['runs']} times"
        words.append(f"started {times}")
    words.append("answers" if found["healthy"] else f"does not answer on port {found['port']}")
    if (found.get("age_s") or 0) > SEEN_NOW_S:
        words.append(f"as seen {duration(found['age_s'])} ago")
    return [f"live      {name}{pid}: {', '.join(words)}"]


def warning(status: Mapping[str, Any]) -> list[str]:
    """Loud lines while a restore is owed; none otherwise."""
    if not owed(status):
        return []
    lease = status["lease"]
    if lease["state"] in ("restored", "living"):
        return [f"WATCHED: the live provider runs again for run {lease['run_id']}; does it hold?"]
    name = service_name(lease) or "a foreground process"
    why = lease["reason"] or lease["state"]
    return [
        f"NOT RESTORED: {name}, drained by run {lease['run_id']}, is not back yet",
        f"  why     {why}",
        f"  tried   {lease['attempts']} times, last at {lease['updated_at']}; no new run starts until it is back",
        "  do      autotunectl provider restore",
    ]


def forgotten(answer: Mapping[str, Any]) -> str:
    """What was dropped, or would be."""
    if not answer["would"]:
        return "nothing is owed: no live provider is drained"
    would = "\n".join(f"  {step}" for step in answer["would"])
    if answer["forgotten"]:
        return f"forgotten; a restore would have done:\n{would}"
    return f"a restore would:\n{would}\nto drop it all the same: autotunectl provider forget --yes"


def event(document: Mapping[str, Any]) -> str:
    """One line for an event of a drain or a restore."""
    name, kind = document.get("target", "the live provider"), document["type"]
    if kind == "drain.begun":
        return f"stopping {name}{', which somebody brought back' if document.get('again') else ''}"
    if kind == "drain.done":
        return f"stopped {name}"
    if kind == "restore.begun":
        return f"bringing {name} back"
    reason = document.get("reason")
    if not document.get("restored", True):
        return f"NOT RESTORED: {name}: {reason}; the agent goes on trying"
    output = f", its output goes to {document['log']}" if document.get("log") else ""
    return f"restored {name}{output}" if not reason else f"{name}: {reason}"


def already(document: Mapping[str, Any]) -> str:
    """That nothing has to be written."""
    if document["recipe"] or document["config_path"].endswith(".sh"):
        return f"{document['config_path']} has this recipe already: nothing to write"
    return f"nothing to write to {document['config_path']}: the live server's configuration has this recipe already"


def applied(recipe: Mapping[str, Any] | None, document: Mapping[str, Any]) -> str:
    """The line that says what stands in the configuration now, and where the old one is."""
    if not recipe and not document["changed"]:
        return already(document)
    if not recipe:  # flags, in a file that is not macprovider's
        words = [both["after"] or f"no {both['before']}" for both in document["changed"].values()]
        return f"applied: {', '.join([*words, document['config_path']])} ({_backup(document)})"
    return (
        f"applied: {' '.join(f'{key}={shown(recipe[key])}' for key in KEYS)} ({_backup(document)})"
    )


def recipe(document: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the run of a result document has put into the configuration, or left there."""
    answer = document["recommendation"]
    recommended = {"model": answer["model"], **answer["knobs"]}
    written: dict[str, Any] = document["applied"].get(
        "recipe", recommended
    )  # an older run has none
    return written


def reverted(document: Mapping[str, Any]) -> str:
    """The line that says which backup is in force again."""
    if document["reverted_to"] is None:
        return f"reverted: {document['config_path']} is gone ({_backup(document)})"
    if document["backup_path"] is None and not document["changed"]:
        return f"reverted: {document['config_path']} was {document['reverted_to']} already (nothing changed)"
    return f"reverted: {document['config_path']} is {document['reverted_to']} again ({_backup(document)})"


def colour(line: str) -> str | None:
    """The colour of a diff's line; None for none."""
    return None if line.startswith(("---", "+++")) else COLOURS.get(line[:1])


def _backup(document: Mapping[str, Any]) -> str:
    if document["backup_path"] is not None:
        return f"backup at {document['backup_path']}"
    return "no backup: there was no file" if document["changed"] else "nothing changed, no backup"
