"""What can be served, as text for people: the weights in the cache, and the programs that serve them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from autotunectl.text.layout import Table, columns, size

if TYPE_CHECKING:
    from autotuned.documents.servers import (
        ServeDocument,
        ServerCheck,
        ServerDocument,
        ServersDocument,
    )
    from autotuned.documents.weights import ModelDocument, ModelsDocument


def models(document: ModelsDocument, room: int | None = None) -> str:
    """The table of the cache, largest weights first, with where it is and what room is left."""
    found = sorted(document["models"], key=lambda entry: -entry["weights_bytes"])
    foot = (
        f"cache {document['cache']}: {size(document['disk_free_bytes'])} free; "
        f"memory {size(document['memory_bytes'])}"
    )
    if not found:
        return f"no models in the cache yet: autotunectl pull MODEL\n{foot}"
    table: Table = [("MODEL", "PARAMETERS", "WEIGHTS", "FITS", "STATE")]
    for entry in found:
        parameters = "-" if entry["size_b"] is None else f"{entry['size_b']:g}B"
        fits = "yes" if entry["fits"] else "no"
        weights = size(entry["weights_bytes"])
        table.append((entry["model"], parameters, weights, fits, _state(entry)))
    return f"{columns(table, room)}\n\n{foot}"


def _state(entry: ModelDocument) -> str:
    if not entry["complete"]:
        return f"incomplete: {entry['reason']}"
    return "complete" if entry["checked_at"] is None else f"checked {entry['checked_at'][:10]}"


def servers(document: ServersDocument) -> Table:
    """Every server with its version and knobs."""
    rows: Table = [("SERVER", "FROM", "VERSION", "KNOBS")]
    for server in document["servers"]:
        knobs = ", ".join(knob["name"] for knob in server["knobs"]) or "none"
        rows.append((server["name"], server["source"], _version(server), knobs))
    return rows


def _version(server: ServerDocument) -> str:
    if server["program"] is None:
        return "not installed"
    return str(server["version"] or server["problem"] or "installed")


def check(document: ServerCheck) -> str:
    """One start, a line for each thing that was looked at."""
    lines = [
        f"{document['server']} {document['version']} with {document['model']}",
        f"  started   {shlex.join(document['argv'])}" if document["argv"] else "  started   no",
        f"  ready     {_ms(document['ready_ms'])}",
        f"  stream    first text after {_ms(document['ttft_ms'])}",
        f"  usage     {_told(document['prompt_tokens'])} of prompt, "
        f"{_told(document['completion_tokens'])} of answer",
        f"  cache     {_told(document['cached_tokens'], 'tokens of the prompt', 'not told in its usage')}",
        f"  stopped   {_ms(document['stop_ms'])}",
        *(f"  remark    {remark}" for remark in document["remarks"]),
        f"  log       {document['log']}",
        "it works" if document["reason"] is None else f"it does NOT work: {document['reason']}",
    ]
    return "\n".join(lines)


def command(document: ServeDocument) -> str:
    """A command line with the variables before it."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in document["env"].items()]
    return " ".join([*settings, shlex.join(document["argv"])])


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _told(tokens: int | None, words: str = "tokens", none: str = "unknown") -> str:
    return none if tokens is None else f"{tokens} {words}"
