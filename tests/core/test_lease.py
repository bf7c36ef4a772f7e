"""The lease as a state machine: what may follow what, and that nothing of it is lost or leaked on the way to JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.lease import (
    TRANSITIONS,
    Event,
    Foreground,
    Job,
    Lease,
    Rollback,
    State,
    Target,
    Unit,
    UnlistedStep,
    advance,
    document,
    owed,
    parse,
    public,
    without_secrets,
)

SECRET = "hf_" + "nobody-may-see-this"
JOB = Job("live.malibu.provider", "gui/501", "/p.plist", "ab", "/bin/macprovider-cli", 7, "99")
PROCESS = Foreground(
    8, "12", ("/bin/macprovider-cli", "serve", SECRET), "/", {"TOKEN": SECRET}, 0o077, True, "/log"
)
UNIT = Unit("llama.service", "user", "/usr/bin/llama-server", 9, "13")


def lease(state: State = State.INTENT, target: Target = JOB) -> Lease:
    return Lease("l1", "r1", state, target, 1, "boot", "t0", "t0", 8080, 18080, "/bin/launchctl")


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_step_that_is_not_in_the_table_is_an_error(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        moved = advance(lease(state), event, "t1", reason="why")
        assert (moved.state, moved.updated_at, moved.reason) == (
            TRANSITIONS[state, event],
            "t1",
            "why",
        )
    else:
        with pytest.raises(UnlistedStep, match=f"{state} cannot take {event}"):
            advance(lease(state), event, "t1")


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_on_any_walk_whatever_was_drained_is_released_only_once_it_lives_or_is_let_go(
    events: list[Event],
) -> None:
    walked, settled = lease(), False
    for event in events:
        if (walked.state, event) not in TRANSITIONS:
            continue
        walked = advance(walked, event, "t")
        settled = settled or event in (Event.LIVED, Event.WAIVED, Event.FORGOTTEN)
        assert walked.open or settled
        assert walked.open is (walked.state is not State.RELEASED)


@pytest.mark.parametrize("state", [state for state in State if state is not State.RELEASED])
def test_from_every_open_state_somebody_who_finds_it_can_reach_the_release(state: State) -> None:
    reached, frontier = {state}, [state]
    while frontier:
        at = frontier.pop()
        for (before, event), after in TRANSITIONS.items():
            ours = event not in (Event.DRAIN, Event.FORGOTTEN)
            if before is at and ours and after not in reached:
                reached.add(after)
                frontier.append(after)
    assert State.RELEASED in reached


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_on_any_walk_one_that_died_with_a_new_configuration_gets_the_old_one_before_it_starts_again(
    events: list[Event],
) -> None:
    walked = lease()
    for event in events:
        if (walked.state, event) not in TRANSITIONS:
            continue
        before, walked = walked.state, advance(walked, event, "t")
        if before is State.ROLLING_BACK and walked.state is State.RESTORING:
            assert event is Event.ROLLED_BACK
        assert before is not State.ROLLING_BACK or walked.state is not State.RESTORED


def test_nothing_follows_a_release() -> None:
    assert not [event for state, event in TRANSITIONS if state is State.RELEASED]


@pytest.mark.parametrize("target", [JOB, UNIT, PROCESS])
def test_a_lease_comes_back_from_json_as_it_went(target: Target) -> None:
    rollback: Rollback = {
        "path": "/c.yaml",
        "backup": None,
        "sha256": "ab",
        "lines": [{"key": "model", "new": "model: a\n", "old": None}],
    }
    before = replace(lease(State.DRAINED, target), rollback=rollback, rolled_back="why", deaths=1)
    assert parse(json.loads(json.dumps(document(before)))) == before


def test_fields_of_another_version_are_left_alone() -> None:
    newer = document(lease()) | {"version": 9, "colour": "red"}
    newer["target"] |= {"colour": "red"}
    assert parse(newer) == lease()


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "x",
        {},
        {"state": "drained"},
        document(lease()) | {"state": "lost"},
        document(lease()) | {"target": {"kind": "spirit"}},
        document(lease()) | {"target": 3},
        {name: value for name, value in document(lease()).items() if name != "run_id"},
    ],
)
def test_what_is_no_lease_is_one_error(found: object) -> None:
    with pytest.raises(ValueError, match="not a lease"):
        parse(found)


def test_what_everybody_may_see_holds_neither_environment_nor_arguments() -> None:
    owed = lease(State.FAILED, PROCESS)
    assert SECRET in json.dumps(document(owed))
    assert SECRET not in json.dumps(public(owed))
    assert public(owed)["outstanding"] is True
    assert public(owed)["log"] == "/log"
    assert public(lease(State.RELEASED))["outstanding"] is False
    assert public(lease())["label"] == JOB.label
    assert without_secrets(JOB) is JOB


@pytest.mark.parametrize("event", [Event.WAIVED, Event.RELEASE])
def test_a_release_forgets_the_environment(event: Event) -> None:
    before = State.RESTORING if event is Event.WAIVED else State.LIVING
    released = advance(lease(before, PROCESS), event, "t1", target=replace(PROCESS, new_pid=9))
    assert SECRET not in json.dumps(document(released))
    assert isinstance(released.target, Foreground)
    assert released.target.new_pid == 9


def test_all_kinds_are_named_as_the_operator_knows_them() -> None:
    assert JOB.name == "gui/501/live.malibu.provider"
    assert UNIT.name == "llama.service"
    assert PROCESS.name == "foreground-PID-8"


@pytest.mark.parametrize(
    ("target", "step"),
    [
        (JOB, "launchctl bootstrap gui/501 /p.plist"),
        (UNIT, "systemctl --user start llama.service"),
        (replace(UNIT, scope="system"), "systemctl start llama.service"),
        (PROCESS, "start foreground-PID-8 again: /bin/macprovider-cli"),
        (replace(PROCESS, restart=False), "nothing: foreground-PID-8 was not to be started again"),
    ],
)
def test_what_a_restore_would_do_is_told_in_the_words_of_whoever_manages_it(
    target: Target, step: str
) -> None:
    assert owed(lease(State.DRAINED, target)) == [step]
    written: Rollback = {"path": "/c.yaml", "backup": None, "sha256": "ab", "lines": []}
    changed = replace(lease(State.DRAINED, target), rollback=written)
    assert owed(changed)[1].startswith("put /c.yaml back")
    assert owed(replace(changed, rolled_back="why")) == [step]


def test_a_unit_is_shown_with_its_scope_and_never_stays_stopped() -> None:
    shown = public(lease(State.DRAINED, UNIT))
    assert (shown["kind"], shown["unit"], shown["scope"]) == ("systemd", "llama.service", "user")
    stopped = replace(PROCESS, restart=False, command="serve it")
    assert "serve it" in stopped.stays_stopped
    assert "again" not in replace(stopped, command=None).stays_stopped
    assert lease(State.RELEASED, stopped).left_stopped == stopped
    for target in (UNIT, PROCESS, replace(stopped, command=None)):
        assert lease(State.RELEASED, target).left_stopped is None
    assert lease(State.DRAINED, stopped).left_stopped is None
