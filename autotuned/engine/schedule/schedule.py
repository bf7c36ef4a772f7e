"""The scheduled re-tune: asks the rule of `core.schedule` at the right moments, acts on it, writes it down.

The schedule and every decision live in the store; what is decided twice is decided the same. A night
is marked as begun before its run begins, so that no crash makes it come twice. Must not judge.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import structlog

from autotuned.core import schedule as rules
from autotuned.core.schedule import Action, Book, Decision
from autotuned.core.staleness import CHECKED
from autotuned.documents.schedule import (
    BriefDocument,
    DecisionDocument,
    NextDocument,
    ScheduleDocument,
    ScheduleSettings,
)
from autotuned.engine.events import Events
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.schedule.alarm import Alarm
from autotuned.engine.schedule.staleness import Staleness
from autotuned.errors import (
    AutotunedError,
    Busy,
    ConfigError,
    NotFound,
    RestoreOutstanding,
    ShuttingDown,
)
from autotuned.host.clock import LocalZone
from autotuned.store import schedule as store

AGAIN = timedelta(seconds=60)
"""What stands in the way is looked at again after this, while the window is open."""

log = structlog.get_logger(__name__)


class Nightly:
    def __init__(
        self,
        agent: Agent,
        records: Records,
        events: Events,
        staleness: Staleness,
        owed: Callable[[], bool],
        on_ac: Callable[[], bool | None],
        now: Callable[[], datetime],
        zone: LocalZone,
    ) -> None:
        """`owed`: a restore is outstanding. `on_ac` may block: it is asked on a thread."""
        self._owed, self._events = owed, events
        self._agent, self._records, self._staleness = agent, records, staleness
        self._on_ac, self._now, self._zone = on_ac, now, zone
        self._book = Book(rules.Schedule())
        self._again: datetime | None = None
        self._firing: int | None = None
        self._unarmed: str | None = None
        self._closed = False
        self._turn = asyncio.Lock()
        self._thinking: asyncio.Task[None] | None = None
        self._alarm = Alarm(self._think_soon, self._due)

    async def open(self) -> None:
        """Read the schedule; nothing happens before `begin`."""
        database = self._records.database
        decisions = await database.ask(store.decisions)
        try:
            schedule, since = await database.ask(store.load)
        except ValueError:
            log.exception("the stored schedule cannot be read, so it is off: set it again")
            schedule, since = rules.Schedule(), None
        self._book = Book(schedule, since, tuple(decisions))
        self._staleness.own = schedule.request if schedule.enabled else {}

    def begin(self) -> None:
        """Catch up on what was slept through, and arm the timer."""
        if self._book.schedule.enabled:
            self._think_soon()

    async def close(self) -> None:
        """Begin nothing any more; what is just being begun is written down first. Idempotent."""
        self._closed = True
        self._alarm.close()
        if self._thinking is not None:
            if self._firing is None:
                self._thinking.cancel()
            await asyncio.gather(self._thinking, return_exceptions=True)

    # --- asking and setting ------------------------------------------------------------------------

    async def get(self, history: int) -> ScheduleDocument:
        """The schedule, when it comes next, and the newest decisions, newest first."""
        await self._settle()
        settings = cast(ScheduleSettings, self._book.schedule.model_dump(mode="json"))
        newest = self._book.decisions[::-1][:history]
        return {
            **settings,
            **self._brief(),
            "set_at": None if self._book.since is None else _utc(self._book.since),
            "history": [_document(decision) for decision in newest],
        }

    async def brief(self) -> BriefDocument:
        """What `status` shows: whether it is on, when it comes next, why it has paused itself."""
        await self._settle()
        return {
            "enabled": self._book.schedule.enabled,
            "at": self._book.schedule.at,
            **self._brief(),
        }

    async def set(self, params: Mapping[str, object]) -> None:
        """Set the schedule anew, or switch it off or on. Raises ConfigError for one that cannot fire.

        It is armed first and stored then, so that what is stored is what happens.
        """
        schedule = rules.parse(params, self._book.schedule, self._agent.descriptions)
        careful = schedule.enabled and schedule.only_on_ac
        if careful and await asyncio.to_thread(self._on_ac) is None:
            field, rule = "only_on_ac", "cannot be kept: whether it is on battery is unknown here"
            raise ConfigError(field, careful, rule)
        async with self._turn:
            before, now = self._book, self._now()
            self._adopt(dataclasses.replace(before, schedule=schedule, since=now))
            try:
                if (fault := self._fault()) is not None:
                    field, rule = "at", f"would never come: {fault}"
                    raise ConfigError(field, schedule.at, rule)
                await self._records.database.ask(store.save, schedule, now)
            except AutotunedError:
                self._adopt(before)
                raise
        log.info("schedule set", enabled=schedule.enabled, at=schedule.at)

    def _adopt(self, book: Book) -> None:
        """Go by this schedule from now on."""
        self._book, self._again = book, None
        self._staleness.own = book.schedule.request if book.schedule.enabled else {}
        self._arm()

    async def run_now(self) -> str:
        """Begin the scheduled run by hand, whatever the hour; its id. Raises as `Agent.start` does."""
        async with self._turn:
            await self._settle()
            now = self._now()
            window = rules.open_night(self._book, now, self._zone)
            verdict = await self._staleness.look()
            reason = f"by hand; {rules.judge(self._book.schedule, verdict)[1]}"
            night = None if window is None else window.night
            decision = Decision(now, night, Action.FIRED, reason)
            run_id = await self._fire(decision, os_changed=verdict.os_changed)
            self._arm()
            return run_id

    def _brief(self) -> NextDocument:
        now, fault = self._now(), self._fault()
        coming = None if fault else rules.next_due(self._book, now, self._zone)
        paused = rules.paused(self._book, now) if self._book.schedule.enabled else None
        return {
            "next_run_at": None if coming is None else _utc(coming),
            "paused": paused,
            "fault": fault,
        }

    def _fault(self) -> str | None:
        """Why a schedule that is on cannot fire at its time."""
        return (self._zone.fault() or self._unarmed) if self._book.schedule.enabled else None

    # --- deciding ------------------------------------------------------------------------------------

    def _due(self) -> datetime | None:
        self._zone.reread()
        if self._book.schedule.enabled and self._zone.fault() is not None:
            return None
        return self._again or rules.next_look(self._book, self._now(), self._zone)

    def _arm(self) -> None:
        """Set the timer. Never raises: what keeps it from ringing is told as the schedule's fault."""
        self._unarmed = None
        try:
            if not self._closed:
                self._alarm.set(self._due())
        except Exception as error:
            log.exception("the schedule's timer cannot be set")
            self._unarmed = f"its timer cannot be set: {error}"

    def _think_soon(self) -> None:
        if self._thinking is None or self._thinking.done():
            self._thinking = asyncio.create_task(self._think(), name="schedule")

    async def _think(self) -> None:
        """Decide what is to be decided now, and arm the timer for the next time. Never raises."""
        async with self._turn:
            self._again = None
            try:
                await self._decide()
            except Exception:
                log.exception("the schedule cannot decide")
                self._again = self._now() + AGAIN
            self._arm()

    async def _decide(self) -> None:
        await self._settle()
        if self._zone.fault() is not None:
            return
        if (begun := rules.checking(self._book)) is not None:
            await self._follow(begun)
            return
        now = self._now()
        closed = rules.gone_by(self._book, now, self._zone)
        if closed is not None:
            await self._record(closed)
        window = rules.open_night(self._book, now, self._zone)
        if window is None:
            return
        pausing = rules.paused(self._book, now)
        if pausing is not None:
            await self._record(Decision(now, window.night, Action.SKIPPED, pausing))
            return
        obstacle = await self._obstacle()
        if obstacle is not None:
            await self._wait(Decision(now, window.night, Action.WAITING, obstacle))
            return
        verdict = await self._staleness.look()
        action, reason = rules.judge(self._book.schedule, verdict)
        decision = Decision(self._now(), window.night, action, reason)
        if action is Action.SKIPPED:
            await self._record(decision)
            return
        await self._try(decision, os_changed=verdict.os_changed)

    async def _try(self, decision: Decision, *, os_changed: bool) -> None:
        try:
            await self._fire(decision, os_changed=os_changed)
        except AutotunedError as error:
            log.warning("the scheduled run was refused", reason=error.message)

    async def _follow(self, begun: Decision) -> None:
        """Do what follows from a check once it has ended."""
        now, run_id = self._now(), begun.run_id
        if begun.outcome is None:
            self._again = now + AGAIN
            return
        verdict, system = None, ""
        if run_id is not None and begun.outcome == "ok":
            if (checked := (await self._records.details(run_id)).get("check")) is not None:
                verdict = checked["verdict"]
            system = (await self._records.row(run_id)).machine_os_version
        action, reason = rules.after_check(begun.outcome, verdict, system)
        decision = Decision(now, begun.night, action, reason)
        if action is Action.SKIPPED:
            if run_id is not None and verdict is not None:
                await self._staleness.confirm(run_id)
            await self._record(decision)
            return
        obstacle = await self._obstacle()
        if obstacle is None:
            await self._try(decision, os_changed=(await self._staleness.look()).os_changed)
        elif now < begun.at + timedelta(seconds=self._book.schedule.window_s):
            await self._wait(Decision(now, begun.night, Action.WAITING, obstacle))
        else:
            obstacle = f"until its window closed: {obstacle}"
            await self._record(Decision(now, begun.night, Action.SKIPPED, obstacle))

    async def _obstacle(self) -> str | None:
        schedule = self._book.schedule
        return rules.obstacle(
            schedule,
            active_run=self._agent.active_run(),
            restore_outstanding=self._owed(),
            on_ac=await asyncio.to_thread(self._on_ac) if schedule.only_on_ac else None,
        )

    async def _wait(self, decision: Decision) -> None:
        """Look again soon; the same reason is written down once a night."""
        self._again = self._now() + AGAIN
        if decision.night is None:
            return
        if rules.waiting_for(self._book, decision.night) != decision.reason:
            await self._record(decision)

    async def _fire(self, decision: Decision, *, os_changed: bool) -> str:
        """Write down that the night has begun, then begin the run; its id. Raises as `Agent.start` does.

        Refused because of what may go away, the night has not begun after all.
        """
        schedule = self._book.schedule
        consents = {"drain": schedule.drain}
        decision = await self._record(decision)
        self._firing = decision.id
        trigger = "os_update" if os_changed else "schedule"
        if checks := decision.action is Action.CHECKING:
            self._again = self._now() + AGAIN
        try:
            request = await self._staleness.request(schedule.request)
            if schedule.apply and "confirm" not in schedule.request:
                request["confirm"] = True  # whatever the run that is repeated did by hand
            if schedule.restart_foreground:
                consents["restart_foreground"] = True
            if checks:
                kept = {name: request[name] for name in CHECKED if name in request}
                begun = await self._agent.check({**kept, **consents})
            else:
                own = {"apply": schedule.apply, "trigger": trigger}
                begun = await self._agent.start({**request, **consents, **own})
            decision = dataclasses.replace(decision, run_id=str(begun["run_id"]))
            decision = await self._record(decision)
        except (Busy, RestoreOutstanding, ShuttingDown) as error:
            action = Action.SKIPPED
            if decision.night is not None:
                action, self._again = Action.WAITING, self._now() + AGAIN
            undone = dataclasses.replace(decision, action=action, reason=error.message)
            await self._record(undone)
            raise
        except AutotunedError as error:
            refused = error.data.get("run_id")
            await self._record(dataclasses.replace(decision, run_id=refused, outcome=error.kind))
            # Nobody waits for this answer, so that it is told as the end of any run is.
            if not checks:  # after a check comes more
                self._events.publish({"type": "run.finished", "exit_reason": error.kind}, refused)
            raise
        finally:
            self._firing = None
        log.info("scheduled run begun", run_id=decision.run_id, reason=decision.reason)
        return str(decision.run_id)

    async def _settle(self) -> None:
        """Note how the runs that were begun have ended, and when the last good one began."""
        row = await self._records.last_good()
        good = None if row is None else _moment(row.started_at_utc)
        self._book = dataclasses.replace(self._book, last_good=good)
        for decision in self._book.decisions:
            if decision.action in rules.BEGUN and decision.outcome is None:
                if decision.id == self._firing:
                    continue
                outcome = await self._outcome(decision.run_id)
                if outcome is not None:
                    await self._record(dataclasses.replace(decision, outcome=outcome))

    async def _outcome(self, run_id: str | None) -> str | None:
        """How a run has ended; `crashed` where nothing was written down; None while it goes on."""
        if run_id is None:
            return rules.CRASHED
        if run_id == self._agent.active_run():
            return None
        try:
            row = await self._records.row(run_id)
        except NotFound:
            return "unknown"
        return row.exit_reason if row.ended_at_utc is not None else rules.CRASHED

    async def _record(self, decision: Decision) -> Decision:
        """Write a new decision, or one of ours again as it is now."""
        number = await self._records.database.ask(store.record, decision)
        written = dataclasses.replace(decision, id=number)
        others = [each for each in self._book.decisions if each.id != number]
        ordered = sorted([*others, written], key=lambda each: each.id)[-store.KEPT :]
        self._book = dataclasses.replace(self._book, decisions=tuple(ordered))
        return written


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(text: str) -> datetime | None:
    """A time as a run's row has it; None for what a prototype may have written."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _document(decision: Decision) -> DecisionDocument:
    return {
        "at": _utc(decision.at),
        "night": None if decision.night is None else decision.night.isoformat(),
        "decision": decision.action.value,
        "reason": decision.reason,
        "run_id": decision.run_id,
        "outcome": decision.outcome,
    }
