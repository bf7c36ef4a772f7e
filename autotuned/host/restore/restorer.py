"""Bringing a live provider back: one algorithm for the agent, its guardian and an operator in trouble.

It reads the journal, looks what is there, and does what is missing until the job is loaded with a
live process (or the foreground process runs again) that holds; any step may have been done before. One
that ends during its start-up gets its old configuration back, where ours is in force, and a second
chance. Whoever calls it holds the lock. Standard library only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from autotuned.core.lease import Event, Foreground, Job, Lease, State, Unit, advance
from autotuned.errors import AutotunedError
from autotuned.host import failpoint
from autotuned.host.clock import utc_now
from autotuned.host.managers import Managers
from autotuned.host.operators_file import roll_back
from autotuned.host.restore import restart
from autotuned.host.restore.journal import Journal
from autotuned.shared.identity import alive, boot_id, started
from autotuned.shared.launchctl import LoadedJob, Presence

DEATHS = 2
"""One that has ended so often during its start-up is not restored for now."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a restore is, in seconds."""

    tries: int = 5
    first_s: float = 0.5
    longest_s: float = 8.0
    poll_s: float = 0.1
    verify_s: float = 12.0
    """A job that is loaded may take this long to get its process: launchd throttles restarts by 10 s."""
    dying_s: float = 40.0
    """The old process may take this long to end, beyond the job's own exit time-out."""
    ending_s: float = 10.0
    """A foreground process that has been sent SIGTERM gets this long before it counts as one that stays."""
    steady_s: float = 1.0
    """Beyond the job's exit time-out: after that, a process that still runs has not been asked to end."""
    reboot_s: float = 3.0
    """After a reboot launchd loads the job itself; it gets this long before we help."""
    total_s: float = 150.0
    """All of it together, but for the watch."""
    lives_s: float = 15.0
    """One that lives so long holds: more than the 10 s within which launchd starts a job again."""
    watch_s: float = 15.0
    """A process that neither answers nor ends is watched for this long; a shorter watch leaves it `restored`."""


PACE = Pace()
DIED = "died"
"""In place of a reason: it was started, and has ended again before it could be watched."""


