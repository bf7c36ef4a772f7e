"""The wall clock and this machine's time zone. The agent writes times down in one form: UTC, ISO 8601, `Z`."""

from __future__ import annotations

import os
import re
import sys
import time
import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

LOCALTIME = Path("/etc/localtime")
_NAME = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)"
_OFFSET = r"[+-]?(?:2[0-4]|[01]?\d)(?::[0-5]?\d){0,2}"
_DAY = r"(?:M(?:1[0-2]|[1-9])\.[1-5]\.[0-6]|J?\d{1,3})"
_CHANGE = rf",{_DAY}(?:/[+-]?\d{{1,3}}(?::[0-5]?\d){{0,2}})?"
POSIX_ZONE = re.compile(rf"{_NAME}{_OFFSET}(?:{_NAME}(?:{_OFFSET})?(?:{_CHANGE}{_CHANGE})?)?")
"""Such as `UTC0` or `EST5EDT,M3.2.0,M11.1.0`."""


def utc_now() -> str:
    """Now, to the millisecond, as `2026-01-31T12:00:00.000Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LocalZone(tzinfo):
    """The zone of this machine, with all its clock changes, as the C library knows it.

    It follows a machine that is taken to another zone, at the next `reread`.
    """

    def fault(self) -> str | None:
        """Why local time cannot be relied on: the C library takes UTC for a zone that it does not know, silently."""
        name = os.environ.get("TZ")
        if name is None:
            dangling = LOCALTIME.is_symlink() and not LOCALTIME.exists()
            return (
                f"{LOCALTIME} leads to no file, so the time zone is unknown" if dangling else None
            )
        zone = name.removeprefix(":")
        folders = [os.environ["TZDIR"]] if "TZDIR" in os.environ else zoneinfo.TZPATH
        if (
            not zone
            or any(_is_zone(Path(folder, zone)) for folder in folders)
            or POSIX_ZONE.fullmatch(zone)
        ):
            return None
        return (
            f"TZ is {name!r}, which is no time zone of this machine (such as Europe/Rome or UTC0)"
        )

    def reread(self) -> None:
        """See a zone that was changed under a running agent."""
        time.tzset()

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """The offset at a local time; `fold` tells the two passes of a repeated hour apart."""
        if moment is None:
            return None
        seconds = moment.replace(
            tzinfo=None
        ).timestamp()  # the standard library's own rule for folds and gaps
        return moment.replace(tzinfo=UTC) - datetime.fromtimestamp(seconds, UTC)

    def dst(self, moment: datetime | None) -> timedelta | None:  # noqa: ARG002 - as tzinfo has it
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """The abbreviation in use at a local time, such as `CET`."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """Local time of a moment given in UTC."""
        local = datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp())  # noqa: DTZ006 - local is what is asked
        return local.replace(microsecond=moment.microsecond, tzinfo=self)


def _is_zone(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"TZif"
    except (OSError, ValueError):
        return False


class Sleep:
    """How long this machine has slept: the gap between a clock that counts sleep and one that does not.

    The wall clock is not asked: it is set, stepped and slewed. The same name means different clocks on the
    two systems: macOS counts sleep in CLOCK_MONOTONIC_RAW (mach_continuous_time), Linux in CLOCK_BOOTTIME alone.
    """

    def slept_s(self) -> float:
        """Seconds asleep since some moment that stays the same while the agent lives."""
        if sys.platform == "darwin":
            return time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.monotonic()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
