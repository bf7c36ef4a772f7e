"""Writes the pages that are generated: `make docs`. Tests fail when they are older than the code.

    docs/result.schema.json   the result document
    docs/report-demo.html     the report of a demo run
    docs/openrpc.json         the control socket, as the agent describes itself
    docs/rpc.md               the same for people, with answers that a real agent gave
    docs/man/*.1              a manual page for each command

The answers come out of one run of a real agent with the tests' scripted provider, in a home of its own;
what names that home or this machine is replaced. They are kept in `autotuned/rpc/examples.json`, and
recorded anew with `python docs/generate.py --answers` when an answer has got a new field.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
from click_man.core import write_man_pages  # noqa: E402

from autotunectl import cli  # noqa: E402
from autotuned import __version__  # noqa: E402
from tests.support.generated import files  # noqa: E402
from tests.support.home import Home, Y, Z  # noqa: E402
from tests.support.live import LaunchdJob  # noqa: E402

EXAMPLES = ROOT / "autotuned" / "rpc" / "examples.json"
PAGE = ROOT / "docs" / "rpc.md"
LONGEST_LIST = 2


def main() -> None:
    """Write them all."""
    if "--answers" in sys.argv[1:]:
        record_answers()
    for path, content in files().items():
        _write(path, content)
    home = Home()
    try:
        home.start_daemon()
        described = home.rpc("rpc.discover")
    finally:
        home.close()
    _write(ROOT / "docs" / "openrpc.json", json.dumps(described, indent=1, ensure_ascii=False))
    _write(PAGE, whole_page(PAGE.read_text(encoding="utf-8"), described))
    manual(ROOT / "docs" / "man")


# --- answers of a real agent -----------------------------------------------------------------------


def record_answers() -> None:
    """Call every method once, as a client would, and keep params and answers."""
    home = Home()
    try:
        cells = {"unset/1/4000": {"tps": 19.2}, "8/1/4000": {"tps": 22.6}}
        planned = {
            cell: {"replicates": [{**figures, "ttft_ms": 640}]} for cell, figures in cells.items()
        }
        home.provider({Y: {"cells": planned}, Z: {}})
        LaunchdJob(home)
        home.start_daemon()
        kept = {name: asked(home, name, params) for name, params in _calls(home)}
    finally:
        home.close()
    _write(EXAMPLES, json.dumps(kept, indent=1, ensure_ascii=False))


def _calls(home: Home) -> Iterator[tuple[str, dict[str, Any]]]:
    """Methods in the order of one operator's day."""
    yield "version", {}
    yield "doctor", {}
    yield "models", {}
    request = {
        "candidate_models": [Y, Z],
        "target_context": 4000,
        "kv_bits_axis": [None, 8],
        "max_batch_axis": [1],
        "stage2_replicates": 2,
        "drain": True,
        "port": home.port,
    }
    yield "start", request
    yield "subscribe", {"since": 0}
    yield "unsubscribe", {"subscription": "s1"}
    yield "wait", {"timeout_s": 60}
    yield "status", {}
    yield "result", {}
    yield "trials", {"run_id": home.rpc("runs")["runs"][0]["run_id"]}
    home.rpc("start", **request)
    home.rpc("wait")
    yield "runs", {"limit": 1}
    yield "compare", {}
    yield "report", {}
    yield "apply", {"dry_run": True}
    yield "stale", {}
    yield "schedule.set", {"enabled": True, "at": "03:30", "drain": True}
    yield "schedule.get", {"history": 1}
    yield "cancel", {}
    yield "provider.restore", {}
    yield "reload", {}
    home.rpc("schedule.set", enabled=False)
    home.rpc("apply")
    yield "revert", {}