class Restorer:
    """Restores what the journal's lease owes."""

    def __init__(self, journal: Journal, managers: Managers, pace: Pace = PACE) -> None:
        self._journal, self._managers, self._pace = journal, managers, pace
        self._boot_id = boot_id(managers.environ)
        self._deadline = 0.0

    def restore(self, lease: Lease) -> Lease:
        """Carry `lease` on to `living`, `released` or `failed`, with every step in the journal.

        With a short watch it may stay `restored`: then it is to be watched again. A journal that cannot be
        written (a full disk) stops no restore: the next look finds what is true.
        """
        if not lease.open or lease.state is State.LIVING:
            return lease
        if lease.state is State.ROLLING_BACK:
            lease = self._roll_back(lease)
            if lease.state is State.FAILED:
                return lease
        before = lease.state
        lease = self._step(lease, Event.RESTORE, attempts=lease.attempts + 1, deaths=0)
        failpoint.reach("restore.begun")
        while True:
            lease, died = self._bring_up(lease, before)
            if lease.state is State.RESTORED:
                lease, died = self._watched(lease)
            if not died:
                return lease
            failpoint.reach("restore.died")
            lease = self._after_death(lease)
            if lease.state is State.FAILED:
                return lease
            before = State.RESTORING

    def release(self, lease: Lease) -> Lease:
        """Write down that nothing is owed any more, where it lives."""
        if lease.state is State.LIVING:
            lease = self._step(lease, Event.RELEASE)
            failpoint.reach("restore.released")
        return lease

    def look_again(self, lease: Lease) -> Lease:
        """`living` as it was, or what a new restore makes of one that has ended meanwhile."""
        if lease.state is not State.LIVING or self._lives(lease):
            return lease
        return self.restore(self._step(lease, Event.DIED))

    def _bring_up(self, lease: Lease, before: State) -> tuple[Lease, bool]:
        """The lease, `restored` once there is a live process; True where that has ended at once."""
        self._deadline = time.monotonic() + self._pace.total_s
        elsewhere = restart.served_elsewhere(lease.target, lease.port, self._managers)
        if elsewhere is not None:
            return self._step(lease, Event.WAIVED, reason=elsewhere), False
        if not isinstance(lease.target, Foreground):
            reason = self._job(lease, lease.target, before)
        else:
            lease, reason = self._foreground(lease, lease.target, before)
            if lease.state is State.RELEASED:
                return lease, False
        if reason == DIED:
            return lease, True
        if reason is not None:
            return self._step(lease, Event.REFUSED, reason=reason), False
        failpoint.reach("restore.verified")
        lease = self._step(lease, Event.VERIFIED, reason=None)
        failpoint.reach("restore.restored")
        return lease, False

    def _watched(self, lease: Lease) -> tuple[Lease, bool]:
        """The lease, `living` once it holds; True where it has ended."""
        target, idle = lease.target, False
        if not isinstance(target, Foreground) and not target.was_running:
            idle = not self._look(target).running
        found = idle or restart.holds(
            target, lease.port, self._managers, self._pace.lives_s, self._pace.watch_s
        )
        if found:
            failpoint.reach("restore.lived")
            lease = self._step(lease, Event.LIVED)
            failpoint.reach("restore.living")
        return lease, found is False

    def _after_death(self, lease: Lease) -> Lease:
        """One that has ended during its start-up: rolled back, tried again, or given up for now."""
        target = lease.target
        words = restart.last_line(target, self._managers)
        if lease.rollback is not None and lease.rolled_back is None:
            lease = self._step(lease, Event.ROLL_BACK, reason=words)
            failpoint.reach("rollback.begun")
            return self._roll_back(lease)
        deaths = lease.deaths + 1
        if deaths < DEATHS:
            return self._step(lease, Event.DIED, deaths=deaths)
        reason = f"{target.name} was started {deaths} times and ended each time: {words}"
        return self._step(lease, Event.REFUSED, reason=reason, deaths=deaths)

    def _roll_back(self, lease: Lease) -> Lease:
        """Put the old configuration back; `failed` where that cannot be done now."""
        assert lease.rollback is not None  # noqa: S101 - it is being rolled back
        try:
            roll_back(lease.rollback)
        except (AutotunedError, OSError) as error:
            reason = f"it did not start with the new recipe, which cannot be taken back: {error}"
            return self._step(lease, Event.REFUSED, reason=reason)
        words = f"rolled back: the live provider did not start with the new recipe: {lease.reason}"
        lease = self._step(lease, Event.ROLLED_BACK, rolled_back=words, reason=None, deaths=0)
        failpoint.reach("rollback.done")
        return lease

    def _lives(self, lease: Lease) -> bool:
        target = lease.target
        if not isinstance(target, Foreground):
            return _back(target, self._look(target))
        return target.new_pid is not None and alive(target.new_pid, target.new_started)

    def _step(self, lease: Lease, event: Event, **changes: object) -> Lease:
        try:
            return self._journal.advance(lease, event, **changes)
        except OSError:
            return advance(lease, event, utc_now(), **changes)

    # --- a job or a unit --------------------------------------------------------------------------

    def _job(self, lease: Lease, job: Job | Unit, before: State) -> str | None:
        """None once it is loaded with a live process; else why it is not."""
        unsure = before is not State.INTENT  # a bootout may have been asked for
        rebooted = lease.boot_id != self._boot_id
        delay, tries, reason = self._pace.first_s, 0, "it was not tried"
        if rebooted:
            self._wait_while(job, lambda now: not _back(job, now), self._pace.reboot_s)
        while True:
            now = self._look(job)
            if _back(job, now):
                if not unsure or rebooted or self._steady(job, now):
                    return None
                unsure = False
                continue
            if now.dying:
                waited = self._wait_while(
                    job, lambda now: now.dying, job.exit_timeout_s + self._pace.dying_s
                )
                if not waited:
                    return "the old process does not end"
                continue
            if tries >= self._pace.tries or time.monotonic() >= self._deadline:
                return reason
            tries += 1
            reason = self._once(job, now, rebooted=rebooted)
            if reason in ("", DIED):
                return reason or None
            with contextlib.suppress(OSError):  # whoever asks meanwhile is told of each failure
                self._journal.write(replace(lease, reason=reason))
            if tries < self._pace.tries:
                time.sleep(max(0.0, min(delay, self._deadline - time.monotonic())))
                delay = min(2 * delay, self._pace.longest_s)

    def _once(self, job: Job | Unit, now: LoadedJob, *, rebooted: bool) -> str:
        """One try; empty when it runs, else what stood in the way."""
        runs = (now.runs or 0) if now.presence is Presence.LOADED else 0
        refused = self._managers.of(job).start(now, rebooted=rebooted)
        failpoint.reach("restore.asked")
        return self._verified(job, runs) if refused is None else refused

    def _verified(self, job: Job | Unit, runs: int) -> str:
        """As `_once`: what became of a job that was asked for, and had been started `runs` times before."""

        def undecided(now: LoadedJob) -> bool:
            return not _back(job, now) and not _ended(now, runs)

        came = self._wait_while(job, undecided, self._pace.verify_s, settle=True)
        last = self._look(job)
        if _back(job, last) or (came and not _ended(last, runs)):
            return ""
        if _ended(last, runs):
            return DIED
        if last.presence is Presence.UNKNOWN:
            return f"{job.name} cannot be looked at: {last.reason}"
        if last.presence is not Presence.LOADED:
            return f"the start of {job.name} was taken, but it is not loaded"
        return f"{job.name} is loaded, but has no live process (state: {last.state or 'unknown'})"

    def _steady(self, job: Job | Unit, seen: LoadedJob) -> bool:
        """What runs goes on running: no bootout is still on its way to it.

        A process that was not there before the drain proves it at once. The old one does by outliving its
        exit time-out: its end may be under way without being seen.
        """
        if seen.pid is not None and (seen.pid, started(seen.pid)) != (job.pid, job.started):
            return True
        if not job.was_running and seen.state is not None:
            return True
        seconds = self._managers.of(job).hidden_stop_s + self._pace.steady_s
        return not self._wait_while(job, lambda now: _back(job, now), seconds)

    def _wait_while(
        self,
        job: Job | Unit,
        condition: Callable[[LoadedJob], bool],
        seconds: float,
        *,
        settle: bool = False,
    ) -> bool:
        """True as soon as `condition` no longer holds, False when it still does after `seconds`.

        With `settle` a job that is missing, or that is loaded and idle, is not waited for to the end.
        """
        deadline = min(time.monotonic() + seconds, max(self._deadline, time.monotonic()))
        idle_since: float | None = None
        while True:
            now = self._look(job)
            if not condition(now):
                return True
            idle = now.presence is not Presence.LOADED or not (now.coming or now.dying)
            idle_since = (idle_since or time.monotonic()) if idle else None
            if settle and idle_since is not None and time.monotonic() - idle_since >= 2.0:
                return False
            if time.monotonic() >= deadline:
                return False
            time.sleep(self._pace.poll_s)

    def _look(self, job: Job | Unit) -> LoadedJob:
        return self._managers.of(job).look()

    # --- a foreground process ----------------------------------------------------------------------

    def _foreground(
        self, lease: Lease, process: Foreground, before: State
    ) -> tuple[Lease, str | None]:
        """The lease, and None once the process runs again, or need not; else why it does not."""
        if lease.boot_id != self._boot_id:
            waived = "the machine was restarted, and with it what had been started by hand"
            return self._step(lease, Event.WAIVED, reason=waived), None
        if before is State.DRAINING:  # SIGTERM may just have been sent
            self._gone(process)
        if alive(process.pid, process.started):
            target = replace(process, command=None)
            reason = "it has never ended"
            return self._step(lease, Event.WAIVED, reason=reason, target=target), None
        if not process.restart:
            waived = "it was not asked to be started again (--restart-foreground)"
            return self._step(lease, Event.WAIVED, reason=waived), None
        if process.new_pid is not None and alive(process.new_pid, process.new_started):
            return lease, None
        if process.environ is None:
            return lease, "its environment is not known any more: start it yourself"
        held = lease

        def remember(pid: int, since: str | None) -> None:
            nonlocal held
            target = replace(process, new_pid=pid, new_started=since)
            held = replace(lease, target=target)
            with contextlib.suppress(OSError):
                self._journal.write(held)

        try:
            restart.start_again(process, remember)
        except OSError as error:
            return held, f"it cannot be started again: {error}"
        failpoint.reach("restore.asked")
        return held, None if self._stays(held) else DIED

    def _gone(self, process: Foreground) -> None:
        deadline = time.monotonic() + self._pace.ending_s
        while alive(process.pid, process.started) and time.monotonic() < deadline:
            time.sleep(self._pace.poll_s)

    def _stays(self, lease: Lease) -> bool:
        """It has outlived its first moments."""
        target = lease.target
        deadline = time.monotonic() + self._pace.first_s
        while isinstance(target, Foreground) and target.new_pid is not None:
            if not alive(target.new_pid, target.new_started):
                return False
            if time.monotonic() >= deadline:
                return True
            time.sleep(self._pace.poll_s)
        return False


def _back(job: Job | Unit, now: LoadedJob) -> bool:
    """It is as it was: loaded with a live process, or loaded and idle where it was idle before."""
    idle = now.presence is Presence.LOADED and not now.dying
    return now.running or (idle and not job.was_running)


def _ended(now: LoadedJob, runs: int) -> bool:
    """It has been started since there were so many runs, and has no live process any more."""
    idle = now.presence is Presence.LOADED and not now.running and not now.dying
    return idle and now.runs is not None and now.runs > runs
