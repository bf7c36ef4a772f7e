"""What was written into the provider's configuration, as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuned.shared.knobs import TABLE, shown

KEYS = ("model", *(knob.published for knob in TABLE))
COLOURS = {"-": "red", "+": "green", "@": "cyan"}


def already(document: Mapping[str, Any]) -> str:
    """That nothing has to be written."""
    if document["recipe"]:
        return f"{document['config_path']} has this recipe already: nothing to do"
    return f"what serves has this recipe already, with {document['config_path']} as it is: nothing to do"


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
    return document["applied"].get("recipe") or recommended  # an older run has none


def reverted(document: Mapping[str, Any]) -> str:
    """The line that says which backup is in force again."""
    if document["reverted_to"] is None:
        return f"reverted: {document['config_path']} is gone ({_backup(document)})"
    if document["backup_path"] is None and not document["changed"]:
        return f"reverted: {document['config_path']} was {document['reverted_to']} already (nothing changed)"
    return f"reverted: {document['config_path']} is {document['reverted_to']} again ({_backup(document)})"


def live(hint: str) -> list[str]:
    """How to make it live, one command a line."""
    return ["to make it live:", *(f"  {command}" for command in hint.splitlines())]


def colour(line: str) -> str | None:
    """The colour of a diff's line; None for none."""
    return None if line.startswith(("---", "+++")) else COLOURS.get(line[:1])


def _backup(document: Mapping[str, Any]) -> str:
    if document["backup_path"] is not None:
        return f"backup at {document['backup_path']}"
    return "no backup: there was no file" if document["changed"] else "nothing changed, no backup"
