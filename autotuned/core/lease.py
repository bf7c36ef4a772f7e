"""The lease: what was stopped, what is owed, and the steps by which it comes back, also after a kill.

The states and their events are one table; a step that is not in it is an error. A lease goes to JSON
and back, so that agent, guardian and break glass read one journal. Pure, standard library only: the
guardian imports it in an interpreter without any package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from autotuned.documents.provider import LeaseDocument

VERSION = 1


class State(StrEnum):
    INTENT = "intent"
    """Written down; nothing has been done yet."""
    DRAINING = "draining"
    DRAINED = "drained"
    RESTORING = "restoring"
    FAILED = "failed"
    """The restore has failed for now: it is owed, and tried again."""
    RESTORED = "restored"
    """Loaded with a live process again, and watched: it may still end during its start-up."""
    ROLLING_BACK = "rolling back"
    """It did not start with the new configuration: the old one is being put back."""
    LIVING = "living"
    """It has answered, or lived long enough; the lock is still ours."""
    RELEASED = "released"
    """Nothing is owed."""


class Event(StrEnum):
    DRAIN = "drain"
    GONE = "gone"
    REAPPEARED = "reappeared"
    RESTORE = "restore"
    REFUSED = "refused"
    VERIFIED = "verified"
    DIED = "died"
    ROLL_BACK = "roll back"
    ROLLED_BACK = "rolled back"
    LIVED = "lived"
    WAIVED = "waived"
    FORGOTTEN = "forgotten"
    RELEASE = "release"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.INTENT, Event.DRAIN): State.DRAINING,
    (State.DRAINING, Event.GONE): State.DRAINED,
    # Somebody else brought it back in the middle of the run: once more.
    (State.DRAINED, Event.REAPPEARED): State.INTENT,
    # Whoever finds the journal carries on from wherever it stopped.
    (State.INTENT, Event.RESTORE): State.RESTORING,
    (State.DRAINING, Event.RESTORE): State.RESTORING,
    (State.DRAINED, Event.RESTORE): State.RESTORING,
    (State.RESTORING, Event.RESTORE): State.RESTORING,
    (State.FAILED, Event.RESTORE): State.RESTORING,
    (State.RESTORED, Event.RESTORE): State.RESTORING,
    (State.RESTORING, Event.REFUSED): State.FAILED,
    (State.RESTORING, Event.VERIFIED): State.RESTORED,
    # Its process has ended during its start-up, perhaps before it was seen alive.
    (State.RESTORING, Event.DIED): State.RESTORING,
    (State.RESTORED, Event.DIED): State.RESTORING,
    (State.LIVING, Event.DIED): State.RESTORING,
    (State.RESTORED, Event.REFUSED): State.FAILED,
    # ... with a configuration that is ours to take back.
    (State.RESTORING, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.RESTORED, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.ROLLED_BACK): State.RESTORING,
    (State.ROLLING_BACK, Event.REFUSED): State.FAILED,
    # A foreground process that nobody asked to have restarted, or a server that runs already.
    (State.RESTORING, Event.WAIVED): State.RELEASED,
    (State.RESTORED, Event.LIVED): State.LIVING,
    (State.LIVING, Event.RELEASE): State.RELEASED,
    # The operator lets it go, whatever is owed.
    **{(state, Event.FORGOTTEN): State.RELEASED for state in State if state is not State.RELEASED},
}


class UnlistedStep(Exception):
    """A step that the table does not have: a bug of ours."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of launchd that is drained. `started` tells its process from another with the same pid."""

    label: str
    domain: str
    plist: str
    plist_sha256: str | None = None
    program: str | None = None
    pid: int | None = None
    started: str | None = None
    was_running: bool = True
    exit_timeout_s: float = 5.0

    @property
    def name(self) -> str:
        """How it is called in a sentence."""
        return f"{self.domain}/{self.label}"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of systemd that is drained, of the `user` or the `system`; its process as a `Job` has it."""

    unit: str
    scope: str
    program: str | None = None
    pid: int | None = None
    started: str | None = None
    was_running: bool = True
    exit_timeout_s: float = 90.0

    @property
    def name(self) -> str:
        return self.unit


@dataclass(frozen=True, slots=True)
class Foreground:
    """A process that somebody started by hand, and what it takes to start it again."""

    pid: int
    started: str | None
    argv: tuple[str, ...]
    cwd: str | None
    environ: Mapping[str, str] | None
    """Secret: it never leaves the lease's own file, and is forgotten with the release."""
    umask: int = 0o022
    restart: bool = False
    log: str | None = None
    new_pid: int | None = None
    new_started: str | None = None
    command: str | None = None
    """The line that starts it in a shell, secrets masked; None once that has no use any more."""

    @property
    def name(self) -> str:
        return f"foreground-PID-{self.pid}"

    @property
    def stays_stopped(self) -> str:
        """What becomes of it where nobody asked to have it started again."""
        again = f"; start it again with: {self.command}" if self.command else ""
        return f"{self.name}, started from a terminal, stays stopped after the run{again}"


