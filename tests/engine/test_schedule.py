"""The schedule inside the test's own process: what a clock, a crash or a refusal does to a night."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from autotuned.core.schedule import Action
from autotuned.core.staleness import Verdict
from autotuned.descriptions import SHIPPED
from autotuned.documents.schedule import DecisionDocument
from autotuned.engine.events import Events
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.schedule import alarm
from autotuned.engine.schedule.alarm import Alarm
from autotuned.engine.schedule.schedule import Nightly
from autotuned.engine.schedule.staleness import Staleness
from autotuned.errors import AutotunedError, Busy, ConfigError, ProviderConflict, RestoreOutstanding
from autotuned.host.clock import LocalZone, utc_now
from autotuned.host.machine import Machine
from autotuned.store import runs
from autotuned.store.database import Database

NIGHT = datetime(2036, 5, 4, 3, 30, 10, tzinfo=LocalZone()).astimezone(UTC)


"""Far ahead, so that the real timer never rings by itself: the tests say when it is time to think."""


class World:
    """A scripted agent and clock around the real schedule, store and timer."""

    descriptions = SHIPPED

    def __init__(self) -> None:
        self.now = NIGHT
        self.refusals: list[BaseException] = []
        self.started: list[Mapping[str, Any]] = []
        self.owed = False
        self.on_ac: bool | None = True
        self.own: Mapping[str, Any] = {}
        self.checked: list[Mapping[str, Any]] = []
        self.confirmed: list[str] = []
        self.active: str | None = None

    def active_run(self) -> str | None:
        return self.active

    async def start(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self.started.append(params)
        if self.refusals:
            raise self.refusals.pop(0)
        return {"run_id": f"r{len(self.started)}"}

    async def look(self) -> Verdict:
        return Verdict(("chip A -> B",), "r0", checkable=True)

    async def check(self, wishes: Mapping[str, Any]) -> dict[str, Any]:
        self.checked.append(wishes)
        if self.refusals:
            raise self.refusals.pop(0)
        self.active = "c1"
        return {"run_id": "c1"}

    async def confirm(self, check_id: str) -> None:
        self.confirmed.append(check_id)

    async def request(self, own: Mapping[str, Any]) -> dict[str, Any]:
        return {"candidate_models": ["a"]}


@contextlib.asynccontextmanager
async def nightly(folder: Path, world: World) -> AsyncIterator[Nightly]:
    database = await Database.open(folder / "db.sqlite")
    events = Events(database, utc_now, 0)
    made = Nightly(
        cast(Agent, world),
        Records(database, Machine()),
        events,
        cast(Staleness, world),
        owed=lambda: world.owed,
        on_ac=lambda: world.on_ac,
        now=lambda: world.now,
        zone=LocalZone(),
    )
    await made.open()
    made.begin()
    try:
        yield made
    finally:
        await made.close()
        await events.close()
        await database.close()


async def decided(made: Nightly, count: int) -> list[DecisionDocument]:
    """The decisions, newest first, once there are `count`."""
    assert made._thinking is not None
    async with asyncio.timeout(10):
        await made._thinking
    history: list[DecisionDocument] = (await made.get(50))["history"]
    assert len(history) == count
    return history


async def test_it_fires_with_the_consents_of_the_schedule_alone(tmp_path: Path) -> None:
    world = World()
    async with nightly(tmp_path, world) as made:
        await made.set({"at": "03:30", "drain": True})
        made._think_soon()
        (fired,) = await decided(made, 1)
    assert (fired["decision"], fired["night"]) == ("fired", "2036-05-04")
    assert fired["reason"] == "stale: chip A -> B"
    (params,) = world.started
    assert params["drain"] is True
    assert params["trigger"] == "schedule"
    assert params.get("apply", False) is False


async def test_killed_between_the_note_and_the_run_the_night_does_not_begin_again(
    tmp_path: Path,
) -> None:
    world = World()
    world.refusals = [asyncio.CancelledError()]  # as if the process had ended right there
    async with nightly(tmp_path, world) as made:
        await made.set({"at": "03:30"})
        made._think_soon()
        with pytest.raises(asyncio.CancelledError):
            await decided(made, 1)
    async with nightly(tmp_path, world) as again:
        (fired,) = await decided(again, 1)
        assert (fired["decision"], fired["outcome"]) == ("fired", "crashed")
        assert again._due() == NIGHT.replace(second=0) + timedelta(days=1)
    assert len(world.started) == 1


@pytest.mark.parametrize(
    "refusal", [Busy("run r9 is active", run_id="r9"), RestoreOutstanding("owed", lease={})]
)
async def test_a_refusal_that_may_pass_leaves_the_night_open(
    tmp_path: Path, refusal: AutotunedError
) -> None:
    world = World()
    world.refusals = [refusal]
    async with nightly(tmp_path, world) as made:
        await made.set({"at": "03:30"})
        made._think_soon()
        (waiting,) = await decided(made, 1)
        assert (waiting["decision"], waiting["reason"]) == ("waiting", refusal.message)
        world.now += timedelta(minutes=1)
        made._think_soon()
        newest, _ = await decided(made, 2)
        assert (newest["decision"], newest["run_id"]) == ("fired", "r2")


async def test_while_a_restore_is_owed_it_does_not_even_ask(tmp_path: Path) -> None:
    world = World()
    world.owed = True
    async with nightly(tmp_path, world) as made:
        await made.set({"at": "03:30"})
        made._think_soon()
        (waiting,) = await decided(made, 1)
        assert waiting["reason"] == "the live provider is still owed a restore"
        world.now += timedelta(hours=5)
        made._think_soon()
        closed, _ = await decided(made, 2)
        assert closed["decision"] == "skipped"
        assert closed["reason"].startswith("until its window closed: the live provider")
    assert world.started == []


async def test_a_conflict_at_night_ends_the_night_and_is_told_as_the_end_of_a_run(
    tmp_path: Path,
) -> None:
    world = World()
    conflict = ProviderConflict("in the way: foreground-PID-7", ["foreground-PID-7"])
    conflict.data = {**conflict.data, "run_id": "r1"}
    world.refusals = [conflict]
    async with nightly(tmp_path, world) as made:
        told = made._events.subscribe(None, None)
        await made.set({"at": "03:30"})
        made._think_soon()
        (fired,) = await decided(made, 1)
        async with asyncio.timeout(10):
            event = await anext(aiter(told))
    assert (fired["decision"], fired["outcome"]) == ("fired", "provider_conflict")
    assert (event.type, event.run_id) == ("run.finished", "r1")


async def test_slept_through_is_written_down_at_the_next_start(tmp_path: Path) -> None:
    world = World()
    world.now = NIGHT - timedelta(hours=10)
    async with nightly(tmp_path, world) as made:
        await made.set({"at": "03:30"})
    world.now = NIGHT + timedelta(hours=10)
    async with nightly(tmp_path, world) as made:
        (missed,) = await decided(made, 1)
    assert (missed["decision"], missed["night"]) == (Action.MISSED.value, "2036-05-04")


async def test_a_stored_schedule_of_another_version_is_off_and_stops_nothing(
    tmp_path: Path,
) -> None:
    database = await Database.open(tmp_path / "db.sqlite")
    unreadable = """INSERT INTO schedule VALUES (1, '{"schedule": {"at": 5}, "set_at": "x"}')"""
    await database.ask(lambda db: db.execute(unreadable))
    await database.close()
    async with nightly(tmp_path, World()) as made:
        assert (await made.brief())["enabled"] is False


async def test_the_alarm_rings_at_once_for_a_moment_that_has_passed_and_once_only() -> None:
    rung = asyncio.Event()
    rings: list[int] = []

    def ring() -> None:
        rings.append(1)
        rung.set()

    made = Alarm(ring, lambda: None)
    made.set(datetime.now(UTC) - timedelta(days=1))
    async with asyncio.timeout(10):
        await rung.wait()
    made.close()
    made.close()
    assert rings == [1]


async def test_the_heartbeat_follows_a_clock_that_was_set_or_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarm, "HEARTBEAT_S", 0.01)
    rung = asyncio.Event()
    due = datetime.now(UTC) + timedelta(hours=5)
    made = Alarm(rung.set, lambda: due)
    made.set(due)
    await asyncio.sleep(0.05)
    assert not rung.is_set()
    due = datetime.now(UTC)  # as seen by a clock that has jumped
    async with asyncio.timeout(10):
        await rung.wait()
    made.close()


async def test_after_a_gap_the_sleeping_timer_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "HEARTBEAT_S", 0.01)
    clocks = [0.0, 0.0]
    monkeypatch.setattr(alarm, "_clocks", lambda: (clocks[0], clocks[1]))
    due = datetime.now(UTC) + timedelta(hours=5)
    made = Alarm(lambda: None, lambda: due)
    made.set(due)
    woken = asyncio.Event()
    monkeypatch.setattr(made._scheduler, "wakeup", woken.set)
    await asyncio.sleep(0.05)
    assert not woken.is_set()
    clocks[0] += 3600  # the wall clock went on while the timers stood still
    async with asyncio.timeout(10):
        await woken.wait()
    made.close()


ZONES = {
    "UTC0": "03:30",
    "EST5EDT,M3.2.0,M11.1.0": "07:30",
    ":Europe/Rome": "01:30",
    "<-03>3": "06:30",
    "Europe/Rome": "01:30",
    "": "03:30",
}
"""Spellings of a zone, and when 03:30 of a day in May is there, in UTC."""


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    with pytest.MonkeyPatch.context() as patch:

        def use(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        yield use
    time.tzset()


@pytest.mark.parametrize("name", ZONES)
async def test_a_schedule_fires_at_the_local_time_of_every_zone_that_the_machine_knows(
    tmp_path: Path, name: str, zone: Callable[[str], None]
) -> None:
    zone(name)
    world = World()
    world.now = datetime(2036, 5, 3, 12, tzinfo=UTC)
    async with nightly(tmp_path, world) as made:
        await made.set({"at": "03:30"})
        document = await made.get(0)
        assert (document["next_run_at"], document["fault"]) == (
            f"2036-05-04T{ZONES[name]}:00Z",
            None,
        )
        assert document["next_run_at"] is not None
        assert made._alarm._at == datetime.fromisoformat(document["next_run_at"])
        world.now = made._alarm._at
        made._think_soon()
        (fired,) = await decided(made, 1)
        assert (fired["decision"], fired["night"]) == ("fired", "2036-05-04")


@pytest.mark.parametrize(
    "name",
    ['"Europe/Rome"', "Europe/Rom", "EST5EDT,M13.2.0,M11.1.0", "UTC0 ", "/dev/null", "UT0"],
)
async def test_a_zone_that_nobody_knows_refuses_a_schedule_and_nothing_is_stored(
    tmp_path: Path, name: str, zone: Callable[[str], None]
) -> None:
    async with nightly(tmp_path, World()) as made:
        await made.set({"at": "03:30"})
    zone(name)
    async with nightly(tmp_path, World()) as made:
        with pytest.raises(ConfigError, match="TZ is"):
            await made.set({"at": "04:00"})
        document = await made.get(0)
        assert (document["at"], document["next_run_at"]) == ("03:30", None)
        assert repr(name) in (document["fault"] or "")
        made._think_soon()
        assert await decided(made, 0) == []


async def test_a_timer_that_cannot_be_set_refuses_the_schedule_and_the_former_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nightly(tmp_path, World()) as made:
        await made.set({"at": "03:30"})
        before = await made.get(0)

        def broken(*_: object) -> None:
            message = "no timers today"
            raise RuntimeError(message)

        with monkeypatch.context() as patch:
            patch.setattr("apscheduler.triggers.date.DateTrigger", broken)
            with pytest.raises(ConfigError, match="no timers today"):
                await made.set({"at": "04:00"})
        assert (await made.get(0))["at"] == before["at"]
    async with nightly(tmp_path, World()) as again:
        assert await again.get(0) == before


async def test_a_schedule_for_mains_power_alone_is_refused_where_the_machine_cannot_tell(
    tmp_path: Path,
) -> None:
    world = World()
    world.on_ac = None
    async with nightly(tmp_path, world) as made:
        with pytest.raises(ConfigError, match="on battery"):
            await made.set({"at": "03:30", "only_on_ac": True})
        assert not (await made.get(0))["enabled"]


@pytest.mark.parametrize(("verdict", "tunes"), [("same", False), ("slower", True), ("fails", True)])
async def test_a_check_comes_first_and_a_tune_follows_the_same_night_only_where_it_lost(
    tmp_path: Path, verdict: str, *, tunes: bool
) -> None:
    world = World()
    async with nightly(tmp_path, world) as made:
        database = made._records.database
        details = cast("runs.Details", {"check": {"verdict": verdict}})
        began = "2036-05-04T01:30:10Z"
        row = runs.RunRow("c1", began, None, "v", "s 1", 8, "B", "macOS 26.4", 9, "[]", 1, 1, 9, 0)
        await made.set({"at": "03:30", "first": "check", "drain": True})
        await database.ask(runs.begin, row, {})
        made._think_soon()
        (checking,) = await decided(made, 1)
        assert (checking["decision"], checking["run_id"]) == ("checking", "c1")
        assert world.checked == [{"drain": True}]
        made._think_soon()
        await decided(made, 1)  # while it goes on nothing else is decided
        world.active = None

        def end(db: sqlite3.Connection) -> None:
            runs.finish(
                db,
                "c1",
                exit_reason="ok",
                ended_at=began,
                recommendation=None,
                recipe_hash=None,
                details=details,
            )

        await database.ask(end)
        world.now += timedelta(hours=5)
        made._think_soon()
        followed, _ = await decided(made, 2)
    assert followed["night"] == "2036-05-04"
    if tunes:
        assert (followed["decision"], followed["reason"]) == ("fired", f"check: {verdict}")
        assert (len(world.started), world.confirmed) == (1, [])
    else:
        assert (followed["decision"], followed["reason"]) == ("skipped", "confirmed on macOS 26.4")
        assert (world.started, world.confirmed) == ([], ["c1"])


async def test_a_check_that_is_refused_is_followed_by_the_tune(tmp_path: Path) -> None:
    world = World()
    field = "run_id"
    world.refusals = [ConfigError(field, "r0", "has no samples of its recipe")]
    async with nightly(tmp_path, world) as made:
        await made.set({"at": "03:30", "first": "check"})
        made._think_soon()
        (checking,) = await decided(made, 1)
        assert (checking["decision"], checking["outcome"]) == ("checking", "config_error")
        made._think_soon()
        fired, _ = await decided(made, 2)
    assert (fired["decision"], fired["reason"]) == ("fired", "check: config_error")
