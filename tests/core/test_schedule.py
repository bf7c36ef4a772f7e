"""The rule of the nightly re-tune, over whole years: clock changes, sleep, reboots, batteries, wrong clocks."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core import schedule as rules
from autotuned.core.schedule import DAYS, Action, Book, Decision, Schedule, parse
from autotuned.core.staleness import Verdict
from autotuned.errors import ConfigError

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
SPAN = (datetime(2000, 1, 1), datetime(2040, 1, 1))  # noqa: DTZ001 - as hypothesis takes it
BEAT = timedelta(seconds=30)
FRESH = Verdict((), "r0")


class Year:
    """A machine with a wall clock that may be wrong, and an agent on it that thinks when its alarm rings.

    `asleep` are spans of true time in which nothing runs; `steps` set the wall clock forward or back.
    """

    def __init__(self, schedule: Schedule, zone: ZoneInfo, start: datetime) -> None:
        self.zone, self.now = zone, start
        self.book = Book(schedule, start)
        self.asleep: list[tuple[datetime, datetime]] = []
        self.steps: list[tuple[datetime, timedelta]] = []
        self.offset = timedelta()
        self.written: list[Decision] = []
        self.verdict: Callable[[datetime], Verdict] = lambda _: FRESH
        self.on_ac: Callable[[datetime], bool] = lambda _: True
        self.outcome: Callable[[datetime], str] = lambda _: "ok"

    @property
    def wall(self) -> datetime:
        return self.now + self.offset

    def live(self, end: datetime) -> Year:
        while self.now < end:
            again = self._think()
            due = again or rules.next_look(self.book, self.wall, self.zone)
            rings = end if due is None else self.now + max(due - self.wall, timedelta(0))
            self._pass_until(min(rings, end))
        return self

    def _pass_until(self, then: datetime) -> None:
        """Let time pass; sleeping through the end of it delays it, a set clock ends it at the next beat."""
        slept = [span for span in self.asleep if self.now < span[0] <= then]
        stepped = [step for step in self.steps if self.now < step[0] <= then]
        if stepped and (not slept or stepped[0][0] < slept[0][0]):
            self.now = stepped[0][0] + BEAT
            self.offset += stepped[0][1]
        elif slept:
            self.now = slept[0][1] + BEAT
        else:
            self.now = then

    def _think(self) -> datetime | None:
        closed = rules.gone_by(self.book, self.wall, self.zone)
        if closed is not None:
            self._record(closed)
        window = rules.open_night(self.book, self.wall, self.zone)
        if window is None:
            return None
        pausing = rules.paused(self.book, self.wall)
        if pausing is not None:
            self._record(Decision(self.wall, window.night, Action.SKIPPED, pausing))
            return None
        held = rules.obstacle(
            self.book.schedule,
            active_run=None,
            restore_outstanding=False,
            on_ac=self.on_ac(self.now),
        )
        if held is not None:
            if rules.waiting_for(self.book, window.night) != held:
                self._record(Decision(self.wall, window.night, Action.WAITING, held))
            return self.wall + timedelta(minutes=10)
        action, reason = rules.judge(self.book.schedule, self.verdict(self.now))
        outcome = self.outcome(self.now) if action is Action.FIRED else None
        self._record(Decision(self.wall, window.night, action, reason, "r1", outcome))
        if outcome == "ok":
            self.book = dataclasses.replace(self.book, last_good=self.wall)
        return None

    def _record(self, decision: Decision) -> None:
        self.written.append(decision)
        kept = (*self.book.decisions, decision)[-40:]  # as the store lets old ones go
        self.book = dataclasses.replace(self.book, decisions=kept)

    def nights(self, action: Action) -> list[date]:
        return [d.night for d in self.written if d.action is action and d.night]

    def fired_at(self) -> list[datetime]:
        """Local times at which runs began."""
        fired = [d for d in self.written if d.action is Action.FIRED]
        return [d.at.astimezone(self.zone) for d in fired]


def a_year(zone: ZoneInfo, **fields: object) -> Year:
    schedule = Schedule.model_validate({"enabled": True, "when": "always", **fields})
    return Year(schedule, zone, datetime(2026, 1, 1, 0, 5, tzinfo=zone).astimezone(UTC))


def new_year(zone: ZoneInfo) -> datetime:
    return datetime(2027, 1, 1, tzinfo=zone).astimezone(UTC)


@pytest.mark.parametrize(
    ("zone", "spring", "autumn"),
    [
        (BERLIN, date(2026, 3, 29), date(2026, 10, 25)),
        (NEW_YORK, date(2026, 3, 8), date(2026, 11, 1)),
    ],
)
@pytest.mark.parametrize("at", ["01:30", "02:30", "23:59"])
def test_a_year_of_nights_comes_once_each_also_when_the_clocks_change(
    zone: ZoneInfo, spring: date, autumn: date, at: str
) -> None:
    year = a_year(zone, at=at).live(new_year(zone))
    fired = year.fired_at()
    assert [moment.date() for moment in fired] == year.nights(Action.FIRED)
    assert len(set(year.nights(Action.FIRED))) == len(fired) == 365
    for moment in fired:
        shown = "03:30" if moment.date() == spring and at == "02:30" else at
        assert moment.strftime("%H:%M:%S") == f"{shown}:00"
        assert moment.fold == 0, "a repeated hour fires at its first pass"
    assert autumn in year.nights(Action.FIRED)
    assert year.nights(Action.MISSED) == []


def test_it_does_nothing_while_fresh_and_fires_in_the_night_after_an_update() -> None:
    year = a_year(BERLIN, when="stale", at="03:30")
    update = datetime(2026, 6, 10, 12, tzinfo=UTC)

    def verdict(now: datetime) -> Verdict:
        good = year.book.last_good
        if now < update or (good is not None and good > update):
            return FRESH
        return Verdict(("macOS 26.3 -> 26.4",), "r0", os_changed=True)

    year.verdict = verdict
    year.live(new_year(BERLIN))
    assert year.nights(Action.FIRED) == [date(2026, 6, 11)]
    assert len(year.nights(Action.SKIPPED)) == 364
    reasons = {d.reason for d in year.written if d.action is Action.SKIPPED}
    assert reasons == {"fresh: nothing has changed since r0"}


def test_a_machine_that_never_was_tuned_is_tuned_the_first_night() -> None:
    year = a_year(BERLIN, when="stale")
    year.verdict = lambda _: Verdict((), None)
    year.live(year.now + timedelta(days=1))
    assert [d.reason for d in year.book.decisions] == ["never tuned"]


def test_only_on_the_chosen_days() -> None:
    year = a_year(NEW_YORK, days=["thu", "mon"]).live(new_year(NEW_YORK))
    assert year.book.schedule.days == ("mon", "thu")
    assert {night.weekday() for night in year.nights(Action.FIRED)} == {0, 3}
    assert len(year.fired_at()) == 105


def test_asleep_at_the_time_it_catches_up_while_the_window_is_open_else_it_is_missed() -> None:
    year = a_year(BERLIN, at="03:30")
    for day, wakes in ((5, time(7, 29)), (7, time(7, 30)), (9, time(12, 0))):
        slept = datetime(2026, 1, day, 1, tzinfo=BERLIN).astimezone(UTC)
        year.asleep.append((slept, datetime.combine(date(2026, 1, day), wakes, BERLIN)))
    year.asleep.append(
        (datetime(2026, 2, 1, tzinfo=BERLIN), datetime(2026, 3, 1, 12, tzinfo=BERLIN))
    )
    year.asleep = [(a.astimezone(UTC), b.astimezone(UTC)) for a, b in year.asleep]
    year.live(new_year(BERLIN))
    caught_up = [m for m in year.fired_at() if m.strftime("%H:%M") != "03:30"]
    assert [f"{m:%m-%d %H:%M:%S}" for m in caught_up] == ["01-05 07:29:30"]
    # Of a long absence only the last night is written down.
    assert year.nights(Action.MISSED) == [date(2026, 1, 7), date(2026, 1, 9), date(2026, 3, 1)]
    assert len(set(year.nights(Action.FIRED))) == len(year.fired_at()) == 365 - 2 - 29


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_in_a_year_no_night_comes_twice_and_none_is_left_out(
    zone: ZoneInfo, seed: int
) -> None:
    source = random.Random(seed)
    at, hours = f"{source.randrange(24):02}:{source.choice((0, 30)):02}", source.randint(1, 24)
    year = a_year(zone, at=at, window_s=hours * 3600, only_on_ac=True)
    start, end = year.now, new_year(zone)
    moment = start
    while moment < end:
        moment += timedelta(hours=source.expovariate(1 / 40))
        wakes = moment + timedelta(hours=source.expovariate(1 / 9))
        year.asleep.append((moment, wakes))
        moment = wakes
    unplugged = {source.randrange(365 * 24) for _ in range(900)}
    year.on_ac = lambda now: int((now - start) / timedelta(hours=1)) not in unplugged
    year.live(end)

    def could_begin(minute: datetime) -> bool:
        asleep = any(a < minute <= b + BEAT for a, b in year.asleep)
        return not asleep and year.on_ac(minute)

    fired = year.nights(Action.FIRED)
    assert len(set(fired)) == len(fired)
    began = dict(zip(fired, year.fired_at(), strict=True))
    for offset in range(1, 364):
        night = start.astimezone(zone).date() + timedelta(days=offset)
        window = rules.window(year.book.schedule, night, zone)
        if night in began:
            assert window.opens <= began[night] < window.closes + BEAT
        else:
            minutes = int((window.closes - window.opens) / timedelta(minutes=1))
            chances = [could_begin(window.opens + timedelta(minutes=n)) for n in range(minutes)]
            longest = max(len(run) for run in "".join(".#"[c] for c in chances).split("."))
            assert longest <= 12, f"{night} was left out"


def test_a_clock_that_is_set_back_or_forward_brings_no_night_twice() -> None:
    year = a_year(BERLIN, at="03:30")
    for day, step in ((3, -2), (10, 30), (20, -48), (40, 5), (60, -1)):
        when = datetime(2026, 1, 1, 3, 45, tzinfo=BERLIN) + timedelta(days=day)
        year.steps.append((when.astimezone(UTC), timedelta(hours=step)))
    year.live(new_year(BERLIN))
    fired = year.nights(Action.FIRED)
    assert len(set(fired)) == len(fired)
    assert len(fired) >= 362


def test_after_three_failures_in_a_row_it_pauses_and_a_good_run_or_setting_it_ends_that() -> None:
    year = a_year(BERLIN)
    year.outcome = lambda _: "provider_conflict"
    year.live(year.now + timedelta(days=6))
    assert [d.action for d in year.book.decisions] == [Action.FIRED] * 3 + [Action.SKIPPED] * 3
    assert rules.paused(year.book, year.wall) == (
        "paused after 3 failures in a row, the last: provider_conflict"
    )
    assert rules.next_due(year.book, year.wall, BERLIN) is None
    again = dataclasses.replace(year.book, since=year.wall)
    assert rules.paused(again, year.wall) is None
    good = dataclasses.replace(year.book, last_good=year.wall)
    assert rules.paused(good, year.wall) is None
    assert rules.next_due(good, year.wall, BERLIN) is not None


@pytest.mark.parametrize(
    ("outcomes", "pauses"),
    [
        ("bad bad bad", True),
        ("bad bad ok bad bad", False),
        ("bad interrupted bad unknown bad", True),
        ("interrupted interrupted interrupted", False),
    ],
)
def test_what_counts_as_failures_in_a_row(outcomes: str, pauses: bool) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    decisions = tuple(
        Decision(start + timedelta(days=n), None, Action.FIRED, "", "r", outcome)
        for n, outcome in enumerate(outcomes.split())
    )
    book = Book(Schedule(enabled=True), start, decisions)
    assert (rules.paused(book, start + timedelta(days=9)) is not None) is pauses


def test_setting_it_inside_a_window_waits_for_the_next_night_but_a_moment_ago_is_now() -> None:
    schedule = Schedule(enabled=True, at="03:30")
    late = datetime(2026, 5, 4, 5, 0, tzinfo=BERLIN).astimezone(UTC)
    assert rules.open_night(Book(schedule, late), late, BERLIN) is None
    tomorrow = datetime(2026, 5, 5, 3, 30, tzinfo=BERLIN)
    assert rules.next_due(Book(schedule, late), late, BERLIN) == tomorrow
    same = datetime(2026, 5, 4, 3, 31, 40, tzinfo=BERLIN).astimezone(UTC)
    assert rules.open_night(Book(schedule, same), same, BERLIN) is not None


def test_switched_off_nothing_is_due() -> None:
    now = datetime(2026, 5, 4, 4, tzinfo=UTC)
    book = Book(Schedule(enabled=False))
    assert rules.next_due(book, now, BERLIN) is None
    assert rules.next_look(book, now, BERLIN) is None
    assert rules.open_night(book, now, BERLIN) is None
    assert rules.gone_by(book, now, BERLIN) is None


def test_a_schedule_set_while_the_clock_was_years_ahead_still_works() -> None:
    book = Book(Schedule(enabled=True), datetime(2031, 1, 1, tzinfo=UTC))
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert rules.next_due(book, now, BERLIN) == datetime(2026, 1, 2, 3, 30, tzinfo=BERLIN)


def test_a_night_that_began_stays_begun_when_the_schedule_is_set_again() -> None:
    now = datetime(2026, 5, 4, 3, 31, tzinfo=BERLIN)
    begun = Decision(now, date(2026, 5, 4), Action.FIRED, "always", "r1", "ok")
    skipped = dataclasses.replace(begun, action=Action.SKIPPED, outcome=None)
    later = now + timedelta(minutes=10)
    schedule = Schedule(enabled=True, at="03:45")
    after = later + timedelta(minutes=5)
    assert rules.open_night(Book(schedule, later, (begun,)), after, BERLIN) is None
    assert rules.open_night(Book(schedule, later, (skipped,)), after, BERLIN) is not None


def test_a_night_that_waited_to_the_end_says_for_what() -> None:
    year = a_year(BERLIN, only_on_ac=True)
    year.on_ac = lambda _: False
    year.live(year.now + timedelta(days=1))
    assert [(d.action, d.reason) for d in year.book.decisions] == [
        (Action.WAITING, "on battery"),
        (Action.SKIPPED, "until its window closed: on battery"),
    ]


def test_what_stands_in_the_way_is_named() -> None:
    free = {"active_run": None, "restore_outstanding": False, "on_ac": None}
    schedule = Schedule(enabled=True)

    def way(schedule: Schedule, **facts: object) -> str | None:
        return rules.obstacle(schedule, **{**free, **facts})  # type: ignore[arg-type]

    assert way(schedule) is None
    assert way(schedule, active_run="r9") == "run r9 is active"
    assert way(schedule, restore_outstanding=True) == "the live provider is still owed a restore"
    careful = Schedule(enabled=True, only_on_ac=True)
    assert way(careful) == "cannot tell whether on battery"
    assert way(careful, on_ac=False) == "on battery"
    assert way(careful, on_ac=True) is None


@settings(max_examples=60, deadline=None)
@given(
    at=st.times(),
    hours=st.integers(1, 24),
    now=st.datetimes(*SPAN),
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"]
    ),
)
def test_windows_never_overlap_and_the_next_moment_is_never_past(
    at: time, hours: int, now: datetime, zone: str
) -> None:
    schedule = Schedule(enabled=True, at=at.strftime("%H:%M"), window_s=hours * 3600)
    here, moment = ZoneInfo(zone), now.replace(tzinfo=UTC)
    book = Book(schedule)
    due = rules.next_due(book, moment, here)
    assert due is not None
    assert moment <= due <= moment + timedelta(hours=49)
    first = rules.window(schedule, moment.date(), here)
    second = rules.window(schedule, moment.date() + timedelta(days=1), here)
    assert first.opens <= first.closes <= second.opens


@pytest.mark.parametrize(
    ("params", "field", "rule"),
    [
        ({}, "at", "must be given"),
        ({"at": "3:30"}, "at", "is not a time of day such as 03:30"),
        ({"at": "25:00"}, "at", "is not a time of day"),
        ({"at": 330}, "at", "should be text"),
        ({"at": "03:30", "window_s": 10}, "window_s", "greater than or equal to 60"),
        ({"at": "03:30", "window_s": 90_000}, "window_s", "less than or equal to 86400"),
        ({"at": "03:30", "when": "never"}, "when", "'stale' or 'always'"),
        ({"at": "03:30", "days": ["monday"]}, "days", "'mon'"),
        ({"at": "03:30", "days": []}, "days", "must name a day"),
        ({"at": "03:30", "hour": 3}, "hour", "is not a parameter of schedule.set"),
        ({"at": "03:30", "request": {"drain": True}}, "drain", "is not a field of the schedule"),
        ({"at": "03:30", "request": {"resume": "r1"}}, "resume", "is not a field of the schedule"),
        ({"at": "03:30", "request": {"port": 0}}, "port", "greater than or equal to 1"),
        ({"enabled": "no"}, "enabled", "should be true or false"),
    ],
)
def test_a_bad_schedule_names_field_value_and_rule(
    params: dict[str, object], field: str, rule: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(params, Schedule())
    assert refused.value.field == field
    assert rule in refused.value.rule


def test_setting_keeps_nothing_of_an_earlier_schedule_and_off_keeps_all() -> None:
    before = parse({"at": "03:30", "drain": True, "days": ["sun", "mon"]}, Schedule())
    assert before.enabled
    assert before.days == ("mon", "sun")
    assert parse({"at": "04:00"}, before).drain is False
    off = parse({"enabled": False}, before)
    assert off == before.model_copy(update={"enabled": False})
    assert tuple(DAYS) == ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def test_only_where_it_is_asked_for_and_can_answer_a_check_comes_first() -> None:
    changed = Verdict(("macOS 26.3 -> 26.4",), "r0", os_changed=True, checkable=True)
    first = Schedule(enabled=True, first="check")
    assert rules.judge(first, changed) == (Action.CHECKING, "stale: macOS 26.3 -> 26.4")
    assert rules.judge(Schedule(enabled=True), changed)[0] is Action.FIRED
    other = dataclasses.replace(changed, checkable=False)
    assert rules.judge(first, other)[0] is Action.FIRED


@pytest.mark.parametrize(
    ("outcome", "verdict", "expected"),
    [
        ("ok", "same", (Action.SKIPPED, "confirmed on macOS 26.4")),
        ("ok", "faster", (Action.SKIPPED, "confirmed on macOS 26.4")),
        ("ok", "slower", (Action.FIRED, "check: slower")),
        ("ok", "fails", (Action.FIRED, "check: fails")),
        ("config_error", None, (Action.FIRED, "check: config_error")),
        ("crashed", None, (Action.SKIPPED, "the check has ended as crashed")),
        ("interrupted", None, (Action.SKIPPED, "the check has ended as interrupted")),
    ],
)
def test_a_tune_follows_only_a_check_that_the_recipe_lost(
    outcome: str, verdict: str | None, expected: tuple[Action, str]
) -> None:
    assert rules.after_check(outcome, verdict, "macOS 26.4") == expected


def test_a_night_that_began_with_a_check_is_open_to_what_follows_from_it_alone() -> None:
    opens = datetime(2026, 5, 4, 1, 30, tzinfo=UTC)  # 03:30 in Berlin
    night = date(2026, 5, 4)
    check = Decision(opens, night, Action.CHECKING, "stale", "r1")
    waits = Decision(opens, night, Action.WAITING, "on battery")
    schedule = Schedule(enabled=True, first="check")
    book = Book(schedule, opens - timedelta(days=1), (check, waits))
    assert rules.checking(book) == check
    assert rules.open_night(book, opens, BERLIN) is None
    after = dataclasses.replace(
        book, decisions=(check, dataclasses.replace(waits, action=Action.SKIPPED))
    )
    assert rules.checking(after) is None
    assert rules.checking(dataclasses.replace(book, decisions=())) is None
    assert rules.checking(dataclasses.replace(book, since=opens + BEAT)) is None
    off = dataclasses.replace(book, schedule=Schedule(first="check"))
    assert rules.checking(off) is None


def test_checks_that_the_agent_crashes_in_pause_it_too_and_other_checks_end_no_series() -> None:
    opens = datetime(2026, 5, 4, 1, 30, tzinfo=UTC)
    crashed = [
        Decision(opens + timedelta(days=day), None, Action.CHECKING, "stale", "r", "crashed")
        for day in range(3)
    ]
    good = dataclasses.replace(crashed[0], outcome="ok")
    book = Book(Schedule(enabled=True, first="check"), opens, (*crashed[:2], good, crashed[2]))
    assert rules.paused(book, opens + timedelta(days=4)) is not None
    assert rules.paused(dataclasses.replace(book, decisions=(good,) * 3), opens) is None
