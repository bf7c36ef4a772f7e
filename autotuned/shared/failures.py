"""Every way in which a command ends without what was asked for, once: exit code, sentence, hint.

By kind: the exit reasons of a run, the errors of the agent, what goes wrong on the way to it. A row `kind.variant`
is the same with more known about it. Hints hold `{run}` and `{command}` where they are about one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from autotuned.shared import wire

REASON = wire.EXIT_CODES


class Failure(NamedTuple):
    """`code` is that of JSON-RPC, where the agent answers with one; `data`: what stands in its data."""

    exit_code: int
    sentence: str
    hint: str = ""
    code: int | None = None
    data: str = ""


FAILURES: Final[Mapping[str, Failure]] = {
    "internal_error": Failure(
        REASON["internal_error"],
        "a bug, or a file that cannot be read or written",
        "autotunectl logs has the details, autotunectl bugreport an archive of them",
        wire.INTERNAL_ERROR,
    ),
    "config_error": Failure(
        REASON["config_error"],
        "a request, a flag or a setting that cannot be used",
        "autotunectl {command} --help",
        wire.INVALID_PARAMS,
        "names field, value and rule",
    ),
    "no_feasible": Failure(
        REASON["no_feasible"],
        "no candidate can be served here",
        "autotunectl logs {run} shows what each candidate that was started printed",
    ),
    "budget_exhausted_no_model_selected": Failure(
        REASON["budget_exhausted_no_model_selected"],
        "the time was used up before there was a recommendation",
        "autotunectl start --resume {run} --max-duration DURATION goes on with it",
    ),
    "budget_exhausted_with_partial_recommendation": Failure(
        REASON["budget_exhausted_with_partial_recommendation"],
        "the time was used up; the recommendation is partial",
        "autotunectl start --resume {run} --max-duration DURATION goes on with it; "
        "autotunectl apply --allow-partial takes what there is",
    ),
    "interrupted": Failure(
        REASON["interrupted"],
        "the run was cancelled or cut off",
        "autotunectl start --resume {run} --wait goes on with it",
    ),
    "provider_conflict": Failure(
        REASON["provider_conflict"],
        "a live provider or another program is in the way",
        "autotunectl {command} --drain",
        wire.PROVIDER_CONFLICT,
        "lists the conflicts",
    ),
    "pre_warm_integrity_failure": Failure(
        REASON["pre_warm_integrity_failure"],
        "weights are damaged",
        "autotunectl models lists what is here; autotunectl pull MODEL --verify reads it again",
    ),
    "unreachable": Failure(
        wire.EXIT_UNREACHABLE, "the agent cannot be reached", "autotunectl daemon start"
    ),
    "busy": Failure(
        wire.EXIT_BUSY,
        "another run is active",
        "autotunectl watch, or autotunectl cancel",
        wire.BUSY,
        "names it",
    ),
    "not_found": Failure(
        wire.EXIT_NO_SUCH_RUN,
        "there is no such run, subscription, pull or entry",
        "autotunectl runs",
        wire.NOT_FOUND,
    ),
    "apply_refused": Failure(
        wire.EXIT_APPLY_REFUSED,
        "the configuration is left as it is",
        "autotunectl doctor",
        wire.APPLY_REFUSED,
        "says why in a word",
    ),
    "restore_outstanding": Failure(
        wire.EXIT_RESTORE_OUTSTANDING,
        "a live provider is not back yet",
        "autotunectl provider restore",
        wire.RESTORE_OUTSTANDING,
        "has the lease",
    ),
    "stale": Failure(
        wire.EXIT_STALE, "the recipe is stale: the machine has changed", "autotunectl start"
    ),
    "never_tuned": Failure(
        wire.EXIT_NEVER_TUNED, "this machine was never tuned", "autotunectl start"
    ),
    "slower": Failure(
        wire.EXIT_SLOWER, "the recipe serves slower than it did", "autotunectl start --wait"
    ),
    "interrupted_here": Failure(
        wire.EXIT_INTERRUPTED_HERE, "interrupted by Ctrl-C at this terminal", "autotunectl status"
    ),
    # further kinds of errors with those exit codes
    "not_started": Failure(
        wire.EXIT_UNREACHABLE, "an agent was started and has ended", "autotunectl doctor"
    ),
    "no_answer": Failure(
        wire.EXIT_UNREACHABLE,
        "the agent did not answer in time",
        "autotunectl doctor, or autotunectl logs",
    ),
    "wrong_protocol": Failure(
        wire.EXIT_UNREACHABLE,
        "the agent speaks another protocol than this client",
        "autotunectl daemon restart",
    ),
    "shutting_down": Failure(
        wire.EXIT_UNREACHABLE,
        "the agent is stopping",
        "autotunectl daemon start",
        wire.SHUTTING_DOWN,
    ),
    "unknown_method": Failure(
        REASON["internal_error"],
        "the agent has no such method",
        "autotunectl daemon restart, if the agent is older than this client",
        wire.METHOD_NOT_FOUND,
    ),
    "bad_message": Failure(
        REASON["internal_error"],
        "what was sent is no JSON-RPC request",
        "autotunectl rpc --help",
        wire.INVALID_REQUEST,
    ),
    "settings_error": Failure(
        REASON["config_error"],
        "the settings file cannot be used",
        "correct the file, then autotunectl daemon reload; the settings in use stay",
        wire.INVALID_PARAMS,
        "names file, key and rule",
    ),
    "store_error": Failure(
        REASON["internal_error"],
        "the database cannot be read or written",
        "autotunectl doctor",
        wire.INTERNAL_ERROR,
        "names the path",
    ),
    "unsafe_path": Failure(
        REASON["internal_error"],
        "a file or folder has the wrong owner, type or mode",
        "autotunectl doctor",
        wire.INTERNAL_ERROR,
        "names the path",
    ),
    "already_running": Failure(
        REASON["internal_error"],
        "another agent runs for this home",
        "autotunectl daemon status",
        wire.INTERNAL_ERROR,
    ),
    # the same, with more known
    "provider_conflict.port": Failure(
        REASON["provider_conflict"],
        "another program holds the port",
        "autotunectl start --port PORT with another port",
        wire.PROVIDER_CONFLICT,
    ),
    "provider_conflict.foreground": Failure(
        REASON["provider_conflict"],
        "a live provider runs in a terminal",
        "autotunectl {command} --drain --restart-foreground; without the second it stays stopped",
        wire.PROVIDER_CONFLICT,
    ),
    "provider_conflict.several": Failure(
        REASON["provider_conflict"],
        "more than one live provider runs",
        "stop all but one of them, then autotunectl {command} --drain",
        wire.PROVIDER_CONFLICT,
    ),
    "provider_conflict.undrainable": Failure(
        REASON["provider_conflict"],
        "a live provider could not be brought back as it was",
        "see to what the message says, then autotunectl {command} --drain",
        wire.PROVIDER_CONFLICT,
    ),
    "provider_conflict.held": Failure(
        REASON["provider_conflict"],
        "another tool drains or restores the live provider",
        "wait for that tool, then autotunectl {command} --drain",
        wire.PROVIDER_CONFLICT,
    ),
    "busy.pull": Failure(
        wire.EXIT_BUSY, "a pull is in progress", "autotunectl pull --cancel", wire.BUSY
    ),
    **{
        f"pull.{outcome}": Failure(exit_code, sentence, hint)
        for outcome, exit_code, sentence, hint in (
            (
                "transient",
                REASON["no_feasible"],
                "the hub cannot be reached, or refuses",
                "the next autotunectl pull goes on where this one stopped",
            ),
            (
                "static",
                REASON["no_feasible"],
                "the weights do not fit into this machine's memory",
                "autotunectl pull --no-fit-check fetches it all the same",
            ),
            (
                "interrupted",
                REASON["interrupted"],
                "the pull was cancelled",
                "the next autotunectl pull goes on where this one stopped",
            ),
            (
                "integrity",
                REASON["pre_warm_integrity_failure"],
                "the weights are damaged, or not what the hub has",
                "do not serve it: autotunectl pull MODEL --verify reads it again; docs/weights.md says what each reason means",
            ),
        )
    },
    **{
        f"apply_refused.{reason}": Failure(
            wire.EXIT_APPLY_REFUSED, sentence, hint, wire.APPLY_REFUSED
        )
        for reason, sentence, hint in (
            ("running", "the run goes on", "autotunectl watch, then autotunectl apply"),
            (
                "no_recommendation",
                "the run has no recommendation",
                "autotunectl runs lists those that have one",
            ),
            (
                "partial",
                "the recommendation is partial",
                "autotunectl apply --allow-partial takes what there is",
            ),
            (
                "other_machine",
                "the recipe is of another machine",
                "autotunectl start --wait measures this machine; "
                "autotunectl apply --force takes it all the same",
            ),
            (
                "other_provider",
                "the provider has no configuration file",
                "autotunectl show has the command that serves it",
            ),
            (
                "no_backup",
                "there is no such backup",
                "autotunectl apply makes one whenever it changes the file",
            ),
            (
                "bound_model",
                "the configuration binds another model",
                "autotunectl apply --knobs-only leaves the model as it is",
            ),
            (
                "locked",
                "another program holds the lock of the file",
                "wait until that program is done, then autotunectl apply",
            ),
            (
                "changed_meanwhile",
                "another program writes the file",
                "close what else writes that file, then autotunectl apply",
            ),
        )
    },
}
CODES: Final[Mapping[str, int]] = {
    kind: failure.code for kind, failure in FAILURES.items() if failure.code is not None
}
"""The JSON-RPC code of each kind that the agent answers with."""


def kind_of(code: int, data: Mapping[str, Any]) -> str:
    """The kind of an error of the agent: what its data says, else what its code says."""
    named = data.get("kind") or data.get("exit_reason")
    if named in FAILURES:
        return str(named)
    return next((kind for kind, its in CODES.items() if its == code), "internal_error")


def find(kind: str, data: Mapping[str, Any]) -> Failure:
    """The row of an error, the most special one there is."""
    variant, conflicts = data.get("reason"), [str(each) for each in data.get("conflicts") or ()]
    if variant is None and sum(not each.startswith("port-held-by") for each in conflicts) > 1:
        variant = "several"
    for start, name in (("port-held-by", "port"), ("foreground-", "foreground")):
        if variant is None and any(each.startswith(start) for each in conflicts):
            variant = name
    if data.get("pull_id"):
        variant = "pull"
    return FAILURES.get(f"{kind}.{variant}") or FAILURES.get(kind) or FAILURES["internal_error"]


def hint(kind: str, data: Mapping[str, Any], command: str | None = None) -> str:
    """What to do about an error of `command`, or after a run that ended so."""
    run = str(data.get("run_id") or "")
    if kind == "provider_conflict":
        if command == "servers":
            return ""  # its check stops no other server; the message says what does
        drains = {"schedule": "schedule set", "noise": "noise", "check": "check"}
        command = drains.get(command or "", "start")
    return (
        find(kind, data)
        .hint.replace("{command}", command or "start")
        .replace(" {run}", f" {run}" if run else "")
    )
