"""The one table of failures: every kind that either program knows is in it, and every hint is a command that exists."""

from __future__ import annotations

import re

import click
import pytest

from autotunectl import cli
from autotunectl import errors as client_errors
from autotuned import errors as agent_errors
from autotuned.documents.result import ExitReason
from autotuned.shared import failures, wire
from autotuned.shared.failures import FAILURES

WORDS = {"PORT": "18081", "DURATION": "4h", "MODEL": "acme/small-1B"}
RUN = "20260101T000000Z-a1b2c3"


def kinds(base: type[Exception]) -> set[str]:
    """The kinds of a class and of all that are built on it."""
    found = {str(vars(base).get("kind", ""))} - {""}
    for each in base.__subclasses__():
        found |= kinds(each)
    return found


def commands(hint: str) -> list[list[str]]:
    """The commands that a hint names: words up to a comma, placeholders filled in."""
    found = re.findall(r"autotunectl ([^,;]+)", hint)
    return [[WORDS.get(word, word) for word in text.split()] for text in found]


def parsed(words: list[str]) -> int:
    """How many of the words the real command line takes, as many as possible."""
    root = click.Context(cli.main)
    for count in range(len(words), 0, -1):
        command: click.Command | None = cli.main
        rest = words[:count]
        while isinstance(command, click.Group) and rest:
            command = command.get_command(root, rest.pop(0))
        if command is None or isinstance(command, click.Group):
            continue
        if rest == ["--help"]:
            return count
        try:
            command.make_context(words[0], rest, parent=root)
        except click.UsageError:
            continue
        return count
    return 0


def test_every_kind_of_failure_has_its_sentence_its_exit_code_and_its_hint() -> None:
    agents = kinds(agent_errors.AutotunedError)
    clients = kinds(client_errors.ClientError)
    reasons = {reason.value for reason in ExitReason} - {"ok"}
    assert agents | clients | reasons <= set(FAILURES)
    assert {name for name in wire.EXIT_CODES if name != "ok"} == reasons
    assert {FAILURES[reason].exit_code for reason in reasons} == set(wire.EXIT_CODES.values()) - {0}
    for kind, failure in FAILURES.items():
        assert failure.sentence, kind
        assert failure.hint, kind


@pytest.mark.parametrize("kind", FAILURES)
def test_a_hint_names_a_command_that_exists(kind: str) -> None:
    words_of_hint = commands(failures.hint(kind, {"run_id": RUN}, "start"))
    assert words_of_hint, kind
    for words in words_of_hint:
        count = parsed(words)
        assert count, words
        assert not [word for word in words[count:] if word.startswith("-")], words


@pytest.mark.parametrize("command", ["start", "check", "noise", "schedule"])
def test_who_meets_a_live_server_is_told_of_the_drain_of_its_own_command(command: str) -> None:
    (words,) = commands(failures.hint("provider_conflict", {}, command))
    assert command in words[:-1] or words[0] == command
    assert words[-1] == "--drain"


def test_a_servers_check_which_drains_nothing_hints_at_no_drain() -> None:
    assert not failures.hint("provider_conflict", {}, "servers")


@pytest.mark.parametrize("code", sorted(set(failures.CODES.values())))
def test_the_client_knows_the_kind_of_every_code(code: int) -> None:
    assert FAILURES[failures.kind_of(code, {})].code == code
    raised = client_errors.CallError(code, "no", {})
    assert raised.exit_code == FAILURES[raised.kind].exit_code
    assert raised.remedy


@pytest.mark.parametrize(
    ("kind", "data", "special"),
    [
        ("apply_refused", {"reason": "partial"}, "apply_refused.partial"),
        ("apply_refused", {"reason": "unheard_of"}, "apply_refused"),
        (
            "provider_conflict",
            {"conflicts": ["port-held-by nginx pid 1"]},
            "provider_conflict.port",
        ),
        (
            "provider_conflict",
            {"conflicts": ["launchd-managed (gui/501/a)", "foreground-PID-1"]},
            "provider_conflict.several",
        ),
        (
            "provider_conflict",
            {"conflicts": ["launchd-managed (gui/501/a)"], "reason": "undrainable"},
            "provider_conflict.undrainable",
        ),
        (
            "provider_conflict",
            {"conflicts": ["foreground-PID-1", "drain-lock-held-by pid 2"], "reason": "held"},
            "provider_conflict.held",
        ),
        ("busy", {"pull_id": "p1"}, "busy.pull"),
        ("unheard_of", {}, "internal_error"),
    ],
)
def test_what_is_known_of_a_failure_makes_its_hint_the_more_precise(
    kind: str, data: dict[str, object], special: str
) -> None:
    assert failures.find(kind, data) is FAILURES[special]