Target = Job | Unit | Foreground
KINDS: Mapping[str, type[Job] | type[Unit] | type[Foreground]] = {
    "launchd": Job,
    "systemd": Unit,
    "foreground": Foreground,
}
"""How the kinds of a target are called in JSON."""


class Lines(TypedDict):
    """What an apply made of one key: its whole lines as written and as they were, null for none."""

    key: str
    new: str | None
    old: str | None


class Rollback(TypedDict):
    """How to take an apply back: the whole backup while the file is as written, else line by line."""

    path: str
    backup: str | None
    """Null where there was no file."""
    sha256: str
    """Of what was written."""
    lines: list[Lines]


@dataclass(frozen=True, slots=True)
class Lease:
    lease_id: str
    run_id: str
    state: State
    target: Target
    holder_pid: int
    boot_id: str
    taken_at: str
    updated_at: str
    port: int
    """Where the live provider listens."""
    candidate_port: int
    launchctl: str | None = None
    attempts: int = 0
    reason: str | None = None
    """Why it is not back yet."""
    by: str = "agent"
    """Who wrote this state: `agent`, `guardian` or `operator`."""
    deaths: int = 0
    """How often it has ended during its start-up since the restore began."""
    rollback: Rollback | None = None
    """How to take back what was written into its configuration while it was stopped."""
    rolled_back: str | None = None
    """That it was taken back, and why, in one sentence."""

    @property
    def open(self) -> bool:
        """True while something may be owed."""
        return self.state is not State.RELEASED

    @property
    def left_stopped(self) -> Foreground | None:
        """The server that was stopped and not started again, for nobody had asked for that."""
        target = self.target
        if self.open or not isinstance(target, Foreground):
            return None
        return None if target.restart or target.command is None else target


def advance(lease: Lease, event: Event, now: str, **changes: Any) -> Lease:
    """The lease after `event` at the time `now`, with `changes` to its fields. Raises UnlistedStep."""
    after = TRANSITIONS.get((lease.state, event))
    if after is None:
        message = f"a lease that is {lease.state} cannot take {event}"
        raise UnlistedStep(message)
    target = changes.pop("target", lease.target)
    if after is State.RELEASED:
        target = without_secrets(target)
    return dataclasses.replace(lease, state=after, updated_at=now, target=target, **changes)


def without_secrets(target: Target) -> Target:
    """The target as it may be shown: without an environment and without arguments, which may hold tokens."""
    if not isinstance(target, Foreground):
        return target
    return dataclasses.replace(target, environ=None, argv=target.argv[:1])


def document(lease: Lease) -> dict[str, Any]:
    """The whole lease as JSON, secrets included: for its own file alone."""
    kind = next(name for name, known in KINDS.items() if isinstance(lease.target, known))
    plain = dataclasses.asdict(lease)
    plain["target"] = {"kind": kind, **plain["target"]}
    return {"version": VERSION, **plain}


def parse(found: Any) -> Lease:
    """The lease that `document` made, or another version of it. Raises ValueError for anything else."""
    try:
        fields = {name: found[name] for name in _names(Lease) if name in found}
        target = dict(found["target"])
        kind = KINDS[target.pop("kind")]
        known = {name: value for name, value in target.items() if name in _names(kind)}
        if kind is Foreground:
            known["argv"] = tuple(known["argv"])
        fields |= {"state": State(found["state"]), "target": kind(**known)}
        return Lease(**fields)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f"not a lease: {error!r}"
        raise ValueError(message) from error


def owed(lease: Lease) -> list[str]:
    """What a restore of this lease would do, a line each."""
    target, rollback = lease.target, lease.rollback
    if isinstance(target, Job):
        steps = [f"launchctl bootstrap {target.domain} {target.plist}"]
    elif isinstance(target, Unit):
        steps = [f"systemctl {'--user ' * (target.scope == 'user')}start {target.unit}"]
    elif target.restart:
        steps = [f"start {target.name} again: {target.argv[0]}"]
    else:
        steps = [f"nothing: {target.name} was not to be started again"]
    if rollback is not None and lease.rolled_back is None:
        steps.append(f"put {rollback['path']} back as it was, where that does not start with it")
    return steps


def public(lease: Lease) -> LeaseDocument:
    """What everybody may see of a lease."""
    target = lease.target
    shown: LeaseDocument = {
        "lease_id": lease.lease_id,
        "run_id": lease.run_id,
        "state": lease.state.value,
        "outstanding": lease.open,
        "since": lease.taken_at,
        "updated_at": lease.updated_at,
        "attempts": lease.attempts,
        "reason": lease.reason,
        "holder_pid": lease.holder_pid,
        "by": lease.by,
        "port": lease.port,
        "kind": "foreground",
        "pid": target.pid,
    }
    if isinstance(target, Job):
        shown |= {"kind": "launchd", "label": target.label, "domain": target.domain}
        shown |= {"plist": target.plist}
    elif isinstance(target, Unit):
        shown |= {"kind": "systemd", "unit": target.unit, "scope": target.scope}
    else:
        shown |= {"restart": target.restart, "command": target.command}
        shown |= {"log": target.log, "new_pid": target.new_pid}
    return shown


def _names(kind: type[Lease | Target]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