def asked(home: Home, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """One call and its answer, cut to a readable length, without what names this home or machine."""
    if method in ("subscribe", "unsubscribe"):
        answer: Any = {"subscription": "s1", "seq": 12} if method == "subscribe" else {}
    else:
        answer = home.rpc(method, **params)
    kept = {name: value for name, value in params.items() if name != "port"}
    return {"params": kept, "result": _neutral(_cut(answer), home)}


def _cut(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {key: _cut(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_cut(value) for value in part[:LONGEST_LIST]]
    return part if not isinstance(part, str) or len(part) < 1000 else part[:200] + " ..."


def _neutral(answer: Any, home: Home) -> Any:
    facts = home.rpc("result")["machine"] if home.rpc("runs")["runs"] else {}
    text = json.dumps(answer, ensure_ascii=False)
    replaced = {
        str(home.path): "/Users/me",
        home.program: "macprovider-cli",
        str(facts.get("chip")): "Apple M2",
        str(facts.get("os_version")): "macOS 26.3",
        sys.executable: "/usr/bin/python3",
        str(ROOT): "/Users/me/autotuned",
    }
    for found, put in replaced.items():
        text = text.replace(json.dumps(found, ensure_ascii=False)[1:-1], put)
    text = re.sub(r"gui/\d+", "gui/501", text)
    text = re.sub(r'"(pid|holder_pid)": \d+', r'"\1": 4242', text)
    return json.loads(text)


# --- the page for people -----------------------------------------------------------------------------

MARK = "<!-- what follows is generated: make docs -->"


def whole_page(present: str, described: Mapping[str, Any]) -> str:
    """The page with what stands before the mark as it is, and what is generated anew."""
    return present.partition(MARK)[0] + MARK + "\n\n" + page(described)


def page(described: Mapping[str, Any]) -> str:
    """Every method: what it takes, what it gives, how it fails, and one call with its answer."""
    schemas = described["components"]["schemas"]
    parts = []
    for method in described["methods"]:
        parts += [
            f"## `{method['name']}`",
            "",
            f"{method['summary'][0].upper()}{method['summary'][1:]}.",
            "",
        ]
        if method["params"]:
            parts += ["| parameter | type | default |", "| --- | --- | --- |"]
            parts += [_param(param, schemas) for param in method["params"]]
            parts.append("")
        fields = _fields(method["result"]["schema"], schemas)
        if fields:
            parts += ["Answers with " + "; or with ".join(fields) + ".", ""]
        codes = ", ".join(f"{error['code']} ({error['message']})" for error in method["errors"])
        parts += [f"Errors: {codes}.", ""]
        for example in method.get("examples", ()):
            call = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": method["name"],
                "params": {param["name"]: param["value"] for param in example["params"]},
            }
            answer = json.dumps(example["result"]["value"], indent=1, ensure_ascii=False)
            parts += [
                "```json",
                json.dumps(call, ensure_ascii=False),
                "```",
                "```json",
                answer,
                "```",
                "",
            ]
    return "\n".join([*parts, *_events(described, schemas)])


def _events(described: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    """Every kind of event: when it comes, and its fields."""
    rows = ["## Events", "", "| type | when | fields |", "| --- | --- | --- |"]
    for shape in described["x-events"]:
        schema = schemas[shape["$ref"].rsplit("/", 1)[-1]]
        names = ", ".join(f"`{name}`" for name in schema["properties"] if name != "type")
        kind = schema["properties"]["type"]
        kind = schemas[kind["$ref"].rsplit("/", 1)[-1]] if "$ref" in kind else kind
        kinds = ", ".join(f"`{name}`" for name in kind.get("enum", [kind.get("const")]))
        rows.append(f"| {kinds} | {schema['description']} | {names} |")
    return [*rows, ""]


def _param(param: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    schema = param["schema"]
    default = "required" if param["required"] else f"`{json.dumps(schema.get('default'))}`"
    return f"| `{param['name']}` | {_type(schema, schemas)} | {default} |"


def _type(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _type(schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(choice, schemas) for choice in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), schemas)}"
    limits = [
        f"{sign} {schema[name]:g}"
        for name, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if name in schema
    ]
    return " ".join([str(schema.get("type", "any")), *limits])


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    if "$ref" in schema:
        return _fields(schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas)
    if "anyOf" in schema:
        return [fields for choice in schema["anyOf"] for fields in _fields(choice, schemas)]
    names = schema.get("properties", {})
    return [", ".join(f"`{name}`" for name in names)] if names else []


# --- manual pages -----------------------------------------------------------------------------------


def manual(folder: Path) -> None:
    """One page a command, by click-man."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.1"):
        old.unlink()
    context = click.Context(cli.main)
    commands = {name: cli.main.get_command(context, name) for name in cli.COMMANDS}
    whole = click.Group(  # the program itself loads its commands one by one
        "autotunectl",
        {name: command for name, command in commands.items() if command is not None},
        help=cli.main.help,
        epilog=cli.main.epilog,
        params=cli.main.params,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it shortens help in click's old way
        write_man_pages("autotunectl", whole, version=__version__, target_dir=str(folder))
    for made in folder.glob("*.1"):  # no date: a page is as old as what it says
        text = re.sub(
            r'^(\.TH "[^"]*" "1") "[^"]*"',
            r'\1 ""',
            made.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        made.write_text(f"{text.rstrip()}\n{_sections()}", encoding="utf-8")


def _sections() -> str:
    """What every page ends with: exit status, files, environment."""
    parts = [".SH EXIT STATUS"]
    for code, meaning in sorted(cli.EXIT_STATUS.items()):
        parts += [".TP", rf"\fB{code}\fP", meaning]
    for heading, entries in (("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT)):
        parts.append(f".SH {heading}")
        for name, meaning in entries.items():
            parts += [".TP", rf"\fB{name}\fP", meaning]
    return "\n".join(parts).replace("-", r"\-") + "\n"


FILES = {
    "~/.config/macprovider/config.yaml": "The provider's configuration, which apply writes.",
    "~/.config/macprovider/config.yaml.bak-*": "Its backups, which revert puts back.",
    "~/.config/macprovider/autotuned.toml": "The agent's settings.",
    "~/.config/macprovider/autotune.sqlite": "The agent's database: runs, measurements, the schedule.",
    "~/.config/macprovider/run/autotuned.sock": "The agent's control socket.",
    "~/Library/Logs/autotuned, ~/.local/state/autotuned": "Logs, on macOS and elsewhere.",
}
ENVIRONMENT = {
    "AUTOTUNED_SOCKET": "The agent's control socket.",
    "AUTOTUNED_DB_PATH": "The agent's database.",
    "AUTOTUNED_HOST": "The agent of another machine, as --host.",
    "HF_HOME, HF_HUB_CACHE": "Where the cache of models is.",
    "HF_ENDPOINT": "The hub from which models are fetched.",
    "HF_TOKEN": "The token for models that need one.",
    "XDG_STATE_HOME": "Where the logs are, elsewhere than on macOS.",
    "NO_COLOR": "Print without colours.",
}


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
