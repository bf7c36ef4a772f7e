"""`rpc`, `dial-stdio`, `metrics`, `completion` and `demo`: for programs, shells and the curious."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from autotunectl.client import Client, ClientError, Unreachable
from autotunectl.completion import METHODS, files, words
from autotunectl.output import as_text, fail, write_file
from autotunectl.reach import Reach, command
from autotunectl.text import provider
from autotuned.shared.knobs import listed, shown

PREFIX = "autotuned_"
NONE: Mapping[str, str] = {}


@command(
    "autotunectl rpc runs '{\"limit\": 1}'", json="A refusal, too, as a JSON document on stdout."
)
@click.argument("method", shell_complete=words(*METHODS))
@click.argument("params", required=False, default="{}")
def rpc(reach: Reach, method: str, params: str) -> None:
    """One raw call of the control socket."""
    try:
        content = json.loads(params)
    except ValueError as error:
        fail(f"PARAMS is not JSON: {error}", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    if not isinstance(content, dict):
        fail("PARAMS is not a JSON object", 2, "autotunectl rpc runs '{\"limit\": 1}'")
    with reach.client() as client:
        click.echo(as_text(client.request(method, content)))


@command(
    """printf '%s\\n' '{"jsonrpc":"2.0","id":1,"method":"status"}' | autotunectl dial-stdio""",
    json=None,
)
def dial_stdio(reach: Reach) -> None:
    """Join stdin and stdout to the agent's socket: the far end of --host ssh://..."""
    from autotunectl import dial

    reach.only_here()
    with reach.client() as client:
        dial.join(client.take_over())


@command('eval "$(autotunectl completion zsh)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(reach: Reach, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from autotunectl.cli import main

    found = get_completion_class(shell)
    if found is not None:
        script = found(main, {}, "autotunectl", "_AUTOTUNECTL_COMPLETE").source()
        click.echo(as_text({"shell": shell, "script": script}) if reach.as_json else script)


@command("autotunectl demo --report demo.html")
@click.option(
    "--report", metavar="FILE", shell_complete=files, help="Also write the report as one HTML file."
)
def demo(reach: Reach, report: str | None) -> None:
    """Tune small models with a real server on this machine, in a minute or two."""
    from autotunectl.demo import run_demo

    sys.exit(run_demo(json_output=reach.as_json, report=report))


@command("autotunectl metrics --output /var/lib/node_exporter/autotuned.prom")
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write there, whole or not at all, instead of to stdout.",
)
def metrics(reach: Reach, output: str | None) -> None:
    """The last run's figures, staleness, lease and schedule in Prometheus text format.

    Starts no agent: where none answers, autotuned_up is 0 and that is all.
    """
    status: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    with contextlib.suppress(Unreachable), reach.again() as client:
        status = client.call("status")
        best = _last_good(client)
    samples = list(_samples(status, best))
    text = _text(samples)
    if reach.as_json:
        click.echo(as_text({"metrics": samples, "output": output}))
    elif output is None:
        click.echo(text)
    if output is not None:
        try:
            write_file(output, text + "\n")
        except OSError as error:
            fail(f"--output: {output}: {error.strerror}", 2, "name a file in a folder that exists")


def _last_good(client: Client) -> dict[str, Any] | None:
    """The newest result with a whole recommendation."""
    with contextlib.suppress(ClientError):
        good = client.call("runs", limit=1, good=True)["runs"]
        return client.call("result", run_id=good[0]["run_id"]) if good else None
    return None


# --- the Prometheus text format (0.0.4), for the node exporter's textfile collector ---------------------


def _text(samples: Iterable[Mapping[str, Any]]) -> str:
    """One page of them."""
    lines: list[str] = []
    for each in samples:
        name = each["name"]
        if f"# TYPE {name} gauge" not in lines:
            lines += [f"# HELP {name} {each['help']}", f"# TYPE {name} gauge"]
        inside = ",".join(f'{key}="{_escaped(word)}"' for key, word in each["labels"].items())
        labels = f"{{{inside}}}" if inside else ""
        lines.append(f"{name}{labels} {each['value']!r}")
    return "\n".join(lines)


def _sample(
    name: str, help_text: str, value: float, labels: Mapping[str, str] = NONE
) -> dict[str, Any]:
    """`value` as a number: what is true is 1."""
    number = float(value) if isinstance(value, bool) else value
    return {"name": PREFIX + name, "help": help_text, "value": number, "labels": labels}


def _samples(
    status: Mapping[str, Any] | None, best: Mapping[str, Any] | None
) -> Iterator[dict[str, Any]]:
    yield _sample("up", "Whether the agent answers.", status is not None)
    if status is None:
        return
    agent = {"version": status["daemon"]["version"], "protocol": str(status["daemon"]["protocol"])}
    yield _sample("build_info", "The agent that answers.", 1.0, agent)
    yield from _of_runs(status.get("run"))
    yield from _of_the_recipe(best)
    stale = status.get("stale") or {}
    changed = "Whether the machine has changed since the last good run."
    yield _sample("stale", changed, bool(stale.get("stale")))
    yield _sample(
        "never_tuned", "Whether there is no good run yet.", bool(stale.get("never_tuned"))
    )
    owed = provider.owed(status)
    yield _sample(
        "restore_outstanding", "Whether a live provider is still to be brought back.", owed
    )
    schedule = status.get("schedule") or {}
    on, paused = bool(schedule.get("enabled")), bool(schedule.get("paused"))
    yield _sample("schedule_enabled", "Whether the nightly re-tune is on.", on)
    yield _sample("schedule_paused", "Whether it has paused itself after failures.", paused)
    if schedule.get("next_run_at"):
        due = _seconds(schedule["next_run_at"])
        yield _sample("schedule_next_run_timestamp_seconds", "When it is due next.", due)


def _of_runs(run: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    running = run is not None and run["state"] == "running"
    yield _sample("run_active", "Whether a run is in progress.", running)
    if run is None or running:
        return
    labels = {"run_id": run["run_id"], "exit_reason": run["exit_reason"], "trigger": run["trigger"]}
    yield _sample("last_run_info", "How the last run ended.", 1.0, labels)
    ok = run["exit_reason"] == "ok"
    yield _sample("last_run_ok", "Whether it ended with a recommendation.", ok)
    if run.get("ended_at"):
        yield _sample("last_run_end_timestamp_seconds", "When it ended.", _seconds(run["ended_at"]))


def _of_the_recipe(best: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    answer = best and best.get("recommendation")
    if best is None or not answer:
        return
    knobs = answer["knobs"]
    labels = {
        "model": answer["model"],
        **{knob.name: shown(value) for knob, value in listed(knobs)},
        "recipe_hash": best.get("recipe_hash") or "",
        "run_id": best["run_id"],
    }
    yield _sample("recommendation_info", "The last good recommendation.", 1.0, labels)
    tps, ttft_s = answer["tps_median"], answer["ttft_p95_ms"] / 1000
    yield _sample("recommendation_tokens_per_second", "Its median, end to end.", tps)
    yield _sample("recommendation_ttft_p95_seconds", "Its time to the first token.", ttft_s)
    calibration = best.get("calibration") or {}
    streams = (calibration.get("concurrency") or {}).get("recommended")
    if streams is not None:
        yield _sample("recommended_concurrency", "Requests at once that are worth it.", streams)
    tokens = (calibration.get("context") or {}).get("answer")
    if tokens is not None:
        yield _sample("useful_context_tokens", "The longest useful context.", tokens)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
